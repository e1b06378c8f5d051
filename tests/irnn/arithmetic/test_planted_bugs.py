"""Are the tests awake?  One bug at a time is planted in a copy of the arithmetic, and the oracle must notice each.

A mutation replaces one string of a module's source that occurs exactly once, so a change of the source that moves it
fails here and the list is mended with it.  "Noticed" means that some small fixed program gives other integers than the
oracle, or does not run (a division by zero, an index out of range).
"""

from __future__ import annotations

import inspect
import math
import pkgutil
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irnn.program import Program, ops
from irnn.program.ops import Operation
from tests.irnn.program.test_interpreter import with_tensors
from tests.support.oracle import mad_normalized, read_network, standardized
from tests.support.random_programs import Spec, random_inputs, random_program, random_state

OPERATIONS = {
    f"ops.{file.name}": f"{ops.__name__}.{file.name}"
    for file in pkgutil.iter_modules(ops.__path__)
    if file.name not in ("base", "constants")
}
MODULES = {
    "fixed_point": "irnn.arithmetic.fixed_point",
    "numpy_ops": "irnn.arithmetic.numpy_ops",
    "interpreter": "irnn.program.interpreter",
    **OPERATIONS,
}


@dataclass(frozen=True)
class Mutation:
    """``old`` becomes ``new`` in the source of one of ``MODULES``."""

    module: str
    what: str
    old: str
    new: str


def arithmetic(what: str, old: str, new: str) -> Mutation:
    return Mutation("fixed_point", what, old, new)


def namespace(what: str, old: str, new: str) -> Mutation:
    return Mutation("numpy_ops", what, old, new)


def walk(what: str, old: str, new: str) -> Mutation:
    return Mutation("interpreter", what, old, new)


def operation(file: str, what: str, old: str, new: str) -> Mutation:
    """In the evaluation of an operation of a program."""
    return Mutation(f"ops.{file}", what, old, new)


# Source strings that several mutations replace.
ROUND = "return (product_i64 + half_i64) >> shift_i64"
PRODUCT = 'product_i64 = ops.to(x, "int64") * ops.to(multiplier, "int64")'
ZERO_POINT = 'total_i64 + ops.to(zero_point, "int64")'
PIECE = 'piece = ops.count_le(knots, x) - ops.to(1, "int32")'
SLOPED = 'distance_i64 * ops.to(ops.take(slopes, piece), "int64")'
CLAMPED_T = 'ops.to(ops.clip(t_i64, -32768, 32767), "int32")'
MAD_RECIPROCAL = 'ops.floor_div(ops.to(length << RECIPROCAL_BITS, "int64"), ops.clip(d_i64, 1, 1 << 62))'
SPREAD = "n_i64 * ops.row_sum(x_i64 * x_i64) - sum_i64 * sum_i64"
MATMUL = 'np.einsum("...k,nk->...n", x.astype(np.int32), weight)'

