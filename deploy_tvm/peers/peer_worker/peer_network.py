"""What a peer builds its model from: a folder that ``deploy_tvm.peers.lstm_stack.save_job`` wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# W_x [4 hidden, input], W_h [4 hidden, hidden], bias [4 hidden]; rows in the gate order i, f, g, o.
Cell = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Stack:
    """Plain LSTM layers, each a list of its directions; embedding ``[vocabulary, size]`` and logits (weight, bias)."""

    layers: list[list[Cell]]
    embedding: np.ndarray | None
    logits: tuple[np.ndarray, np.ndarray] | None

    @property
    def hidden(self) -> int:
        return self.layers[0][0][1].shape[1]

    @property
    def directions(self) -> int:
        return len(self.layers[0])


@dataclass(frozen=True)
class Network:
    """A network and its input.

    stack: the network as plain LSTM layers, None where it is something else.  graph: the float program, as
    ``program.json``
    has it, and its tensors.  inputs: features ``[steps, 1, size]`` float32, or ids ``[1, steps]`` int64; of a program
    with several inputs all of them by name, batch first.  loops: such a program's plain LSTM loops, by the number of
    their node.
    """

    stack: Stack | None
    graph: dict[str, Any]
    tensors: dict[str, np.ndarray]
    inputs: np.ndarray | dict[str, np.ndarray]
    folder: Path
    loops: dict[int, Cell]

    @classmethod
    def load(cls, folder: Path) -> Network:
        """Read what ``save_job`` wrote."""
        job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        with np.load(folder / "arrays.npz", allow_pickle=False) as file:
            arrays = dict(file)
        stack = None
        if job["stack"] is not None:
            cells = job["stack"]["cells"]
            layers = [[tuple(arrays[name] for name in cell) for cell in layer] for layer in cells]
            embedding, logits = job["stack"]["embedding"], job["stack"]["logits"]
            stack = Stack(
                layers,
                None if embedding is None else arrays[embedding],
                None if logits is None else (arrays[logits[0]], arrays[logits[1]]),
            )
        graph = json.loads((folder / "program" / "program.json").read_text(encoding="utf-8"))
        inputs = arrays.get("inputs")
        if inputs is None:
            inputs = {name: arrays[f"input.{name}"] for name in job["inputs"]}
        loops = {int(k): tuple(arrays[name] for name in names) for k, names in job.get("loops", {}).items()}
        return cls(stack, graph, arrays, inputs, folder, loops)

    @property
    def features(self) -> bool:
        return not isinstance(self.inputs, dict) and self.inputs.ndim == 3

    @property
    def steps(self) -> int:
        if isinstance(self.inputs, dict):
            raise NotImplementedError("this runtime is set up for networks with one input")
        return self.inputs.shape[0] if self.features else self.inputs.shape[1]

    def plain_layers(self) -> Stack:
        """The stack, for runtimes that are set up for plain LSTM layers of features alone."""
        if self.stack is None:
            raise NotImplementedError("this runtime has no operator for the network's layers: they are no plain LSTMs")
        if self.stack.embedding is not None or self.stack.logits is not None:
            raise NotImplementedError("this runtime is set up for layers of features, not for language models")
        return self.stack


def reordered(array: np.ndarray, order: str) -> np.ndarray:
    """Rows in the gate order i, f, g, o to another order."""
    parts = dict(zip("ifgo", np.split(array, 4), strict=True))
    return np.ascontiguousarray(np.concatenate([parts[gate] for gate in order]))
