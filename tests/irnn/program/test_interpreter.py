"""The interpreter, on NumPy and on PyTorch, equals the independent oracle: outputs and states, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from irnn.arithmetic.numpy_ops import NUMPY
from irnn.arithmetic.torch_ops import TORCH
from irnn.errors import IrnnError
from irnn.program import Program
from irnn.program.interpreter import Interpreter
from tests.support.gru_oracle import read_stack
from tests.support.random_programs import Spec, random_inputs, random_program, random_state, with_tensors
from tests.support.strategies import quick

both = pytest.mark.parametrize("ops", [NUMPY, TORCH], ids=["numpy", "torch"])
State = dict[str, np.ndarray]


def run(ops: Any, program: Program, inputs: np.ndarray, state: State | None = None) -> tuple[np.ndarray, State]:
    """The interpreter's output and states as NumPy arrays, whatever the namespace."""
    output, last = Interpreter(program, ops).run(inputs, state)
    return np.asarray(output), {name: np.asarray(array) for name, array in last.items()}


def assert_same(actual: tuple[np.ndarray, State], expected: tuple[np.ndarray, State]) -> None:
    assert actual[0].dtype == expected[0].dtype
    np.testing.assert_array_equal(actual[0], expected[0], strict=True)
    assert actual[1].keys() == expected[1].keys()
    for name, array in expected[1].items():
        np.testing.assert_array_equal(actual[1][name], array, err_msg=name, strict=True)


def oracle(program: Program, inputs: np.ndarray, state: State | None = None) -> tuple[np.ndarray, State]:
    """The oracle's output and states, in the dtypes that the program declares."""
    lists = None if state is None else {name: array.tolist() for name, array in state.items()}
    output, last = read_stack(program).run_batch(inputs.tolist(), lists)
    dtype = program.values[program.outputs[0]].dtype
    return np.array(output, dtype), {k: np.array(v, program.states[k].dtype) for k, v in last.items()}


specs = st.builds(
    Spec,
    cell=st.sampled_from(["lstm", "gru"]),
    hidden=st.sampled_from([1, 2, 3, 7, 8, 16, 17, 33]),
    input_size=st.sampled_from([1, 2, 5, 16, 19]),
    vocabulary=st.sampled_from([None, 2, 23]),
    layers=st.sampled_from([1, 1, 2, 3]),
    norm=st.sampled_from([None, "mad", "layer"]),
    bidirectional=st.booleans(),
    logits=st.sampled_from([None, 1, 11]),
    weight_bits=st.sampled_from([2, 4, 8]),
    pieces=st.sampled_from([1, 2, 16]),
    extreme=st.booleans(),
    wide_tables=st.booleans(),
    seed=st.integers(0, 1000),
)


@quick
@given(spec=specs, batch=st.integers(1, 3), steps=st.sampled_from([1, 2, 3, 5, 20]), fresh=st.booleans())
def test_random_programs_equal_the_oracle(spec: Spec, batch: int, steps: int, fresh: bool) -> None:
    program = random_program(spec)
    inputs = random_inputs(program, batch, steps, spec.seed)
    state = None if fresh else random_state(program, batch, spec.seed)
    expected = oracle(program, inputs, state)
    for ops in (NUMPY, TORCH):
        assert_same(run(ops, program, inputs, state), expected)


@both
@pytest.mark.parametrize("norm", [None, "mad", "layer"])
@pytest.mark.parametrize("hidden", [1, 64, 150])
def test_each_kind_of_cell_at_small_and_large_sizes(ops: Any, norm: str | None, hidden: int) -> None:
    program = random_program(Spec(hidden=hidden, input_size=33, norm=norm, layers=1 if hidden > 64 else 2, seed=hidden))
    inputs, state = random_inputs(program, 2, 4), random_state(program, 2)
    assert_same(run(ops, program, inputs, state), oracle(program, inputs, state))


@both
@pytest.mark.parametrize("value", [-128, 127])
@pytest.mark.parametrize("size", [17, 1040])
def test_largest_weights_against_the_ends_of_the_input(ops: Any, value: int, size: int) -> None:
    """Weights +-127 against x = -128 and 127; 1040 columns no longer fit an exact float32 product."""
    program = random_program(Spec(hidden=3, input_size=size, vocabulary=None, extreme=True, logits=5, seed=2))
    weights = program.tensors["layer0.forward.x.weight"].data
    assert {-127, 0, 127} == set(np.unique(weights).tolist())
    assert any(not row.any() for row in weights), "no row of zeros"
    inputs = np.full((1, 2, size), value, "int8")
    state = {
        name: np.full((1, *s.shape), np.iinfo(s.dtype).min if value < 0 else np.iinfo(s.dtype).max, s.dtype)
        for name, s in program.states.items()
    }
    assert_same(run(ops, program, inputs, state), oracle(program, inputs, state))


