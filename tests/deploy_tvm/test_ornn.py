"""The orthogonal cell compiled: here and on emulated boards the interpreter's integers, for any length of a stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

import deploy_tvm
import irnn
from deploy_tvm.peers import recurrent_stack
from deploy_tvm.static import bare
from irnn.models.sequence import random_layer
from irnn.program import Program
from irnn.random_programs import Layer, layer_programs
from tests.deploy_tvm.codegen.test_arm_kernels import ARM
from tests.irnn.nn.test_ornn import QORNN, one_hot_model
from tests.support.boards import need_bare
from tests.support.float_reference import run_float
from tests.support.models import quantized, quantized_layer
from tests.support.random_programs import random_inputs, random_state

HADAMARD = irnn.QuantConfig(weight="full_range:5", cell=12, of={"*.w_h": "binary"})
MODELS = {
    "relu, 4 bits": lambda: quantized(one_hot_model(), QORNN),
    "modrelu behind a linear loop, 8 bits": lambda: quantized(
        one_hot_model(nonlinearity="modrelu", linear=True), irnn.QuantConfig(weight="full_range:8", cell=16)
    ),
    "modrelu, both directions": lambda: quantized_layer(
        QORNN, cell="ornn", bidirectional=True, num_layers=2, nonlinearity="modrelu"
    ),
    "hadamard": lambda: quantized(one_hot_model(orthogonal="hadamard"), HADAMARD),
}
models = pytest.mark.parametrize("model", MODELS)


@models
def test_the_compiled_step_is_the_interpreters(model: str, tmp_path: Path) -> None:
    """From any state, whole sequences; step by step where the program streams."""
    program = irnn.convert(MODELS[model]())
    runner = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact"))
    for state in (None, random_state(program, 3)):
        inputs = random_inputs(program, 3, 7)
        (wanted, after), (found, last) = (one.run(inputs, state) for one in (program, runner))
        assert np.array_equal(wanted, found)
        assert all(np.array_equal(after[name], last[name]) for name in after)


@models
@pytest.mark.parametrize("name", ARM)
def test_bare_functions_on_emulated_arm(model: str, name: str, tmp_path: Path) -> None:
    need_bare(ARM[name])
    program: Program = irnn.convert(MODELS[model]())
    function, constants = bare.program_function(program, ARM[name], tmp_path)
    inputs, state = random_inputs(program, 2, 5), random_state(program, 2)
    expected, after = program.run(inputs, state)
    given = bare.arguments(program, constants, {key: inputs for key in program.inputs}, state)
    outputs, last = bare.results(program, function(*given))
    for array, wanted in zip([*outputs, *last.values()], [expected, *after.values()], strict=True):
        assert array.dtype == wanted.dtype
        assert np.array_equal(array, wanted)


@pytest.mark.parametrize("nonlinearity", ["relu", "modrelu"])
def test_the_float_twin_compiles(nonlinearity: str, tmp_path: Path) -> None:
    program = irnn.float_program(random_layer(9, 16, cell="ornn", nonlinearity=nonlinearity))
    x = np.random.default_rng(0).standard_normal((1, 6, 9)).astype(np.float32)
    found, _ = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact")).run(x)
    state = {"ornn.0.h": np.zeros((1, 16))}
    np.testing.assert_allclose(found, run_float(program, x, state)[0], rtol=0, atol=1e-5)


def test_other_runtimes_see_torchs_relu_rnn() -> None:
    _, floating = layer_programs(Layer(9, 16, layers=2, bidirectional=True, cell="ornn"))
    stack = recurrent_stack.recognize(floating)
    assert stack is not None
    assert {cell.kind for layer in stack.layers for cell in layer} == {"rnn"}
    theirs = torch.nn.RNN(9, 16, 2, bidirectional=True, nonlinearity="relu")
    for k, layer in enumerate(stack.layers):
        for suffix, cell in zip(("", "_reverse"), layer, strict=True):
            parts = {"weight_ih": cell.w_x, "weight_hh": cell.w_h, "bias_ih": cell.b_x, "bias_hh": cell.b_h}
            for name, array in parts.items():
                getattr(theirs, f"{name}_l{k}{suffix}").data = torch.from_numpy(array.copy())
    x = np.random.default_rng(0).standard_normal((1, 6, 9)).astype(np.float32)
    ours = random_layer(9, 16, cell="ornn", num_layers=2, bidirectional=True)
    wanted, _ = ours(torch.from_numpy(x))
    torch.testing.assert_close(theirs(torch.from_numpy(x[0])[:, None])[0][:, 0], wanted[0], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_million_steps_drift_nowhere(tmp_path: Path) -> None:
    """A linear recurrence forgets nothing: streamed in calls of 65,536, interpreter and library end on the same
    integers, and the state stays in its 12 bits."""
    model = one_hot_model(size=16, nonlinearity="identity")
    program = irnn.convert(quantized(model, QORNN))
    runner = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact"))
    tokens = np.random.default_rng(0).integers(0, 60, (1, 1_000_000))
    states: list = [None, None]
    for start in range(0, tokens.shape[1], 65_536):
        chunk = tokens[:, start : start + 65_536]
        (wanted, states[0]), (found, states[1]) = (
            one.run(chunk, state) for one, state in zip((program, runner), states, strict=True)
        )
        assert np.array_equal(wanted, found)
    (name,) = program.states
    assert np.array_equal(states[0][name], states[1][name])
    assert states[0][name].min() >= -2048
    assert states[0][name].max() <= 2047
    assert states[0][name].any()


def test_describe_names_the_loop() -> None:
    text = irnn.convert(quantized(one_hot_model(nonlinearity="modrelu"), QORNN)).describe()
    assert "mod_relu" in text
    assert "scan over time" in text