MUTATIONS = [
    # rescale
    arithmetic("truncation instead of rounding", ROUND, "return product_i64 >> shift_i64"),
    arithmetic(
        "half to even",
        ROUND,
        "y = (product_i64 + half_i64) >> shift_i64; tie = (product_i64 & (2 * half_i64 - 1)) == half_i64;"
        " return y - (tie & (y % 2 != 0))",
    ),
    arithmetic("half away from zero", ROUND, "return (product_i64 + half_i64 - (product_i64 < 0)) >> shift_i64"),
    arithmetic("half down", ROUND, "return (product_i64 + half_i64 - 1) >> shift_i64"),
    arithmetic(
        "rounding constant twice too large", 'ops.to(1, "int64") << (shift_i64 - ops.to(1, "int64"))', "1 << shift_i64"
    ),
    arithmetic(
        "rounding towards zero", ROUND, "return ((abs(product_i64) + half_i64) >> shift_i64) * np.sign(product_i64)"
    ),
    arithmetic(
        "rounded twice: the high half of a doubled product first",
        ROUND,
        "high = (product_i64 + (1 << 30)) >> 31; rest = np.maximum(shift_i64 - 31, 0);"
        " return (high + ((1 << rest) >> 1)) >> rest",
    ),
    arithmetic(
        "32-bit product", PRODUCT, 'product_i64 = ops.to(ops.to(x, "int32") * ops.to(multiplier, "int32"), "int64")'
    ),
    arithmetic("float product", PRODUCT, 'product_i64 = ops.to(np.float32(x) * np.float32(multiplier), "int64")'),
    arithmetic(
        "multiplier of 24 bits", PRODUCT, 'product_i64 = ops.to(x, "int64") * (ops.to(multiplier, "int64") >> 7 << 7)'
    ),
    arithmetic("shift one too far", "+ half_i64) >> shift_i64", "+ half_i64) >> (shift_i64 + 1)"),
    # saturate, requantize, add, multiply
    arithmetic(
        "saturates one too low",
        "return ops.to(ops.clip(x, low, high), dtype)",
        "return ops.to(ops.clip(x, low, high - 1), dtype)",
    ),
    arithmetic(
        "saturates one too high",
        "return ops.to(ops.clip(x, low, high), dtype)",
        "return ops.to(ops.clip(x, low + 1, high), dtype)",
    ),
    arithmetic(
        "wraps instead of saturating", "return ops.to(ops.clip(x, low, high), dtype)", "return ops.to(x, dtype)"
    ),
    arithmetic("zero point not added", ZERO_POINT, "total_i64"),
    arithmetic("zero point taken off", ZERO_POINT, 'total_i64 - ops.to(zero_point, "int64")'),
    arithmetic("second term left out", "for term in terms[1:]:", "for term in terms[2:]:"),
    arithmetic(
        "each term saturates before the sum",
        "total_i64 = total_i64 + rescale(ops, *term)",
        "total_i64 = ops.clip(total_i64, low, high) + ops.clip(rescale(ops, *term), low, high)",
    ),
    arithmetic("16-bit sum of the gates", 'ops.to(a, "int32") + ops.to(b, "int32")', "a + b"),
    arithmetic(
        "zero point of a gate not taken off", 'ops.to(a, "int32") - ops.to(zero_point_a, "int32")', 'ops.to(a, "int32")'
    ),
    arithmetic(
        "8-bit gate minus its zero point wraps",
        'ops.to(a, "int32") - ops.to(zero_point_a, "int32")',
        "(a - np.int8(zero_point_a)).astype(np.int32)",
    ),
    arithmetic(
        "16-bit product of gate and cell",
        "return a_i32 * b_i32",
        "return (a_i32 * b_i32).astype(np.int16).astype(np.int32)",
    ),
    # pwl
    arithmetic("piece one too low", PIECE, "piece = ops.clip(ops.count_le(knots, x) - 2, 0, 99)"),
    arithmetic("piece one too high", PIECE, "piece = ops.clip(ops.count_le(knots, x), 0, len(knots) - 1)"),
    arithmetic("piece index off by one, unguarded", PIECE, "piece = ops.count_le(knots, x)"),
    arithmetic("distance from 0, not from the knot", ' - ops.to(ops.take(knots, piece), "int64")', ""),
    arithmetic(
        "16-bit distance from the knot",
        f"y_i64 = {SLOPED}",
        f"distance_i64 = distance_i64.astype(np.int16).astype(np.int64); y_i64 = {SLOPED}",
    ),
    arithmetic("32-bit piecewise-linear product", SLOPED, f"({SLOPED}).astype(np.int32).astype(np.int64)"),
    arithmetic("no rounding of a piecewise-linear value", "(y_i64 + half_i64) >>", "y_i64 >>"),
    arithmetic(
        "a whole step added before the shift", "half_i64 = ops.to(1 << (shift - 1)", "half_i64 = ops.to(1 << shift"
    ),
    arithmetic(
        "whole-step intercepts",
        'ops.to(ops.take(intercepts, piece), "int64")',
        "(ops.take(intercepts, piece).astype(np.int64) >> shift << shift)",
    ),
    arithmetic("intercept of the first piece", "ops.take(intercepts, piece)", "ops.take(intercepts, 0 * piece)"),
    # norms
    arithmetic("normalized value wraps", CLAMPED_T, "t_i64.astype(np.int16).astype(np.int32)"),
    arithmetic("normalized value not clamped", CLAMPED_T, 'ops.to(t_i64, "int32")'),
    arithmetic("normalized value saturates one too low", CLAMPED_T, 'ops.to(ops.clip(t_i64, -32767, 32766), "int32")'),
    arithmetic("beta left out", ' + ops.to(beta, "int32")', ""),
    arithmetic("gamma left out", 'ops.to(gamma, "int32") * t_i32', "t_i32"),
    arithmetic("reciprocal of MadNorm one bit short", "\nRECIPROCAL_BITS = 48\n", "\nRECIPROCAL_BITS = 47\n"),
    arithmetic("reciprocal of MadNorm halved", MAD_RECIPROCAL, f"({MAD_RECIPROCAL} >> 1)"),
    arithmetic("reciprocal of MadNorm one too large", MAD_RECIPROCAL, f"({MAD_RECIPROCAL} + 1)"),
    arithmetic(
        "reciprocal of MadNorm in single precision", MAD_RECIPROCAL, f"np.float32({MAD_RECIPROCAL}).astype(np.int64)"
    ),
    arithmetic("MadNorm divides by zero", "ops.clip(d_i64, 1, 1 << 62)", "d_i64"),
    arithmetic("mean not taken off in MadNorm", "u_i64 = x_i64 * n_i64 - ops.row_sum(x_i64)", "u_i64 = x_i64 * n_i64"),
    arithmetic("signed deviations summed", "ops.row_sum(ops.abs(u_i64))", "ops.row_sum(u_i64)"),
    arithmetic(
        "mean of integers rounded down first",
        "u_i64 = x_i64 * n_i64 - ops.row_sum(x_i64)",
        "u_i64 = (x_i64 - ops.row_sum(x_i64) // n_i64) * n_i64",
    ),
    arithmetic("one fractional bit of t less", "NORM_FRACTION_BITS = 10\n", "NORM_FRACTION_BITS = 9\n"),
    arithmetic("one fractional bit of the root less", "ROOT_FRACTION_BITS = 5\n", "ROOT_FRACTION_BITS = 4\n"),
    arithmetic("reciprocal of the root one bit short", "ROOT_RECIPROCAL_BITS = 59\n", "ROOT_RECIPROCAL_BITS = 58\n"),
    arithmetic("LayerNorm divides by zero", "ops.clip(root_i64, 1, 1 << 62)", "root_i64"),
    arithmetic("mean square instead of variance", SPREAD, "n_i64 * ops.row_sum(x_i64 * x_i64)"),
    arithmetic(
        "32-bit sum of squares", SPREAD, "n_i64 * ops.row_sum(x_i64 * x_i64).astype(np.int32) - sum_i64 * sum_i64"
    ),
    # the namespace
    namespace(
        "a knot belongs to the piece before it",
        'np.searchsorted(table, x, side="right")',
        'np.searchsorted(table, x, side="left")',
    ),
    namespace(
        "16-bit accumulator", MATMUL, "np.matmul(x.astype(np.int16), weight.T.astype(np.int16)).astype(np.int32)"
    ),
    namespace("8-bit accumulator", MATMUL, "np.matmul(x, weight.T.astype(np.int8)).astype(np.int32)"),
    namespace(
        "saturating pairs, as vpmaddubsw",
        MATMUL,
        "sum(np.clip((x[..., k : k + 2].astype(np.int32) + 128) @ weight.T[k : k + 2].astype(np.int32), -32768, 32767)"
        " for k in range(0, x.shape[-1], 2)) - 128 * weight.sum(1, dtype=np.int32)",
    ),
    namespace(
        "root rounded up", "np.vectorize(math.isqrt, otypes=[np.int64])(x)", "np.ceil(np.sqrt(x)).astype(np.int64)"
    ),
    namespace(
        "the whole tensor summed", "x.sum(axis=-1, keepdims=True, dtype=x.dtype)", "x.sum(keepdims=True, dtype=x.dtype)"
    ),
    # the interpreter's walk
    walk(
        "the backward direction runs forward",
        "for t in reversed(range(steps)) if scan.reverse else range(steps):",
        "for t in range(steps):",
    ),
    walk("backward outputs in the order of their making", "items[::-1] if scan.reverse else items", "items"),
    walk("state not carried on", "state.update(after)", "pass"),
    # the operations' evaluation
    operation("linear", "bias left out", ' + tensors["bias"]', ""),
    operation("norms", "one norm over all gates", 'groups = a["groups"]', "groups = 1"),
    operation(
        "requantize",
        "second factor is the first",
        '(x, tensors[f"multiplier_{k}"], tensors[f"shift_{k}"])',
        '(x, tensors["multiplier_0"], tensors["shift_0"])',
    ),
    operation(
        "slice",
        "slice one element late",
        'inputs[0][..., node.attributes["start"] : node.attributes["stop"]]',
        'np.roll(inputs[0], -1, -1)[..., node.attributes["start"] : node.attributes["stop"]]',
    ),
    walk(
        "initial state 0",
        "state = self.program.initial_state(batch)",
        "state = {k: 0 * v for k, v in self.program.initial_state(batch).items()}",
    ),
]


