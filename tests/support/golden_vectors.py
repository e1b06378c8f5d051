"""Golden vectors: whole small programs with inputs, states and what the oracle says of them, committed as JSON.

They pin the arithmetic and the program's meaning across versions, and an executor in any language can be tested with
them.  A file is complete: the program's nodes and constants stand in it, so it depends on no random generator.

``python -m tests.support.golden_vectors`` writes the files anew, from the oracle alone.  A change of the committed
vectors is a change of the arithmetic contract and says so in its commit.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from irnn.program import Node, Program, Scan, State, Tensor, Value
from tests.support.gru_oracle import read_stack
from tests.support.places import GOLDEN
from tests.support.random_programs import Spec, random_inputs, random_program, random_state

SPECS = {
    "lstm": Spec(hidden=5, input_size=4, vocabulary=7, logits=6, pieces=6, seed=11),
    "lstm_2_layers_features": Spec(hidden=3, input_size=4, vocabulary=None, logits=None, layers=2, pieces=6, seed=12),
    "lstm_extreme": Spec(
        hidden=5, input_size=4, vocabulary=7, logits=6, pieces=6, extreme=True, wide_tables=True, seed=13
    ),
    "lstm_2_bit": Spec(hidden=4, input_size=4, vocabulary=7, logits=6, pieces=6, weight_bits=2, seed=14),
    "lstm_mad_norm": Spec(hidden=6, input_size=3, vocabulary=7, logits=5, pieces=6, norm="mad", seed=15),
    "lstm_layer_norm": Spec(hidden=6, input_size=3, vocabulary=7, logits=5, pieces=6, norm="layer", seed=16),
    "gru": Spec(cell="gru", hidden=5, input_size=4, vocabulary=7, logits=6, pieces=6, seed=21),
    "gru_2_layers_features": Spec(
        cell="gru", hidden=3, input_size=4, vocabulary=None, logits=None, layers=2, pieces=6, seed=22
    ),
    "gru_extreme_mad_norm": Spec(
        cell="gru",
        hidden=5,
        input_size=4,
        vocabulary=7,
        logits=6,
        pieces=6,
        extreme=True,
        wide_tables=True,
        norm="mad",
        seed=23,
    ),
    "lstm_bidirectional": Spec(hidden=3, input_size=3, vocabulary=7, logits=5, pieces=6, bidirectional=True, seed=17),
}
BATCH, STEPS = 2, 5


def to_json(program: Program) -> dict[str, Any]:
    """The program as JSON values: constants as nested lists with their dtypes, scans as nodes with a body."""
    return {
        "inputs": {name: asdict(value) for name, value in program.inputs.items()},
        "outputs": program.outputs,
        "states": {name: asdict(state) for name, state in program.states.items()},
        "values": {name: asdict(value) for name, value in program.values.items()},
        "nodes": [asdict(item) for item in program.nodes],
        "tensors": {
            name: {"dtype": str(tensor.data.dtype), "bits": tensor.bits, "data": tensor.data.tolist()}
            for name, tensor in program.tensors.items()
        },
    }


def from_json(record: dict[str, Any]) -> Program:
    """The program of :func:`to_json`."""
    return Program(
        kind="integer",
        inputs={name: _value(value) for name, value in record["inputs"].items()},
        outputs=tuple(record["outputs"]),
        states={name: State(**state | {"shape": tuple(state["shape"])}) for name, state in record["states"].items()},
        values={name: _value(value) for name, value in record["values"].items()},
        nodes=tuple(_item(item) for item in record["nodes"]),
        tensors={n: Tensor(np.array(t["data"], t["dtype"]), t["bits"]) for n, t in record["tensors"].items()},
    )


def _value(record: dict[str, Any]) -> Value:
    return Value(**record | {key: tuple(record[key]) for key in ("shape", "axes") if key in record})


def _item(record: dict[str, Any]) -> Node | Scan:
    if "body" not in record:
        return Node(**record | {"inputs": tuple(record["inputs"])})
    states = {name: tuple(pair) for name, pair in record["states"].items()}
    body = tuple(_item(node) for node in record["body"])
    return Scan(**record | {"states": states, "body": body, "captures": tuple(record.get("captures", ()))})


def vectors(program: Program, inputs: np.ndarray, state: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """What the oracle computes: from the initial state, and from ``state``."""
    network = read_stack(program)
    records = []
    for start in (None, {name: array.tolist() for name, array in state.items()}):
        output, last = network.run_batch(inputs.tolist(), start)
        records.append({"inputs": inputs.tolist(), "state": start, "output": output, "last_state": last})
    return records


def write(folder: Path = GOLDEN) -> list[Path]:
    """Write every file; returns their paths."""
    folder.mkdir(exist_ok=True)
    paths = []
    for name, spec in SPECS.items():
        program = random_program(spec)
        records = vectors(program, random_inputs(program, BATCH, STEPS), random_state(program, BATCH))
        path = folder / f"{name}.json"
        text = json.dumps({"program": to_json(program), "vectors": records}, separators=(",", ":"))
        # One line a constant, node and vector: a change shows where it is.
        for mark in ('"inputs":', '"nodes":', '"tensors":', '"vectors":', '{"op":', '{"dtype":', '"last_state":'):
            text = text.replace(mark, f"\n{mark}")
        path.write_text(text.lstrip() + "\n", encoding="utf-8")
        paths.append(path)
    return paths


if __name__ == "__main__":
    for path in write():
        print(path)
