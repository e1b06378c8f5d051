"""Matrix tiles: the integers of products with many vectors, and of those whose unit the system refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

import tvm

import deploy_tvm
from deploy_tvm import targets
from deploy_tvm.bench import tile_peak
from deploy_tvm.codegen.kernels import LinearKernel, x86_amx
from irnn.program import Tensor
from tests.support.compiled import multiply
from tests.support.cpus import runnable
from tests.support.random_programs import Spec, random_inputs, random_program

# bits of a weight's encoding -> its least and its largest one.
ENCODINGS = {"int8": (-128, 127), "int4": (-8, 7), "int2": (-2, 1), "ternary": (-1, 1), "binary": (-1, 1),
             "codebook": (-127, 127)}  # fmt: skip


@pytest.fixture
def amx() -> targets.Target:
    return runnable("amx")


def taken(target: targets.Target, encoding: str, weight: np.ndarray) -> tuple[LinearKernel, Tensor]:
    tensor = Tensor(weight.astype(np.int16 if encoding == "codebook" else np.int8), 8, encoding)
    return target.kernels().linear(tensor), tensor


def differing(target: targets.Target, encoding: str, rows: int, length: int, vectors: int) -> int:
    """Products that are not NumPy's, of weights and activations that are now and then at their ends."""
    (low, high), rng = ENCODINGS[encoding], np.random.default_rng(rows * length)
    choice = np.array([low, high] if encoding == "binary" else np.unique(np.linspace(low, high, 16).astype(int)))
    weight = choice[rng.integers(0, len(choice), (rows, length))]
    weight[0], weight[-1] = low, high
    x = rng.integers(-128, 128, (vectors, length)).astype(np.int8)
    x[0], x[-1] = -128, 127
    bias = rng.integers(-(1 << 30), 1 << 30, rows).astype(np.int32)
    kernel, tensor = taken(target, encoding, weight)
    assert kernel.tiles is not None
    expected = x.astype(np.int32) @ weight.T.astype(np.int32) + bias
    *_, tiled = multiply(target, kernel, x, tensor.data, bias)
    return int((tiled != expected).sum())


# Columns that fill whole tiles, that leave a few groups of four, and fewer than a tile has.
@pytest.mark.parametrize(
    ("rows", "length", "vectors"),
    [(64, 64, 16), (130, 650, 35), (33, 256, 18), (200, 20, 17), (70, 90, 5), (64, 128, 9)],
)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_products_with_many_vectors(amx: targets.Target, encoding: str, rows: int, length: int, vectors: int) -> None:
    assert differing(amx, encoding, rows, length, vectors) == 0


def test_a_tile_that_leaves_out_the_last_columns_is_noticed(
    amx: targets.Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(x86_amx, "_shapes", lambda rest, right=x86_amx._shapes: right(rest - 1))
    assert differing(amx, "int8", 130, 650, 35) > 0


def test_sums_of_two_looked_up_bytes_go_without_tiles(amx: targets.Target) -> None:
    weight = np.array([[-128, 128, 5, 77]] * 16)
    kernel, tensor = taken(amx, "codebook", weight)
    assert kernel.tiles is None  # the floor asks the kernel, too
    x = np.arange(64, dtype=np.int8).reshape(16, 4)
    for found in multiply(amx, kernel, x, tensor.data, np.zeros(16, np.int32)):
        assert np.array_equal(found, x.astype(np.int32) @ weight.T)


# No feature of the processor has the number 63: the request is refused.
REFUSED = (158, 0x1023, 63)


def peak(target: targets.Target) -> int:
    sink = tvm.runtime.tensor(np.zeros((16, 16), np.int32))
    tile_peak.module(target)["peak"](sink)
    (value,) = set(sink.numpy().reshape(-1).tolist())
    return value


def test_the_unit_is_held_where_the_system_grants_it(amx: targets.Target, monkeypatch: pytest.MonkeyPatch) -> None:
    assert peak(amx) == 64 * tile_peak.ROUNDS
    monkeypatch.setattr(x86_amx, "REQUEST", REFUSED)
    assert peak(amx) == 0


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize(
    "spec",
    [
        Spec(hidden=70, weight_bits=8),
        Spec(hidden=64, weight_bits=4, layers=2),
        Spec(hidden=33, weight_bits=2, cell="gru"),
    ],
    ids=str,
)
def test_programs_with_long_sequences_and_large_batches(
    amx: targets.Target, spec: Spec, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if refused:
        monkeypatch.setattr(x86_amx, "REQUEST", REFUSED)
    program = random_program(spec)
    runner = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact", amx))
    for batch, steps in ((1, 16), (1, 70), (17, 1), (35, 3), (3, 5), (5, 1), (9, 2)):
        inputs = random_inputs(program, batch, steps)
        output, state = runner.run(inputs)
        expected, after = program.run(inputs)
        assert np.array_equal(output, expected), (batch, steps)
        assert all(np.array_equal(state[name], after[name]) for name in after)
