"""Exported C99 on every machine there is: 2,000 steps of each kind of network, no integer differs.

Compiled by gcc and clang with the sanitizers, for aarch64 and armv7 under qemu, and for Cortex-M on its boards, where
nothing but the exported files and newlib's file system runs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irnn
from irnn.export.c99 import export
from irnn.program import Program, Value
from irnn.program.sets import ProgramSet
from irnn.random_programs import Layer, layer_programs
from tests.irnn.export.test_c99 import assert_equal, needed
from tests.support.c99 import MACHINES, Exported
from tests.support.models import language_model, quantized
from tests.support.speech_models import quantized_speech

PIECES, PLACES = (1, 2, 97, 300, 600, 1000), 61
assert sum(PIECES) == 2000


def layer(**fields: Any) -> Callable[[], Program]:
    return lambda: layer_programs(Layer(16, 19, **fields))[0]


NETWORKS: dict[str, Callable[[], Program]] = {
    "language_model": lambda: irnn.convert(quantized(language_model())),
    "lstm": layer(),
    "gru": layer(cell="gru"),
    "mad_norm": layer(norm="mad"),
    "layer_norm": layer(norm="layer"),
    "bidirectional": layer(bidirectional=True, layers=2),
    "w4": layer(weight_bits=4),
    "w3": layer(weight_bits=3),
    "w2": layer(weight_bits=2),
    "ternary": layer(code="ternary"),
    "binary": layer(code="binary"),
    "midrise": layer(code="midrise", weight_bits=2),
    "denseshift": layer(code="denseshift", weight_bits=4),
    "alternating": layer(code="alternating", weight_bits=2, codes=2),
}
SLOW_MACHINES = ("gcc-O3", "clang", "aarch64", "armv7", "cortex-m3", "cortex-m7")


@cache
def recognizer() -> ProgramSet:
    return irnn.convert(quantized_speech())


NETWORKS |= {"encoder": lambda: recognizer()["encoder"], "decoder": lambda: recognizer()["decoder"]}


@cache
def network(name: str) -> tuple[Program, list[tuple[dict[str, np.ndarray], Any]]]:
    """(the program, its pieces of 2,000 steps with what the interpreter makes of each)."""
    program = NETWORKS[name]()
    rng, state, done = np.random.default_rng(0), None, []
    memory = {name: drawn(rng, value, PLACES) for name, value in program.inputs.items() if "time" not in value.axes}
    for steps in PIECES:
        inputs = memory | {name: drawn(rng, v, steps) for name, v in program.inputs.items() if "time" in v.axes}
        inputs |= {name: drawn(rng, v, steps) for name, v in program.inputs.items() if v.counts == "time"}
        expected = program.run_all(inputs, state)
        done.append((inputs, expected))
        state = expected[1]
    return program, done


def drawn(rng: np.random.Generator, value: Value, places: int) -> np.ndarray:
    """Integers over the whole range; lengths near the end of what they count."""
    if value.counts is not None:
        return np.array([places - places // 5], np.int32)
    shape = (1, *(places for _ in value.axes), *value.shape)
    return rng.integers(value.low, value.high, shape, endpoint=True).astype(value.dtype)


def compare(name: str, machine: str, folder: Path) -> None:
    program, pieces = network(name)
    sizes = {"time": max(PIECES), "memory": PLACES}
    (source,) = export(program, folder, name="net", **needed(program, sizes))
    compiled = Exported(program, source, folder, MACHINES[machine], sizes)
    found = compiled.run([(inputs, None) for inputs, _ in pieces])
    for result, (_, expected) in zip(found, pieces, strict=True):
        assert_equal(program, result, expected)


@pytest.mark.parametrize("name", ["language_model", "gru"])
def test_two_thousand_steps_on_a_microcontroller(name: str, tmp_path: Path) -> None:
    compare(name, "cortex-m4", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("machine", SLOW_MACHINES)
@pytest.mark.parametrize("name", NETWORKS)
def test_two_thousand_steps_everywhere(name: str, machine: str, tmp_path: Path) -> None:
    compare(name, machine, tmp_path)
