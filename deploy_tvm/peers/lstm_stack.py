"""Writes a float program so that ``peer_worker`` can build other runtimes' models from it.

Embedding -> plain LSTM layers -> logits are recognized, and the plain LSTM loops of any other program, so that those
runtimes use their own LSTM.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irnn.errors import IrnnError
from irnn.program import Node, Program, Scan

BODY = Counter({"linear": 1, "add": 2, "slice": 4, "sigmoid": 3, "tanh": 2, "multiply": 3})


@dataclass(frozen=True)
class Cell:
    """One direction of one layer; rows of W_x ``[4 hidden, input]``, W_h, bias in the gate order i, f, g, o."""

    w_x: np.ndarray
    w_h: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class LstmStack:
    """``layers[k][direction]``; names of the tensors ``embedding`` and ``logits`` (weight, bias) where there are."""

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
        cells = [
            [[f"{k}.{d}.{part}" for part in ("w_x", "w_h", "bias")] for d in range(len(layer))]
            for k, layer in enumerate(stack.layers)
        ]
        for k, layer in enumerate(stack.layers):
            for d, cell in enumerate(layer):
                arrays |= dict(zip(cells[k][d], (cell.w_x, cell.w_h, cell.bias), strict=True))
        described = {"cells": cells, "embedding": stack.embedding, "logits": stack.logits}
    _write(program, {"stack": described}, arrays, folder)


def _save_parts(program: Program, inputs: dict[str, np.ndarray], arrays: dict[str, np.ndarray], folder: Path) -> None:
    """A program with several inputs: those, and by the number of a loop its cell where it is a plain LSTM."""
    loops = {}
    for k, item in enumerate(program.nodes):
        cell = _cell(program, item) if isinstance(item, Scan) else None
        if cell is not None:
            loops[k] = [f"{k}.{part}" for part in ("w_x", "w_h", "bias")]
            arrays |= dict(zip(loops[k], (cell.w_x, cell.w_h, cell.bias), strict=True))
    arrays |= {f"input.{name}": array for name, array in inputs.items()}
    _write(program, {"stack": None, "inputs": list(inputs), "loops": loops}, arrays, folder)


def _write(program: Program, job: dict[str, Any], arrays: dict[str, np.ndarray], folder: Path) -> None:
    program.save(folder / "program")
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    np.savez(folder / "arrays.npz", **arrays)


def recognize(program: Program) -> LstmStack | None:
    """The plain LSTM layers that a float program consists of; None where it is anything else."""
    producers = {node.output: node for node in program.nodes if isinstance(node, Node)}
    layers: list[list[Cell]] = []
    for scan in (item for item in program.nodes if isinstance(item, Scan)):
        cell = _cell(program, scan)
        if cell is None:
            return None
        if scan.reverse:
            layers[-1].append(cell)
        else:
            layers.append([cell])
    if not layers:
        return None
    embedding = next((node.tensors["table"] for node in producers.values() if node.op == "embedding"), None)
    last = producers.get(program.outputs[0])
    logits = (last.tensors["weight"], last.tensors["bias"]) if last is not None and last.op == "linear" else None
    return LstmStack(layers, embedding, logits)


def _cell(program: Program, scan: Scan) -> Cell | None:
    """The plain LSTM that a loop and the product before it are; None where they are anything else."""
    (source,) = scan.sequences.values()
    product = next((node for node in program.nodes if isinstance(node, Node) and node.output == source), None)
    if product is None or product.op != "linear" or Counter(node.op for node in scan.body) != BODY:
        return None
    recurrent = next(node for node in scan.body if node.op == "linear")
    w_x, w_h, b_x, b_h = (
        np.concatenate([np.split(program.tensors[node.tensors[role]].data, 4)[k] for k in _gate_order(scan)])
        for role in ("weight", "bias")
        for node in (product, recurrent)
    )
    return Cell(w_x, w_h, b_x + b_h)


def _gate_order(scan: Scan) -> list[int]:
    """Where the gates i, f, g, o stand among the four quarters of the rows, by what they are multiplied with."""
    made = {node.output: node for node in scan.body}
    (_, (cell_before, cell_after)) = next(
        item for item in scan.states.items() if made[item[1][1]].op == "add"
    )  # c is the sum of two products, h is one product

    def quarter(gate: str) -> int:
        part = made[made[gate].inputs[0]]
        return part.attributes["start"] // (part.attributes["stop"] - part.attributes["start"])

    products = [made[name] for name in made[cell_after].inputs]
    keep = next(p for p in products if cell_before in p.inputs)
    new = next(p for p in products if cell_before not in p.inputs)
    forget = next(name for name in keep.inputs if name != cell_before)
    write = next(name for name in new.inputs if made[name].op == "sigmoid")
    candidate = next(name for name in new.inputs if made[name].op == "tanh")
    gates = {quarter(g) for g in (forget, write, candidate)}
    (output,) = {0, 1, 2, 3} - gates
    return [quarter(write), quarter(forget), quarter(candidate), output]
