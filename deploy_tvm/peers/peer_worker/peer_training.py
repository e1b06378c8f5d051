"""Training steps of a language model in other libraries: embedding, ``torch.nn.LSTM`` or brevitas' ``QuantLSTM``, and
an output layer, on random tokens; the state is carried from step to step, as truncated backpropagation does it."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from peer_serving import Runtime

Job = dict[str, Any]


def load_torch_training(job: Job) -> Runtime:
    """PyTorch's own modules in float."""
    import torch
    from torch import nn

    layer_class = {"lstm": nn.LSTM, "gru": nn.GRU}.get(job["cell"])
    if layer_class is None:
        raise NotImplementedError(f"PyTorch has no layer of {job['cell']}")
    embedding = nn.Embedding(job["vocabulary_size"], job["embedding_size"])
    layers = layer_class(job["embedding_size"], job["hidden_size"], job["num_layers"], batch_first=True)
    decoder = nn.Linear(job["hidden_size"], job["vocabulary_size"])
    step = _training(job, embedding, layers, decoder, layers)
    return Runtime(_as_call(step), {"torch": torch.__version__})


def load_brevitas_training(job: Job, *, jit: bool) -> Runtime:
    """brevitas with weights of the run's bits and its own 8 bits for the rest; jit: its compiled quantizers."""
    os.environ["BREVITAS_JIT"] = str(int(jit))  # read while it is imported
    from brevitas import nn as quantized

    if job["cell"] != "lstm":
        raise NotImplementedError(f"brevitas has no quantized layer of {job['cell']}")
    bits = job["weight_bits"]
    embedding = quantized.QuantEmbedding(job["vocabulary_size"], job["embedding_size"], weight_bit_width=bits)
    layers = quantized.QuantLSTM(
        job["embedding_size"], job["hidden_size"], job["num_layers"], batch_first=True, weight_bit_width=bits
    )
    decoder = quantized.QuantLinear(job["hidden_size"], job["vocabulary_size"], bias=True, weight_bit_width=bits)
    count = job["num_layers"]

    def run(x: Any, state: Any) -> tuple[Any, Any]:
        # It takes the states one by one and looks for that of layer k at place 2k.
        given = [] if state is None else [[part[k // 2] for k in range(2 * count)] for part in state]
        return layers(x, *given)

    step = _training(job, embedding, layers, decoder, run)
    return Runtime(_as_call(step), {"brevitas": version("brevitas")})


def _training(
    job: Job, embedding: Any, layers: Any, decoder: Any, run: Callable[[Any, Any], tuple[Any, Any]]
) -> Callable[[], Any]:
    """One step of truncated backpropagation.  run: the layers on inputs and a state, or None."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if job["tie_weights"]:
        decoder.weight = embedding.weight
    modules = torch.nn.ModuleList([embedding, layers, decoder]).train()
    optimizers = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    # A rate so small that random tokens lead nowhere.
    optimizer = optimizers[job["optimizer"]](modules.parameters(), lr=1e-6)
    dropout = torch.nn.Dropout(job["dropout"])
    rng = np.random.default_rng(1)
    shape = (8, job["batch_size"], job["steps"] + 1)
    texts = torch.from_numpy(rng.integers(0, job["vocabulary_size"], shape))
    carried: dict[str, Any] = {"state": None, "step": 0}

    def step() -> None:
        text = texts[carried["step"] % len(texts)]
        carried["step"] += 1
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=job["bf16"]):
            y, state = run(dropout(embedding(text[:, :-1])), carried["state"])
            logits = decoder(dropout(y))
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), text[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(modules.parameters(), job["clip"])
        optimizer.step()
        carried["state"] = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()

    return step


def _as_call(step: Callable[[], Any]) -> Callable[[], list[np.ndarray]]:
    """As a ``Runtime`` has it."""

    def call() -> list[np.ndarray]:
        step()
        return [np.zeros(0)]

    return call