# the programs


def power_of_two_factors(program: Program) -> Program:
    """Every factor a power of two: half of all roundings are then near ties, and many are exact ones."""
    changed = {
        name: np.full_like(tensor.data, 1 << 30) for name, tensor in program.tensors.items() if "multiplier" in name
    }
    return with_tensors(program, changed)


def hot_cell(program: Program) -> Program:
    """Both terms of the cell update may leave int16 by themselves, and their sum come back."""
    changed = {
        name: tensor.data - 2 for name, tensor in program.tensors.items() if name.endswith((".c.shift_0", ".c.shift_1"))
    }
    return with_tensors(program, changed)


def uneven_factor(program: Program) -> Program:
    """A forget factor near sqrt(2) / 512: over enough full-range cell states, an error of 2**-11 steps turns one.

    (1/255 or 1/256 would hide it: no multiple of theirs comes so near to a tie.)
    """
    changed = {"layer0.forward.c.multiplier_0": np.int32([1518500312]), "layer0.forward.c.shift_0": np.int32([39])}
    return with_tensors(program, changed)


def steps_at_knots(program: Program) -> Program:
    """Tables in which the value jumps at each knot, and preactivations that are knots: gates' inputs are the biases."""
    changed: dict[str, np.ndarray] = {}
    for name, tensor in program.tensors.items():
        if name.endswith(".weight") and not name.startswith("logits"):
            changed[name] = np.zeros_like(tensor.data)
        elif name.endswith((".pre.multiplier_0", ".pre.shift_0")):
            changed[name] = np.full_like(tensor.data, 1 << 30 if "multiplier" in name else 30)
        elif name.endswith(".h.bias"):
            changed[name] = np.zeros_like(tensor.data)
        elif name.endswith(".x.bias"):
            hidden = len(tensor.data) // 4
            prefix = name.removesuffix(".x.bias")
            knots = [program.tensors[f"{prefix}.{gate}.knots"].data for gate in ("i", "f", "j", "o")]
            changed[name] = np.concatenate([np.resize(k, hidden) for k in knots]).astype(np.int32)
        elif name.endswith(".intercepts"):
            jumps = np.where(np.arange(len(tensor.data)) % 2, 100 << 14, -100 << 14)
            changed[name] = jumps.astype(np.int32)
    return with_tensors(program, changed)