@both
@pytest.mark.parametrize("function", ["mad_norm", "layer_norm"])
def test_norms_whose_values_leave_int16(ops: Any, function: str) -> None:
    """One outlier in a row of 1100 is 33 standard and 550 mean absolute deviations away; t ends at 32."""
    program = spiky_program("mad" if function == "mad_norm" else "layer", hidden=1100)
    assert any(node.op == function for node in program.walk())
    inputs = np.zeros((1, 1), "int32")
    assert_same(run(ops, program, inputs), oracle(program, inputs))


def spiky_program(norm: str, hidden: int) -> Program:
    """A one-layer program in which W_x x + b is 0 but for one element of each gate, and W_h h is 0."""
    program = random_program(Spec(hidden=hidden, input_size=2, norm=norm, logits=None, seed=3))
    bias = np.zeros(4 * hidden, "int32")
    bias[5::hidden] = 1 << 20
    changed = {
        "layer0.forward.x.weight": np.zeros((4 * hidden, 2), "int8"),
        "layer0.forward.x.bias": bias,
        "layer0.forward.h.weight": np.zeros((4 * hidden, hidden), "int8"),
        "layer0.forward.h.bias": np.zeros(4 * hidden, "int32"),
        "layer0.forward.x.norm.gamma": np.full(4 * hidden, 3000, "int16"),
        "layer0.forward.x.norm.beta": np.zeros(4 * hidden, "int32"),
    }
    return with_tensors(program, changed)


STREAMED = [Spec(), Spec(norm="mad", layers=2, seed=1), Spec(norm="layer", vocabulary=None, logits=None, seed=2)]


@both
@pytest.mark.parametrize("spec", STREAMED, ids=lambda spec: f"{spec.norm}-{spec.layers}")
@pytest.mark.parametrize("cuts", [(1,), (3, 4), (2, 5, 8), tuple(range(1, 9))], ids=str)
def test_chunks_equal_one_run(ops: Any, spec: Spec, cuts: tuple[int, ...]) -> None:
    program = random_program(spec)
    assert program.streaming
    inputs = random_inputs(program, 2, 9)
    whole = run(ops, program, inputs)
    outputs, state = [], None
    for chunk in np.split(inputs, cuts, axis=1):
        output, state = run(ops, program, chunk, state)
        outputs.append(output)
    assert_same((np.concatenate(outputs, axis=1), state), whole)


@pytest.mark.parametrize("spec", STREAMED, ids=lambda spec: f"{spec.norm}-{spec.layers}")
def test_step_is_a_run_of_one_step(spec: Spec) -> None:
    program = random_program(spec)
    inputs, state = random_inputs(program, 3, 1), random_state(program, 3)
    output, last = program.step(inputs[:, 0], state)
    assert_same((output[:, None], last), program.run(inputs, state))
    assert_same((output[:, None], last), oracle(program, inputs, state))


def test_sequences_of_a_batch_do_not_touch_each_other() -> None:
    program = random_program(Spec(norm="mad", bidirectional=True))
    inputs, state = random_inputs(program, 3, 5), random_state(program, 3)
    output, last = program.run(inputs, state)
    for b in range(3):
        alone = program.run(inputs[b : b + 1], {k: v[b : b + 1] for k, v in state.items()})
        assert_same((output[b : b + 1], {k: v[b : b + 1] for k, v in last.items()}), alone)


def test_run_leaves_inputs_and_state_as_they_were() -> None:
    program = random_program(Spec())
    inputs, state = random_inputs(program, 2, 4), random_state(program, 2)
    copies = inputs.copy(), {k: v.copy() for k, v in state.items()}
    for ops in (NUMPY, TORCH):
        run(ops, program, inputs, state)
    np.testing.assert_array_equal(inputs, copies[0])
    for name in state:
        np.testing.assert_array_equal(state[name], copies[1][name])


def test_backward_direction_reads_from_the_end() -> None:
    """Reversing the input of a program whose directions share their weights swaps the directions' outputs."""
    program = random_program(Spec(bidirectional=True, logits=None, hidden=5))
    forward = {n: t.data for n, t in program.tensors.items() if ".forward." in n}
    program = with_tensors(program, {n.replace(".forward.", ".backward."): data for n, data in forward.items()})
    inputs = random_inputs(program, 1, 6)
    straight, turned = (program.run(x)[0] for x in (inputs, inputs[:, ::-1]))
    np.testing.assert_array_equal(straight[..., :5], turned[:, ::-1, 5:])
    assert not program.streaming


