"""Writes a float program so that ``peer_worker`` can build other runtimes' models from it.

Embedding -> plain LSTM or GRU layers -> logits are recognized, and the plain loops of any other program, so that those
runtimes use their own operators.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy_tvm.peers.cells import Cell, plain_cell
from irnn.errors import IrnnError
from irnn.program import Node, Program, Scan

OUTSIDE_OF_LOOPS = {"embedding", "linear", "concat"}
PARTS = ("w_x", "w_h", "b_x", "b_h")


@dataclass(frozen=True)
class RecurrentStack:
    """``layers[k][direction]``, all of one kind; names of the tensors ``embedding`` and ``logits`` (weight, bias)
    where there are."""

    layers: list[list[Cell]]
    embedding: str | None
    logits: tuple[str, str] | None


def save_job(program: Program, inputs: np.ndarray | dict[str, np.ndarray], folder: Path) -> None:
    """Write ``program/``, ``job.json`` and ``arrays.npz``; ``inputs`` as ``peer_network.Network`` describes them."""
    if program.kind != "float":
        raise IrnnError(f"the runtimes compared with take a float program, this one is {program.kind!r}")
    arrays = {name: tensor.data for name, tensor in program.tensors.items()}
    if isinstance(inputs, dict):
        _save_parts(program, inputs, arrays, folder)
        return
    arrays["inputs"] = inputs
    stack = recognize(program)
    described = None
    if stack is not None:
        layers = [
            [_described(cell, f"{k}.{d}", arrays) for d, cell in enumerate(layer)]
            for k, layer in enumerate(stack.layers)
        ]
        described = {"layers": layers, "embedding": stack.embedding, "logits": stack.logits}
    _write(program, {"stack": described}, arrays, folder)


def _save_parts(program: Program, inputs: dict[str, np.ndarray], arrays: dict[str, np.ndarray], folder: Path) -> None:
    """A program with several inputs: those, and by the number of a loop its cell where it is a plain one."""
    cells = {k: plain_cell(program, item) for k, item in enumerate(program.nodes) if isinstance(item, Scan)}
    loops = {k: _described(cell, str(k), arrays) for k, cell in cells.items() if cell is not None}
    arrays |= {f"input.{name}": array for name, array in inputs.items()}
    _write(program, {"stack": None, "inputs": list(inputs), "loops": loops}, arrays, folder)


def _described(cell: Cell, name: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """A cell as ``job.json`` has it; its weights go into ``arrays``."""
    names = {part: f"{name}.{part}" for part in PARTS}
    arrays |= {names[part]: getattr(cell, part) for part in PARTS}
    return {"kind": cell.kind, "arrays": names}


def _write(program: Program, job: dict[str, Any], arrays: dict[str, np.ndarray], folder: Path) -> None:
    program.save(folder / "program")
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]  # to NumPy's stub one may be `allow_pickle`


def recognize(program: Program) -> RecurrentStack | None:
    """The plain layers of one kind that a float program consists of; None where it is anything else."""
    producers = {node.output: node for node in program.nodes if isinstance(node, Node)}
    if not {node.op for node in producers.values()} <= OUTSIDE_OF_LOOPS:
        return None
    layers: list[list[Cell]] = []
    for scan in (item for item in program.nodes if isinstance(item, Scan)):
        cell = plain_cell(program, scan)
        if cell is None:
            return None
        if scan.reverse:
            layers[-1].append(cell)
        else:
            layers.append([cell])
    if len({cell.kind for layer in layers for cell in layer}) != 1:
        return None
    embedding = next((node.tensors["table"] for node in producers.values() if node.op == "embedding"), None)
    last = producers.get(program.outputs[0])
    logits = (last.tensors["weight"], last.tensors["bias"]) if last is not None and last.op == "linear" else None
    return RecurrentStack(layers, embedding, logits)