def amplified_norm(norm: str, row: list[int]) -> Program:
    """W_x x + b is ``row`` in each gate; gamma and beta blow up any error of the normalized value, be it one step."""
    expected = (mad_normalized if norm == "mad" else standardized)(row)
    hidden = len(row)
    program = random_program(Spec(hidden=hidden, input_size=1, norm=norm, logits=None, seed=4))
    gain = 9000
    rows = {
        "x.weight": np.zeros((4 * hidden, 1), "int8"),
        "x.bias": np.array(row * 4, "int32"),
        "x.pre.multiplier_0": np.int32([1 << 30]),
        "x.pre.shift_0": np.int32([30]),
        "x.norm.gamma": np.full(4 * hidden, gain, "int16"),
        "x.norm.beta": np.array([-gain * t for t in expected] * 4, "int32"),
        "x.norm.multiplier": np.full(4, 1 << 30, "int32"),
        "x.norm.shift": np.full(4, 30, "int32"),
        "h.weight": np.zeros((4 * hidden, hidden), "int8"),
        "h.bias": np.zeros(4 * hidden, "int32"),
    }
    return with_tensors(program, {f"layer0.forward.{name}": data for name, data in rows.items()})


def sharp_mad_row(hidden: int) -> list[int]:
    """A row normalized elements of which change with the last bit of the reciprocal, in either direction."""

    def values(u: np.ndarray, bits: int, more: int) -> np.ndarray:
        reciprocal = (hidden << bits) // int(np.abs(u).sum()) + more
        return (u * reciprocal + (1 << (bits - 11))) >> (bits - 10)

    return _search(hidden, lambda u, _: [values(u, bits, more) for bits, more in ((48, 0), (47, 0), (48, 1))])


