"""One bug at a time in the evaluation of every operation: random programs against the evaluator must notice each."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from irnn.program import Program
from tests.support.planting import OPERATIONS, Mutation, arithmetic, namespace, operation, planted, walk
from tests.support.program_oracle import ProgramOracle
from tests.support.random_graphs import random_graph, random_graph_inputs
from tests.support.random_programs import random_state

NO_INTEGERS = {"ops.activations"}  # float programs only

MUTATIONS = [
    operation("add", "add: a twice", "inputs[0], inputs[1],", "inputs[0], inputs[0],"),
    operation("add", "add: saturates at its dtype", 'node.attributes["high"]', "np.iinfo(dtype).max"),
    operation("affine", "affine: zero point left out", 'inputs[0], node.attributes["zero_point"]', "inputs[0], 0"),
    arithmetic("affine: bias left out", ' + ops.to(bias, "int32")', ""),
    operation("attention_context", "context: memory reversed", "weights[..., None, :]", "weights[..., None, ::-1]"),
    operation("attention_context", "context: zero point of the result", 'a["zero_point"],', "0,"),
    operation("attention_weights", "weights: the query left out", "query[..., None, :]", "0 * query[..., None, :]"),
    operation("complement", "complement: -x", "fixed_point.complement(ops, inputs[0])", "np.int8(0) - inputs[0]"),
    operation("complement", "complement: unchanged", "fixed_point.complement(ops, inputs[0])", "inputs[0]"),
    arithmetic("complement: 127 - x wraps", 'ops.to(-1, "int32") - ops.to(x, "int32")', 'ops.to(127, "int32") - x'),
    arithmetic("complement: bits kept", 'ops.to(ops.to(-1, "int32") - ops.to(x, "int32"), "int8")', "x"),
    operation("concat", "concat: turned round", "ops.concat(inputs)", "ops.concat(inputs[::-1])"),
    operation("embedding", "embedding: the row before", "inputs[0])", "inputs[0] - 1)"),
    operation("flatten", "flatten: channels outermost", "inputs[0].reshape", "inputs[0].swapaxes(-1, -2).reshape"),
    operation("last", "last: the first step", "inputs[0][:, -1]", "inputs[0][:, 0]"),
    operation("last", "last: padding read", "ops.steps(sequence, lengths - 1)", "sequence[:, -1]"),
    operation("last", "last: one step early", "lengths - 1", "lengths - 2"),
    namespace("last: the first sequence for all", "sequence[np.arange(len(index)), index]", "sequence[0, index]"),
    operation("linear", "linear: bias left out", ' + tensors["bias"]', ""),
    operation("linear", "linear: int16 operands cut", "ops.matmul(inputs[0],", "ops.matmul(inputs[0].astype(np.int8),"),
    operation("mask", "mask: filled with 0", 'ops.to(node.attributes["fill"], dtype)', "ops.to(0, dtype)"),
    operation("minimum", "minimum: the larger", "ops.where(a <= b, a, b)", "ops.where(a <= b, b, a)"),
    operation("minimum", "minimum: the first", "ops.where(a <= b, a, b)", "a"),
    operation("mod_relu", "mod_relu: the bias of the first element", 'inputs[0], tensors["bias"]',
              'inputs[0], tensors["bias"][:1]'),
    operation("mod_relu", "mod_relu: saturates at its dtype", 'a["low"], a["high"], dtype', '-32768, 32767, dtype'),
    arithmetic("mod_relu: the sign of 0 is 1", "ops.where(size_i32 <= zero_i32, zero_i32, signed_i32)", "signed_i32"),
    arithmetic("mod_relu: the sign is lost", "zero_i32 - grown_i32)", "grown_i32)"),
    arithmetic("mod_relu: small magnitudes change sides", "ops.clip(size_i32 + bias, 0, INT32_MAX)", "size_i32 + bias"),
    operation("multibit", "multibit: zero point left out", 'a["zero_point"], a["codes"]', '0, a["codes"]'),
    operation("multiply", "multiply: one zero point for both", 'inputs[1], node.attributes["zero_point_a"], node',
              'inputs[1], node.attributes["zero_point_b"], node'),
    operation("norms", "norms: one group", 'groups = a["groups"]', "groups = 1"),
    operation("norms", "norms: MadNorm for both", "getattr(fixed_point, self.name)", "fixed_point.mad_norm"),
    operation("patches", "patches: border of 0", "before, behind, fill)", "before, behind, 0)"),
    operation("patches", "patches: time and band change places", "for time in times for band in bands",
              "for band in bands for time in times"),
    operation("patches", "patches: taps side by side", "slice(dt * dilation_t, dt * dilation_t +", "slice(dt, dt +"),
    operation("patches", "patches: borders change places", "axis + 1, before, behind", "axis + 1, behind, before"),
    operation("softmax_mean", "softmax_mean: steps reversed", "e_u16, values.swapaxes(1, 2),",
              "e_u16, values.swapaxes(1, 2)[..., ::-1],"),
    operation("softmax_mean", "softmax_mean: padding read",
              "ops.valid(lengths[0], score.shape[1])[:, None] if lengths else None", "None"),
    operation("softmax_mean", "softmax_mean: zero point of the result", 'a["zero_point"], a["low"]', '0, a["low"]'),
    operation("pools", "max pool: the smallest", "ops.where(p <= q, q, p)", "ops.where(p <= q, p, q)"),
    operation("pools", "max pool: the border may be the largest", "INTEGER_DTYPES[dtype][0])\n        largest",
              "INTEGER_DTYPES[dtype][1])\n        largest"),
    operation("pools", "mean pool: zero point left out", 'ops.to(x, "int32") - ops.to(a["zero_point"], "int32")',
              'ops.to(x, "int32")'),
    operation("pools", "mean pool: border of 0", 'Window.of(a), a["zero_point"])', "Window.of(a), 0)"),
    operation("pwl", "pwl: one fractional bit less", 'a["shift"],', 'a["shift"] - 1,'),
    operation("repeat", "repeat: the first sequence's for all", "[value] * like", "[0 * value + value[:1]] * like"),
    operation("requantize", "requantize: one factor for both", 'tensors[f"shift_{k}"]', 'tensors["shift_0"]'),
    operation("residual", "residual: one zero point for both", 'a["zero_points"][k]', 'a["zero_points"][0]'),
    operation("scaled_embedding", "scaled embedding: one plane", 'range(a["planes"])]', "range(1)]"),
    operation("scaled_embedding", "scaled embedding: one factor for all rows", "multiplier, shift = (part.reshape",
              "multiplier, shift = (part[:1].reshape"),
    operation("scaled_embedding", "scaled embedding: saturates at its dtype", 'a["low"], a["high"]', "-128, 127"),
    operation("shorten", "shorten: one less", "(inputs[0] + offset) // factor",
              "np.maximum((inputs[0] + offset - 1) // factor, 1)"),
    operation("shorten", "shorten: offset left out", 'node.attributes.get("offset", factor - 1)', "factor - 1"),
    operation("slice", "slice: one early", 'node.attributes["start"] :', 'node.attributes["start"] - 1 :'),
    operation("step", "step: from the other end", 'node.attributes["index"]]', '-1 - node.attributes["index"]]'),
    operation("subtract", "subtract: b - a", "terms[0], terms[1],", "terms[1], terms[0],"),
    arithmetic("subtract: negated behind its rounding", "(second_i32, multiplier_b, shift_b)]",
               "(rescale(ops, -second_i32, multiplier_b, shift_b), -(1 << 30), 30)]"),
    arithmetic("mean: floored", "doubled_i64 + count", "doubled_i64"),
    arithmetic("mean: rounded up", "doubled_i64 + count,", "doubled_i64 + count + count - 1,"),
    operation("top", "top: one more", 'node.attributes["count"]))', 'node.attributes["count"] + 1)[1:])'),
    arithmetic("top: ties to the higher place", "ops.where(best_i32 <= x, turned_i32, lowest_i32))",
               'ops.where(best_i32 <= x, ops.places(x), lowest_i32)) * ops.to(-1, "int32")'),
    arithmetic("top: what was taken is taken again", "x, turned_i32 = ops.keep(kept)", "ops.keep(kept)"),
    operation("time_max", "maximum: padding read", "rows = ops.where(valid, rows,", "ops.where(valid, rows,"),
    operation("time_max", "maximum: padding is 0", "ops.to(INTEGER_DTYPES[dtype][0], dtype)", "ops.to(0, dtype)"),
    operation("time_mean", "mean: padding read", "ops.where(valid, rows_i64, ", "ops.where(valid | True, rows_i64, "),
    operation("time_mean", "mean: over all steps", 'ops.to(lengths[0], "int64")[:, None, None]',
              'ops.to(steps, "int64")'),
    operation("time_mean", "mean: zero point left out", 'node.attributes["zero_point"], "int64")', '0, "int64")'),
    walk("final: the state before", "{outer: present[name] for", "{outer: state.get(name, present[name]) * 0 for"),
    walk("final: rests not behind a sequence's end", "self.ops.where(valid[:, t, None], v, present[name])", "v"),
    walk("start: from zeros", "environment[scan.starts[name]] if", "0 * environment[scan.starts[name]] if"),
    operation("subsample", "subsample: the other steps", "[:, :: node", "[:, ::-1][:, :: node"),
]  # fmt: skip


@cache
def cases() -> list[tuple[Program, dict[str, np.ndarray], dict[str, np.ndarray], Any]]:
    made = []
    for seed in range(36):
        program = random_graph(seed)
        inputs, state = random_graph_inputs(program, 3, 5, seed), random_state(program, 3, seed)
        made.append((program, inputs, state, ProgramOracle(program).run_batch(inputs, state)))
    return made


def agree(make: Callable[[Program], Any]) -> bool:
    """Whether the copies give what the evaluator says, on all cases."""
    for program, inputs, state, (outputs, states) in cases():
        found, last = make(program).run_all(inputs, state)
        same = all(np.array_equal(ours, theirs) for ours, theirs in zip(found, outputs, strict=True))
        if not same or not all(np.array_equal(last[name], array) for name, array in states.items()):
            return False
    return True


def test_unmutated_copies_agree() -> None:
    assert agree(planted(None))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_every_planted_bug_is_noticed(mutation: Mutation) -> None:
    make = planted(mutation)
    try:
        noticed = not agree(make)
    except (ArithmeticError, IndexError, ValueError):
        return
    assert noticed, f"nobody noticed: {mutation.what}"


def test_every_operation_has_a_planted_bug() -> None:
    assert {mutation.module for mutation in MUTATIONS} >= set(OPERATIONS) - NO_INTEGERS
