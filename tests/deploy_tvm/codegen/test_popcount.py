"""Products of binary weights with vectors of few magnitudes, by counting bits: NumPy's integers."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

from deploy_tvm import targets
from deploy_tvm.codegen.kernels import LinearKernel, choose
from deploy_tvm.codegen.kernels.popcount import PopcountKernel
from irnn.program import Tensor
from tests.deploy_tvm.codegen.test_arm_kernels import ARM
from tests.support.boards import need_bare
from tests.support.compiled import multiply

LENGTHS = (1, 33, 650, 2048)


def few_magnitudes(rng: np.random.Generator, codes: int, vectors: int, length: int, most: int = 4080) -> np.ndarray:
    """int16 [vectors, length] of at most ``2**(codes-1)`` magnitudes a vector."""
    magnitudes = rng.integers(0, most + 1, (vectors, 1 << codes - 1))
    chosen = np.take_along_axis(magnitudes, rng.integers(0, 1 << codes - 1, (vectors, length)), 1)
    return (chosen * rng.choice([-1, 1], (vectors, length))).astype(np.int16)


def vectors_of(rng: np.random.Generator, codes: int, vectors: int, length: int) -> list[np.ndarray]:
    """Random ones, those of fewer magnitudes than there may be, and the ends of int16."""
    found = [few_magnitudes(rng, codes, vectors, length, most) for most in (4080, 4080, 3, 1, 32767)]
    found += [np.full((vectors, length), value, np.int16) for value in (0, -1, 4080, -4080, -32767)]
    outlier = np.full((vectors, length), 7 if codes > 1 else -4080, np.int16)
    outlier[:, length // 2] = -4080
    return [*found, outlier]


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize("codes", [1, 2, 3])
def test_products_by_popcount(cpu: targets.Target, codes: int, bytewise: bool) -> None:
    kernel = PopcountKernel(cpu.kernels().int8.lanes, codes, units=1, tile_vectors=3, bytewise=bytewise)
    products_are_numpys(cpu, kernel, codes, LENGTHS)


def products_are_numpys(target: targets.Target, kernel: LinearKernel, codes: int, lengths: tuple[int, ...]) -> None:
    """Of vectors of all kinds at once."""
    for length in lengths:
        rng = np.random.default_rng(length)
        x = np.concatenate(vectors_of(rng, codes, 1, length))
        weight = rng.choice([-1, 1], (37, length)).astype(np.int8)
        weight[:2] = np.array([[-1], [1]])
        bias = rng.integers(-(1 << 20), 1 << 20, 37).astype(np.int32)
        expected = x.astype(np.int64) @ weight.T.astype(np.int64) + bias
        for result in multiply(target, kernel, x, weight, bias):
            assert np.array_equal(result, expected)


def test_codes_are_counted_on_every_cpu() -> None:
    has = frozenset({"avx512vnni", "avx512bw", "avx512vl"})
    binary = Tensor(np.array([[1, -1]], np.int8), 8, "binary")
    ternary = Tensor(np.array([[1, 0]], np.int8), 8, "ternary")
    features = (has, frozenset({"avx2"}), frozenset[str](), frozenset({"neon"}), frozenset({"neon", "dotprod"}))
    for kernels in map(choose, features):
        for codes in (1, 2, 3):
            kernel = kernels.linear(binary, "int16", codes)
            assert isinstance(kernel, PopcountKernel)
            assert kernel.bytewise
        for weight, codes in ((binary, 4), (binary, None), (ternary, 2)):
            assert not isinstance(kernels.linear(weight, "int16", codes), PopcountKernel)
    counted = choose(has | {"avx512vpopcntdq"}).linear(binary, "int16", 2)
    assert isinstance(counted, PopcountKernel)
    assert not counted.bytewise


@pytest.mark.parametrize("name", ARM)
@pytest.mark.parametrize("codes", [1, 2, 3])
def test_boards_count_the_same(name: str, codes: int) -> None:
    need_bare(ARM[name])
    products_are_numpys(ARM[name], ARM[name].kernels().popcount(codes), codes, (33, 1000))
