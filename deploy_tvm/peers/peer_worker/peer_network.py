"""What a peer builds its model from: a folder that ``deploy_tvm.peers.recurrent_stack.save_job`` wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

GATES = {"lstm": "ifgo", "gru": "rzn", "rnn": "h"}  # an "rnn" is one with ReLU
STATES = {"lstm": "hc", "gru": "h", "rnn": "h"}


@dataclass(frozen=True)
class Cell:
    """One direction of one layer: float32 W_x ``[gates * hidden, input]``, W_h ``[gates * hidden, hidden]``, b_x and
    b_h ``[gates * hidden]``; the rows in torch's order, ``GATES[kind]``."""

    kind: str
    w_x: np.ndarray
    w_h: np.ndarray
    b_x: np.ndarray
    b_h: np.ndarray

    @property
    def hidden(self) -> int:
        return self.w_h.shape[1]

    def in_order(self, order: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(W_x, W_h, b_x, b_h) with their rows in another order of the gates."""
        w_x, w_h, b_x, b_h = (self._reordered(array, order) for array in (self.w_x, self.w_h, self.b_x, self.b_h))
        return w_x, w_h, b_x, b_h

    def _reordered(self, array: np.ndarray, order: str) -> np.ndarray:
        gates = GATES[self.kind]
        parts = dict(zip(gates, np.split(array, len(gates)), strict=True))
        return np.ascontiguousarray(np.concatenate([parts[gate] for gate in order]))


@dataclass(frozen=True)
class Stack:
    """Plain layers of one kind, each a list of its directions; embedding ``[vocabulary, size]``, logits as a pair."""

    layers: list[list[Cell]]
    embedding: np.ndarray | None
    logits: tuple[np.ndarray, np.ndarray] | None

    @property
    def kind(self) -> str:
        return self.layers[0][0].kind

    @property
    def hidden(self) -> int:
        return self.layers[0][0].hidden

    @property
    def directions(self) -> int:
        return len(self.layers[0])


@dataclass(frozen=True)
class Network:
    """A network and its input.

    stack: the network as plain layers, None where it is something else.  graph: the float program, as
    ``program.json`` has it, and its tensors.  inputs: features ``[steps, batch, size]`` float32, or ids ``[steps,
    batch]`` int64; of a program with several inputs all of them by name, batch first.  loops: such a program's plain
    loops, by the number of their node.
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
            layers = [[_cell(cell, arrays) for cell in layer] for layer in job["stack"]["layers"]]
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
        loops = {int(k): _cell(cell, arrays) for k, cell in job.get("loops", {}).items()}
        return cls(stack, graph, arrays, inputs, folder, loops)

    @property
    def features(self) -> bool:
        return not isinstance(self.inputs, dict) and self.inputs.ndim == 3

    @property
    def steps(self) -> int:
        if isinstance(self.inputs, dict):
            raise NotImplementedError("this runtime is set up for networks with one input")
        return self.inputs.shape[0]

    @property
    def batch(self) -> int:
        """Sequences a call."""
        return len(next(iter(self.inputs.values()))) if isinstance(self.inputs, dict) else self.inputs.shape[1]

    def batch_first(self, output: np.ndarray) -> np.ndarray:
        """An output in the order of steps and sequences, of whatever shape, as ``[batch, steps, size]``."""
        return output.reshape(self.steps, self.batch, -1).swapaxes(0, 1)

    def plain_layers(self) -> Stack:
        """The stack, for runtimes that are set up for plain layers of features alone."""
        if self.stack is None:
            raise NotImplementedError("this runtime has no operator for the network's layers: no plain LSTM or GRU")
        if self.stack.embedding is not None or self.stack.logits is not None:
            raise NotImplementedError("this runtime is set up for layers of features, not for language models")
        return self.stack


def _cell(described: dict[str, Any], arrays: dict[str, np.ndarray]) -> Cell:
    return Cell(described["kind"], **{part: arrays[name] for part, name in described["arrays"].items()})
