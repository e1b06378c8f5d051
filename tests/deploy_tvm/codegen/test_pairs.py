"""AVX2's two kernels for 8-bit weights: which one a matrix takes, and that both are exact at the ends."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

from deploy_tvm.codegen.kernels import LinearKernel, x86_pairs
from deploy_tvm.codegen.kernels.x86_avx2 import Avx2Kernel8
from deploy_tvm.codegen.kernels.x86_pairs import Avx2Pairs
from deploy_tvm.codegen.kernels.x86_words import X86WordKernel
from irnn.program import Tensor
from tests.deploy_tvm.codegen.test_kernels import with_ends
from tests.support.compiled import multiply
from tests.support.cpus import CPUS, runnable

BYTES = np.arange(-128, 128)
INT16 = np.iinfo(np.int16)


def taken(weight: np.ndarray, operand: str = "int8") -> LinearKernel:
    return CPUS["avx2"].kernels().linear(Tensor(weight.astype(np.int8), 8), operand)


def compared(kernel: LinearKernel, weight: np.ndarray) -> None:
    """Every activation at one end, and random ones, against NumPy."""
    target, rng = runnable("avx2"), np.random.default_rng(0)
    bias = rng.integers(-(1 << 30), 1 << 30, weight.shape[0]).astype(np.int32)
    x = with_ends(rng, (-128, 127), weight.shape[1], 0)
    for result in multiply(target, kernel, x, weight.astype(np.int8), bias):
        assert np.array_equal(result, x.astype(np.int64) @ weight.T + bias)


def test_no_pair_that_is_left_whole_saturates_and_no_half_of_one() -> None:
    a, b = (grid.reshape(-1) for grid in np.meshgrid(BYTES, BYTES))
    whole = np.stack([a, b, np.zeros_like(a), np.zeros_like(a)], -1)[:, None, None].astype(np.int8)
    halved = Avx2Pairs.halved(whole)[:, 0]
    x = np.array([0, 255])
    reach = [x[p] * a[~halved] + x[q] * b[~halved] for p in (0, 1) for q in (0, 1)]
    assert INT16.min <= np.min(reach)
    assert np.max(reach) <= INT16.max
    halves = np.stack([BYTES >> 1, BYTES - (BYTES >> 1)])
    assert np.array_equal(halves.sum(0), BYTES)
    assert INT16.min <= 255 * 2 * halves.min()
    assert 255 * 2 * halves.max() <= INT16.max
    # One more, and a pair of 64 and 65 would saturate.
    assert INT16.max < 255 * (x86_pairs.MOST + 1)


@pytest.mark.parametrize("columns", [1, 2, 15, 16, 17, 300])
def test_pairs_at_the_bound_and_beyond(columns: int) -> None:
    """Neighbours that add up to 128, 129 and 254, of both signs and of different ones; -128 among them."""
    pairs = [(64, 64), (64, 65), (127, 127), (-64, -64), (-64, -65), (-128, 0), (-128, -128), (127, -128), (1, 127)]
    weight = np.array([np.resize(pair, columns) for pair in pairs * 5])
    compared(Avx2Pairs(), weight)


def test_only_the_columns_beyond_the_bound_are_read_twice() -> None:
    weight = np.full((70, 40), 60)
    weight[5, 9], weight[69, 39] = 100, -128
    packed = Avx2Pairs().pack(weight.astype(np.int8), np.zeros(70, np.int32))
    assert packed["ends"].tolist() == [0, 1, 1, 1]
    assert packed["columns"].tolist() == [2, 0]
    compared(Avx2Pairs(), weight)


@pytest.mark.parametrize("kernel", [Avx2Pairs(), Avx2Kernel8()], ids=["pairs", "signs"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 3), (64, 64), (130, 33), (33, 650)])
def test_both_kernels_equal_numpy_on_full_range_weights(kernel: LinearKernel, rows: int, columns: int) -> None:
    weight = np.random.default_rng(rows * columns).integers(-127, 128, (rows, columns))
    weight[0] = 127
    weight[-1] = -127
    compared(kernel, weight)


def test_a_matrix_takes_the_kernel_that_reads_it_once() -> None:
    rng = np.random.default_rng(0)
    trained = np.clip(np.rint(rng.normal(0, 20, (256, 128))), -128, 127)
    trained[3, 7] = -128
    full_range = rng.integers(-127, 128, (256, 128))
    assert type(taken(trained)) is Avx2Pairs
    assert type(taken(rng.integers(-63, 64, (256, 128)))) is Avx2Pairs
    assert type(taken(full_range)) is Avx2Kernel8
    assert type(taken(trained, "int16")) is type(taken(full_range, "int16")) is X86WordKernel