def sharp_layer_row(hidden: int) -> list[int]:
    """The same for LayerNorm's reciprocal of the root."""

    def values(u: np.ndarray, root: int, bits: int) -> np.ndarray:
        return (u * ((1 << bits) // root) + (1 << (bits - 16))) >> (bits - 15)

    return _search(hidden, lambda u, root: [values(u, root, bits) for bits in (59, 58)])


def _search(hidden: int, candidates: Callable[[np.ndarray, int], list[np.ndarray]]) -> list[int]:
    """The first of a fixed sequence of rows for which every candidate but the first differs from the first."""
    rng = np.random.default_rng(0)
    for _ in range(200_000):
        row = rng.integers(-32768, 32767, hidden)
        u = hidden * row - row.sum()
        root = math.isqrt((hidden * int((row * row).sum()) - int(row.sum()) ** 2) << 10)
        right, *wrong = candidates(u, root)
        if all((w != right).any() for w in wrong):
            return row.tolist()
    raise AssertionError("no such row in the sequence")


@dataclass(frozen=True)
class Case:
    """A program with inputs, a state and what the oracle says."""

    program: Program
    inputs: np.ndarray
    state: dict[str, np.ndarray] | None
    output: np.ndarray
    last: dict[str, np.ndarray]


def make_case(program: Program, batch: int, steps: int, *, fresh: bool = False) -> Case:
    inputs = random_inputs(program, batch, steps)
    state = None if fresh else random_state(program, batch)
    lists = None if state is None else {name: array.tolist() for name, array in state.items()}
    output, last = read_network(program).run_batch(inputs.tolist(), lists)
    return Case(program, inputs, state, np.array(output), {name: np.array(rows) for name, rows in last.items()})


@cache
def cases() -> list[Case]:
    return [
        make_case(random_program(Spec()), 2, 5),
        make_case(random_program(Spec(norm="mad", layers=2, seed=1)), 2, 4, fresh=True),
        make_case(random_program(Spec(norm="layer", bidirectional=True, layers=2, seed=2)), 2, 4, fresh=True),
        make_case(random_program(Spec(extreme=True, wide_tables=True, seed=3)), 2, 5),
        make_case(random_program(Spec(hidden=1, norm="mad", seed=4)), 2, 3),
        make_case(random_program(Spec(hidden=1, norm="layer", seed=5)), 2, 3),
        make_case(power_of_two_factors(random_program(Spec(hidden=24, seed=6))), 3, 8),
        make_case(hot_cell(random_program(Spec(hidden=5, seed=7))), 2, 8),
        make_case(steps_at_knots(random_program(Spec(hidden=18, logits=None, seed=8))), 1, 2),
        make_case(random_program(Spec(pieces=1, seed=9)), 2, 3),
        make_case(uneven_factor(random_program(Spec(hidden=32, input_size=2, logits=None, seed=10))), 300, 1),
        # One outlier: the normalized value, 45 deviations, saturates.
        make_case(amplified_norm("mad", [20000] + [0] * 89), 1, 1),
        # A spread so small that the floor of the root shows.
        make_case(amplified_norm("layer", [1, 0, 0, 0, 0, 0, 1]), 1, 1),
        make_case(amplified_norm("layer", sharp_layer_row(512)), 1, 1, fresh=True),
        make_case(amplified_norm("mad", sharp_mad_row(1024)), 1, 1, fresh=True),
    ]


def source(module: str) -> str:
    return Path(find_spec(MODULES[module]).origin).read_text(encoding="utf-8")


def load(module: str, text: str) -> types.ModuleType:
    copy = types.ModuleType(f"irnn.{module}_copy")
    copy.np = np
    exec(compile(text, f"irnn/{module}.py (mutated)", "exec"), copy.__dict__)
    return copy


def planted(mutation: Mutation | None) -> Callable[[Program], Any]:
    """A maker of interpreters in which everything is a fresh copy and the mutation is in its place."""
    texts = {module: source(module) for module in MODULES}
    if mutation is not None:
        count = texts[mutation.module].count(mutation.old)
        assert count == 1, f"{mutation.what}: {mutation.old!r} occurs {count} times in {MODULES[mutation.module]}"
        texts[mutation.module] = texts[mutation.module].replace(mutation.old, mutation.new)
    copies = {module: load(module, text) for module, text in texts.items()}
    for copy in copies.values():
        if hasattr(copy, "fixed_point"):
            copy.fixed_point = copies["fixed_point"]
    copied = [operation for module in OPERATIONS for operation in operations_in(copies[module])]
    copies["interpreter"].OPS = ops.Registry(copied)
    return lambda program: copies["interpreter"].Interpreter(program, copies["numpy_ops"].NUMPY)


def operations_in(module: types.ModuleType) -> list[Operation]:
    """The operations that the module defines itself."""
    classes = [value for value in vars(module).values() if inspect.isclass(value)]
    return [cls() for cls in classes if cls.__module__ == module.__name__ and hasattr(cls, "name")]


def agrees(make: Callable[[Program], Any], case: Case) -> bool:
    with np.errstate(all="raise"):
        output, last = make(case.program).run(case.inputs, case.state)
    same_states = all(np.array_equal(last[name], expected) for name, expected in case.last.items())
    return np.array_equal(output, case.output) and same_states


def test_the_unmutated_copy_agrees_everywhere() -> None:
    make = planted(None)
    assert all(agrees(make, case) for case in cases())


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_every_planted_bug_is_noticed(mutation: Mutation) -> None:
    make = planted(mutation)
    for case in cases():
        try:
            if not agrees(make, case):
                return
        except (ArithmeticError, IndexError, ValueError):
            return
    pytest.fail(f"nobody noticed: {mutation.what}")


def test_a_mutation_that_no_longer_fits_the_source_is_loud() -> None:
    with pytest.raises(AssertionError, match="occurs 0 times"):
        planted(arithmetic("gone", "no such line", ""))
