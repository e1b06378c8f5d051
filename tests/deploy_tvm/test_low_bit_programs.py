"""Networks of every weight code: QAT evaluation, interpreter, evaluator and the compiled library give one integer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import irnn
from irnn.program import Program, equality
from irnn.program.graph import Tensor
from irnn.program.storage import program_hash
from irnn.quant.codes import weight_code
from tests.support import needs
from tests.support.models import ids, language_model, quantized, quantized_layer
from tests.support.program_oracle import ProgramOracle
from tests.support.random_programs import random_inputs, random_state

# Of each code the widest that has a form of its own: one plane and several, a codebook beyond int8.
CODED = (
    "ternary",
    "binary",
    "midrise:2",
    "midrise:4",
    "denseshift:2",
    "denseshift:4",
    "alternating:1",
    "alternating:3",
    "greedy:2",
)
cells = pytest.mark.parametrize("cell", ["lstm", "gru"])
coded = pytest.mark.parametrize("choice", CODED)


def everywhere(choice: str, **more: object) -> irnn.QuantConfig:
    """The code for all matrices."""
    return irnn.QuantConfig(weight=choice, embedding=choice, logits_weight=choice, **more)


def program_of(choice: str, cell: str, **more: object) -> Program:
    """A language model of the code, its table shared by embedding and output layer."""
    return irnn.convert(quantized(language_model(cell=cell, layers=2), everywhere(choice, **more)))


def assert_compiled_alike(program: Program, folder: Path, target: object = None) -> None:
    """The library gives the interpreter's outputs and states, from states that no run reaches."""
    deploy_tvm = pytest.importorskip("deploy_tvm", reason="need tvm: tvm not installed")
    runner = deploy_tvm.load(deploy_tvm.build(program, folder / "artefact", *([target] if target else [])))
    for batch, steps in ((1, 1), (2, 5)):
        inputs, state = random_inputs(program, batch, steps, steps), random_state(program, batch, steps)
        found, expected = runner.run(inputs, state), program.run(inputs, state)
        ours, theirs = (equality.named(program, [np.array(y)], last) for y, last in (found, expected))
        assert equality.compare("the library", ours, theirs).count == 0


@cells
@coded
def test_every_executor_gives_the_same_integers(choice: str, cell: str, tmp_path: Path) -> None:
    layers, norm = 2 if cell == "lstm" else 1, "mad" if choice == "binary" else None
    model = quantized(language_model(cell=cell, layers=layers, norm=norm), everywhere(choice))
    program, tokens = irnn.convert(model), ids(2, 7, seed=5)
    logits, state = model(tokens)
    outputs, last = program.run(tokens.numpy())
    assert torch.equal(logits, torch.from_numpy(outputs) * program.logits_scale)
    (expected,), evaluated = ProgramOracle(program).run_batch({"ids": tokens.numpy()})
    assert np.array_equal(outputs, expected)
    for name, array in evaluated.items():
        assert np.array_equal(last[name], array)
        assert np.array_equal(state[name].numpy(), array)
    assert_compiled_alike(program, tmp_path)


@coded
def test_the_program_is_what_training_sees(choice: str) -> None:
    """Logits of the program and of the simulation whose weights alone are quantized: roundings lie between them."""
    model = quantized(language_model(layers=1, dropout=0.0), everywhere(choice))
    program, tokens = irnn.convert(model), ids(4, 20, seed=3)
    logits = torch.from_numpy(program.run(tokens.numpy())[0]) * program.logits_scale
    irnn.qat.prepare(model, everywhere(choice), irnn.PwlConfig(), "weights")
    simulated = model(tokens)[0]
    error = (logits - simulated).square().mean() / simulated.square().mean()
    assert float(error.detach()) < 0.02, "17 dB, which 8-bit states and gates keep"


