"""Compiled programs against the interpreter: the same integers, logits and states."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from irnn.errors import IrnnError
from tests.support import needs
from tests.support.random_programs import Spec, random_inputs, random_program, random_state

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

from tvm import relax

import deploy_tvm
import irnn
from deploy_tvm import targets
from deploy_tvm.targets.disassembly import disassemble, float_instructions
from irnn.models.sequence import random_layer
from tests.support.cpus import CPUS, best, runnable
from tests.support.float_reference import run_float
from tests.support.models import ids, language_model, quantized, quantized_layer

NORMS = Spec(hidden=17, norm="mad", layers=2, seed=1)
SPECS = {
    "plain": Spec(),
    "one unit": Spec(hidden=1, input_size=1, vocabulary=None, seed=2),
    "three units, wide tables": Spec(hidden=3, input_size=5, wide_tables=True, logits=None, seed=3),
    "extremes": Spec(hidden=64, input_size=64, vocabulary=None, extreme=True, seed=4),
    "extremes at 4 bits": Spec(hidden=70, input_size=33, vocabulary=None, extreme=True, weight_bits=4, seed=5),
    "2 bits, both directions": Spec(hidden=33, weight_bits=2, bidirectional=True, layers=2, pieces=8, seed=6),
    "MadNorm": NORMS,
    "LayerNorm, 4 bits": Spec(hidden=33, norm="layer", weight_bits=4, extreme=True, pieces=33, seed=7),
}


def compare(program, runner, batch: int, steps: int, seed: int = 0) -> None:
    inputs, state = random_inputs(program, batch, steps, seed), random_state(program, batch, seed)
    expected, expected_state = program.run(inputs, state)
    actual, actual_state = runner.run(inputs, state)
    assert actual.dtype == expected.dtype
    assert np.array_equal(actual, expected)
    assert actual_state.keys() == expected_state.keys()
    for name, value in expected_state.items():
        assert actual_state[name].dtype == value.dtype
        assert np.array_equal(actual_state[name], value), name


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("spec", SPECS)
def test_same_integers_as_the_interpreter(spec: str, cpu: str, tmp_path) -> None:
    target = runnable(cpu)
    assert target.kernels().name == cpu
    program = random_program(SPECS[spec])
    runner = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact", target))
    for batch, steps in ((1, 1), (1, 2), (3, 2), (1, 7), (2, 35), (1, 65)):
        compare(program, runner, batch, steps, seed=steps)


def test_this_machine_is_built_for_with_the_fastest_kernels_that_it_can_run() -> None:
    assert targets.find("host").resolve().kernels().name == best()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("cpu", CPUS)
def test_large_layer(cpu: str, bits: int, tmp_path) -> None:
    target = runnable(cpu)
    program = random_program(Spec(hidden=650, input_size=650, vocabulary=None, logits=None, weight_bits=bits))
    runner = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact", target))
    compare(program, runner, 1, 7)


def test_steps_are_the_sequence_and_states_carry_over(tmp_path) -> None:
    program = random_program(Spec(norm="mad"))
    runner = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact"))
    inputs = random_inputs(program, 2, 9)
    whole, last = runner.run(inputs)
    first, state = runner.run(inputs[:, :4])
    kept = {name: value.copy() for name, value in state.items()}
    pieces = [first]
    for t in range(4, 9):
        output, state = runner.step(inputs[:, t], state)
        pieces.append(output[:, None])
    assert np.array_equal(np.concatenate(pieces, axis=1), whole)
    assert all(np.array_equal(state[name], last[name]) for name in last)
    # The state given back earlier is still what it was, and may be used again.
    again, _ = runner.run(inputs[:, 4:], kept)
    assert np.array_equal(again, whole[:, 4:])


def test_stream_is_the_sequence(tmp_path) -> None:
    program = random_program(Spec(norm="mad"))
    runner = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact"))
    inputs, state = random_inputs(program, 2, 5), random_state(program, 2)
    given = {name: value.copy() for name, value in state.items()}
    whole, last = runner.run(inputs, state)
    stream, other = runner.stream(2, state), runner.stream(2)
    for t in range(5):
        assert np.array_equal(stream.step(inputs[:, t]), whole[:, t])
        other.step(inputs[:, 0])  # streams of one runner do not disturb each other
    assert all(np.array_equal(stream.state[name], last[name]) for name in last)
    assert all(np.array_equal(state[name], given[name]) for name in state)
    with pytest.raises(IrnnError, match="a step holds 1 sequences; this stream has 2"):
        stream.step(inputs[:1, 0])
    for dtype in (np.int32, np.int64):
        with pytest.raises(IrnnError, match="allowed are"):
            stream.step(np.array([0, 10**6], dtype))


def test_wider_integers_are_checked_before_they_are_narrowed(tmp_path) -> None:
    program = random_program(Spec(vocabulary=None, logits=None))
    runner = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact"))
    ((_, value),) = program.inputs.items()
    assert (value.low, value.high) == (-128, 127)  # an int8 array needs no check
    wide = np.full((1, 1, *value.shape), 300, np.int64)
    for call in (lambda: runner.run(wide), lambda: runner.stream().step(wide[:, 0])):
        with pytest.raises(IrnnError, match="holds 300; allowed are -128 to 127"):
            call()


def test_empty_sequence_returns_the_state(tmp_path) -> None:
    program = random_program(Spec())
    runner = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact"))
    state = random_state(program, 2)
    output, after = runner.run(np.zeros((2, 0), np.int32), state)
    assert output.shape == (2, 0, 23)
    assert all(np.array_equal(after[name], state[name]) for name in state)


@pytest.mark.parametrize("norm", [None, "mad", "layer"])
def test_float_program_is_close_to_numpy(norm: str | None, tmp_path) -> None:
    program = random_program(Spec(hidden=33, norm=norm, bidirectional=norm is None, layers=2, kind="float"))
    runner = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact"))
    for batch, steps in ((1, 1), (2, 13)):
        inputs, state = random_inputs(program, batch, steps), random_state(program, batch)
        expected, expected_state = run_float(program, inputs, state)
        actual, actual_state = runner.run(inputs, state)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5)
        for name, value in expected_state.items():
            np.testing.assert_allclose(actual_state[name], value, rtol=0, atol=2e-5)


@needs.objdump
@pytest.mark.parametrize("norm", [None, "mad", "layer"])
def test_compiled_code_computes_with_integers_alone(norm: str | None, tmp_path) -> None:
    spec = Spec(hidden=33, norm=norm, wide_tables=True)
    library = built_library(random_program(spec), tmp_path / "integer")
    listing = disassemble(library)
    assert "vp" in listing or "pmadd" in listing
    assert float_instructions(listing) == []


@needs.objdump
def test_float_code_is_told_from_integer_code(tmp_path) -> None:
    floating = disassemble(built_library(random_program(Spec(hidden=33, kind="float")), tmp_path / "float"))
    assert any("mul" in name or "fmadd" in name for name in float_instructions(floating))


def built_library(program, folder):
    return folder / json.loads((deploy_tvm.build(program, folder) / "manifest.json").read_text())["library"]


NARROW = irnn.QuantConfig(weight=4, embedding=4, logits_weight=4)


@pytest.mark.parametrize(("norm", "layers", "quant"), [(None, 2, None), ("mad", 1, NARROW), ("layer", 1, None)])
def test_converted_language_models(norm: str | None, layers: int, quant, tmp_path) -> None:
    """The real wiring, with the embedding tied to the output layer: from training to compiled code."""
    model = quantized(language_model(norm=norm, layers=layers), quant)
    program = irnn.convert(model)
    runner = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact"))
    for batch, steps in ((1, 1), (3, 40)):
        compare(program, runner, batch, steps)
    tokens = ids(batch=2, time=6, seed=3)
    with torch.no_grad():
        logits, _ = model(tokens)
    actual, _ = runner.run(tokens.numpy())
    assert np.array_equal((torch.from_numpy(actual.copy()) * runner.output_scale).numpy(), logits.numpy())


def test_converted_bidirectional_layer(tmp_path) -> None:
    program = irnn.convert(quantized_layer(bidirectional=True, norm="mad"))
    runner = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact"))
    compare(program, runner, 2, 9)


@pytest.mark.parametrize("cpu", ["avx512vnni", "portable"])
@pytest.mark.parametrize(
    ("bits", "arguments"), [(8, dict(bidirectional=True)), (4, dict(norm="mad")), (2, dict(num_layers=2))]
)
def test_converted_projections(bits: int, arguments: dict, cpu: str, tmp_path) -> None:
    quant = irnn.QuantConfig(weight=bits)
    program = irnn.convert(quantized_layer(quant, proj_size=5, **arguments))
    runner = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact", runnable(cpu)))
    for batch, steps in ((1, 1), (2, 9)):
        compare(program, runner, batch, steps)


def test_float_program_of_a_projected_stack(tmp_path) -> None:
    model = random_layer(9, 16, num_layers=2, bidirectional=True, proj_size=5).eval()
    runner = deploy_tvm.load(deploy_tvm.build(irnn.float_program(model), tmp_path / "artefact"))
    x = torch.randn(2, 7, 9)
    with torch.no_grad():
        h, _ = model(x)
    np.testing.assert_allclose(runner.run(x.numpy())[0], h.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", [None, "mad", "layer"])
def test_float_program_is_the_float_model(norm: str | None, tmp_path) -> None:
    model = language_model(norm=norm, layers=2).eval()
    runner = deploy_tvm.load(deploy_tvm.build(irnn.float_program(model), tmp_path / "artefact"))
    tokens = ids(batch=2, time=9, seed=4)
    with torch.no_grad():
        logits, _ = model(tokens)
    np.testing.assert_allclose(runner.run(tokens.numpy())[0], logits.numpy(), rtol=0, atol=1e-4)


INTEGER_NAMES = "vpdpbusd vpmuldq vpaddq vmovaps vxorps vpmaxsd vbroadcastss cmpq vpcmpgtd subl vpermd vpmovsdb"
FLOAT_NAMES = "vaddps mulsd vfmadd231ps vcvtdq2ps cvttss2si vucomiss vcmpltps fldt vmaxps divss vminpd"


def test_float_instructions_are_recognized() -> None:
    for name in INTEGER_NAMES.split():
        assert float_instructions(f"\t{name}\t%zmm0, %zmm1") == []
    for name in FLOAT_NAMES.split():
        assert float_instructions(f"  12ab:\t{name}    %xmm0,%xmm1") == [name]


class TestArtefact:
    @pytest.fixture(scope="class")
    def artefact(self, tmp_path_factory):
        program = random_program(Spec(hidden=3, logits=None))
        return deploy_tvm.build(program, tmp_path_factory.mktemp("build") / "artefact"), program

    @pytest.fixture
    def copy(self, artefact, tmp_path):
        return shutil.copytree(artefact[0], tmp_path / "copy")

    def test_manifest_says_what_it_is(self, artefact) -> None:
        from irnn.program.storage import program_hash

        manifest = json.loads((artefact[0] / "manifest.json").read_text())
        assert manifest["program_hash"] == program_hash(artefact[1])
        assert manifest["target"]["name"] == "host"
        assert set(manifest["files"]) == {manifest["library"], "program/program.json", "program/tensors.safetensors"}

    def test_rebuilding_in_place_is_seen(self, copy) -> None:
        before = deploy_tvm.load(copy)
        other = random_program(Spec(hidden=5, seed=9))
        after = deploy_tvm.load(deploy_tvm.build(other, copy))
        compare(other, after, 1, 5)
        assert before.program.states != after.program.states
        assert [p.name for p in copy.parent.iterdir()] == ["copy"]

    @pytest.mark.parametrize("name", ["library", "program/tensors.safetensors", "program/program.json"])
    @pytest.mark.parametrize("damage", ["edit", "truncate", "remove"])
    def test_damaged_files_are_refused(self, copy, name: str, damage: str) -> None:
        if name == "library":
            name = json.loads((copy / "manifest.json").read_text())["library"]
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        if damage == "remove":
            (copy / name).unlink()
        else:
            (copy / name).write_bytes(data if damage == "edit" else data[: len(data) // 2])
        with pytest.raises(IrnnError, match=r"build .*again|build it again") as error:
            deploy_tvm.load(copy)
        assert name in str(error.value)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"tvm": "0.1"}, "built with TVM 0.1"),
            ({"format": 99}, "format 99"),
            ({"features": ["sve2"]}, "CPU with sve2"),
            ({"files": {}}, "do not belong"),
        ],
    )
    def test_other_versions_and_machines_are_refused(self, copy, change: dict, message: str) -> None:
        manifest = json.loads((copy / "manifest.json").read_text())
        (copy / "manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(IrnnError, match=message):
            deploy_tvm.load(copy)

    def test_no_artefact(self, tmp_path, copy) -> None:
        with pytest.raises(IrnnError, match="not an artefact"):
            deploy_tvm.load(tmp_path / "nothing")
        (copy / "manifest.json").write_text('{"format": 1')
        with pytest.raises(IrnnError, match="cannot be read"):
            deploy_tvm.load(copy)

    def test_foreign_folder_is_left_alone(self, artefact, tmp_path) -> None:
        (tmp_path / "thesis.tex").write_text("years of work")
        with pytest.raises(IrnnError, match="not empty"):
            deploy_tvm.build(artefact[1], tmp_path)
        assert (tmp_path / "thesis.tex").read_text() == "years of work"

    def test_failed_build_leaves_nothing(self, artefact, tmp_path, monkeypatch) -> None:
        def full(*arguments, **options):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(relax.VMExecutable, "export_library", full)
        with pytest.raises(IrnnError, match="No space left"):
            deploy_tvm.build(artefact[1], tmp_path / "new")
        assert list(tmp_path.iterdir()) == []

    def test_unknown_target(self, artefact, tmp_path) -> None:
        with pytest.raises(IrnnError, match=r"unknown target 'abacus': the targets are .*host"):
            deploy_tvm.build(artefact[1], tmp_path / "new", "abacus")

    def test_bad_inputs_and_states(self, artefact) -> None:
        runner = deploy_tvm.load(artefact[0])
        for inputs, message in (
            (np.array([[0, 23]]), "holds 23; allowed are 0 to 22"),
            (np.array([[-1]]), "holds -1"),
            (np.array([3]), "shape"),
            (np.zeros((0, 3), np.int32), "shape"),
            (np.array([[0.5]]), "float64"),
        ):
            with pytest.raises(IrnnError, match=message):
                runner.run(inputs)
        good = runner.initial_state(1)
        name = next(iter(good))
        with pytest.raises(IrnnError, match="state names"):
            runner.run(np.array([[1]]), {"x": good[name]})
        with pytest.raises(IrnnError, match=f"state {name}"):
            runner.run(np.array([[1]]), {**good, name: good[name].astype(np.int64)})
        with pytest.raises(IrnnError, match=f"state {name}"):
            runner.run(np.array([[1]]), {**good, name: np.repeat(good[name], 2, axis=0)})