@both
def test_initial_state_is_the_zero_point(ops: Any) -> None:
    program = random_program(Spec(seed=5))
    state = program.initial_state(2)
    h = state["layer0.forward.h"]
    assert h.dtype == np.int8
    assert h.shape == (2, 17)
    assert set(h.ravel()) == {program.states["layer0.forward.h"].initial} != {0}
    inputs = random_inputs(program, 2, 3)
    assert_same(run(ops, program, inputs), run(ops, program, inputs, state))


@both
def test_wide_token_ids_are_welcome(ops: Any) -> None:
    program = random_program(Spec())
    inputs = random_inputs(program, 2, 3)
    assert_same(run(ops, program, inputs.astype("int64")), run(ops, program, inputs))


# bad input: one clear line


@both
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.array([[0, 23]]), "input ids holds 23; allowed are 0 to 22"),
        (np.array([[-1, 3]]), "input ids holds -1; allowed are 0 to 22"),
        (np.array([1, 2]), r"shape \[2\]; it takes \[batch, time\]"),
        (np.zeros((1, 2, 3), int), r"shape \[1, 2, 3\]; it takes \[batch, time\]"),
        (np.zeros((2, 0), int), r"shape \[2, 0\]"),
        (np.array([[1.5]]), "input ids is float64; an integer program takes integers, int32"),
        (np.array([[True]]), "input ids is bool"),
    ],
)
def test_bad_token_ids_are_refused(ops: Any, inputs: np.ndarray, message: str) -> None:
    with pytest.raises(IrnnError, match=message):
        Interpreter(random_program(Spec()), ops).run(inputs)


@both
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((1, 2, 8), "int8"), r"shape \[1, 2, 8\]; it takes \[batch, time, 9\]"),
        (np.zeros((1, 9), "int8"), r"shape \[1, 9\]; it takes \[batch, time, 9\]"),
        (np.full((1, 2, 9), 128, "int16"), "input features holds 128; allowed are -128 to 127"),
    ],
)
def test_bad_features_are_refused(ops: Any, inputs: np.ndarray, message: str) -> None:
    with pytest.raises(IrnnError, match=message):
        Interpreter(random_program(Spec(vocabulary=None)), ops).run(inputs)


def renamed(state: State) -> State:
    return {name.replace("layer0", "layer1"): array for name, array in state.items()}


@both
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: {}, "state names"),
        (lambda s: {k: v for k, v in s.items() if k.endswith("h")}, "state names"),
        (lambda s: s | {"extra": next(iter(s.values()))}, "state names"),
        (renamed, "state names"),
        (lambda s: {k: v[:1] for k, v in s.items()}, r"int8 \[1, 17\]; it takes int8 \[2, 17\]"),
        (lambda s: {k: v[:, :4] for k, v in s.items()}, r"int8 \[2, 4\]; it takes int8 \[2, 17\]"),
        (lambda s: {k: v.astype("float32") for k, v in s.items()}, "is float32"),
        (lambda s: {k: v.astype("int32") for k, v in s.items()}, "is int32"),
    ],
)
def test_bad_states_are_refused(ops: Any, spoil: Any, message: str) -> None:
    program = random_program(Spec())
    with pytest.raises(IrnnError, match=message):
        Interpreter(program, ops).run(np.zeros((2, 1), int), spoil(program.initial_state(2)))


def test_float_programs_and_unknown_operations_are_refused() -> None:
    with pytest.raises(IrnnError, match="integer programs, this one is 'float'"):
        Interpreter(random_program(Spec(kind="float")))
    program = random_program(Spec())
    unknown = replace(program, nodes=(replace(program.nodes[0], op="convolve"), *program.nodes[1:]))
    with pytest.raises(IrnnError, match="unknown operation 'convolve'"):
        Interpreter(unknown).run(np.zeros((1, 1), int))


def test_torch_results_are_torch_tensors() -> None:
    program = random_program(Spec())
    output, state = Interpreter(program, TORCH, torch.device("cpu")).run(torch.zeros(1, 2, dtype=torch.int64))
    assert output.dtype == torch.int32
    assert {name: array.dtype for name, array in state.items()} == {
        "layer0.forward.h": torch.int8,
        "layer0.forward.c": torch.int16,
    }