@cells
def test_stored_programs_load_alike(cell: str, tmp_path: Path) -> None:
    for choice in ("denseshift:4", "alternating:3"):
        program = program_of(choice, cell)
        program.save(tmp_path / choice)
        loaded = irnn.load(tmp_path / choice)
        assert program_hash(loaded) == program_hash(program)
        inputs = random_inputs(program, 2, 4)
        assert np.array_equal(loaded.run(inputs)[0], program.run(inputs)[0])
        assert "scaled_embedding(ids" in loaded.describe()


def test_bidirectional_layers_of_several_planes(tmp_path: Path) -> None:
    program = irnn.convert(quantized_layer(irnn.QuantConfig(weight="alternating:2"), bidirectional=True, proj_size=5))
    inputs = random_inputs(program, 2, 4)
    (expected,), _ = ProgramOracle(program).run_batch({"x": inputs})
    assert np.array_equal(program.run(inputs)[0], expected)
    assert_compiled_alike(program, tmp_path)


def test_tied_ends_are_stored_once() -> None:
    """Each plane and each factor of a row: embedding and output layer read the same constants."""
    program = program_of("alternating:2", "lstm")
    (table,) = (node for node in program.walk() if node.op == "scaled_embedding")
    logits = [node for node in program.walk() if node.output.startswith("decoder")]
    shared = set(table.tensors.values())
    assert len(shared) == 6
    assert {node.tensors["weight"] for node in logits if node.op == "linear"} < shared
    assert set(logits[-1].tensors.values()) < shared


SIZES = [
    # code, columns, how many times smaller than fp32 a matrix is at least: its planes, and factors and biases of rows
    ("alternating:2", 300, 12.0),
    ("alternating:2", 1024, 14.0),
    ("alternating:3", 300, 8.0),
    ("alternating:3", 1024, 9.5),
    ("denseshift:3", 300, 9.5),
    ("ternary", 300, 14.0),
    ("binary", 300, 24.0),
]  # fmt: skip


@pytest.mark.parametrize(("choice", "columns", "least"), SIZES)
def test_sizes_on_disk_with_scales_counted(choice: str, columns: int, least: float) -> None:
    """A row's planes packed densely, and for each plane a multiplier, its shift and a bias (4 + 1 + 4 bytes)."""
    weight = np.random.default_rng(0).standard_normal((8, columns)) / 10
    planes = weight_code(choice, per_row=True).encode(weight)
    stored = 0
    for plane in planes:
        tensor = Tensor(plane.integers, plane.bits, plane.encoding)
        stored += tensor.data.shape[0] * (-(-columns * tensor.storage_bits // 8) + 9)
    ratio = (4 * columns + 4) * len(weight) / stored
    print(f"{choice}, rows of {columns}: {stored / len(weight):.1f} bytes a row, {ratio:.1f}x below fp32")
    assert ratio >= least


def assert_boards_alike(core: str, program: Program) -> None:
    """The kernels of one ARM instruction set, emulated, give the interpreter's integers."""
    needs.or_skip("tvm", lambda: __import__("tvm"), ImportError)
    from tests.deploy_tvm.codegen.test_arm_kernels import ARM
    from tests.deploy_tvm.codegen.test_lowered_operations import execute
    from tests.support.boards import need_bare

    need_bare(ARM[core])
    inputs, state = random_inputs(program, 2, 5), random_state(program, 2)
    output, *last = execute(ARM[core], program, inputs, *state.values())
    expected, expected_last = program.run(inputs, state)
    assert np.array_equal(output, expected)
    for found, name in zip(last, program.states, strict=True):
        assert np.array_equal(found, expected_last[name])


@pytest.mark.parametrize("core", ["arm_dotprod", "arm_neon", "armv7_neon"])
@pytest.mark.parametrize("choice", ["denseshift:4", "alternating:2"])
def test_boards_give_the_same_integers(choice: str, core: str) -> None:
    assert_boards_alike(core, program_of(choice, "gru"))
