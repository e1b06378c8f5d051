"""Compiled recognizers against the interpreter: the same integers, whatever the lengths; and a search on top."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from irnn.errors import IrnnError

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

import deploy_tvm
import irnn
from deploy_tvm.artefact.artefact_set import RunnerSet
from deploy_tvm.codegen.ops.attention import PLACES
from deploy_tvm.targets.disassembly import disassemble, float_instructions
from irnn.program import Program
from irnn.program.sets import ProgramSet
from irnn.recognition.decoding import SearchConfig, Tokens
from irnn.recognition.recognizer import ProgramRecognizer, search
from tests.support import needs
from tests.support.cpus import best, runnable
from tests.support.random_programs import Spec, random_program, random_state
from tests.support.speech_models import FEATURES, FRAMES, VOCABULARY, quantized_speech, speech_batch, speech_model

BEST = best()
# Whole registers and odd sizes, strides of 1, 2 and 3, sub-sampling by 2 and 3, one layer and two, 8 bits and fewer.
CASES = {
    "small": (BEST, {}),
    "whole registers": (
        BEST,
        {"conv_channels": (16, 32), "conv_strides": (2, 1), "encoder_size": 16, "attention_size": 32},
    ),
    "neighbourhoods that nearly fill an operand": (
        BEST, {"conv_channels": (6, 5), "conv_strides": (1, 1), "encoder_layers": 1, "downsampling": ()},
    ),
    "two blocks of filters, threefold steps": (
        BEST,
        {"conv_channels": (70,), "conv_strides": (3,), "encoder_size": 5, "downsampling": (3, 2), "decoder_layers": 1},
    ),
}  # fmt: skip
# Random programs over all operations run on every set (``test_any_program``), narrow weights in every kernel's tests.
LATER = {
    "small, AVX2": ("avx2", {}),
    "small, any x86": ("portable", {}),
    "small, 4-bit weights": (BEST, {"quant": irnn.QuantConfig(weight=4, embedding=4, logits_weight=4)}),
}
LENGTHS = ((1, 1), (1, 2), (1, 3), (1, 7), (1, 64), (3, 9), (2, 67))


@pytest.fixture(scope="module", params=[*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in LATER)])
def built(request, tmp_path_factory) -> tuple[ProgramSet, RunnerSet]:
    if request.param == "small":
        return request.getfixturevalue("small")[:2]
    cpu, changes = (CASES | LATER)[request.param]
    target, programs = runnable(cpu), irnn.convert(quantized_speech(**changes))
    folder = deploy_tvm.build(programs, tmp_path_factory.mktemp("speech") / "set", target)
    return programs, deploy_tvm.load(folder)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[ProgramSet, RunnerSet, object]:
    programs = ProgramSet(irnn.convert(quantized_speech()).programs, {"units": ["a", "b"]})
    folder = deploy_tvm.build(programs, tmp_path_factory.mktemp("speech") / "set")
    return programs, deploy_tvm.load(folder), folder


def encoder_input(program: Program, batch: int, frames: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Features over their whole range; the first utterance fills the axis, what lies behind the others is noise."""
    rng = np.random.default_rng(seed)
    value = program.inputs["features"]
    features = rng.integers(value.low, value.high, (batch, frames, *value.shape), endpoint=True).astype(value.dtype)
    lengths = rng.integers(1, frames, batch, endpoint=True).astype(np.int32)
    lengths[0] = frames
    return {"features": features, "lengths": lengths}


def decoder_input(memory: list[np.ndarray], steps: int, seed: int = 0) -> dict[str, np.ndarray]:
    tokens = np.random.default_rng(seed).integers(0, VOCABULARY, (len(memory[2]), steps)).astype(np.int32)
    return dict(zip(("tokens", "memory", "keys", "lengths"), (tokens, *memory), strict=True))


def assert_equal(runner, program: Program, inputs: dict[str, np.ndarray], state=None) -> list[np.ndarray]:
    """Every output and every state; returns the interpreter's outputs."""
    expected, expected_state = program.run_all(inputs, state)
    actual, actual_state = runner.run_all(inputs, state)
    for ours, wanted in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(ours, wanted, strict=True)
    assert actual_state.keys() == expected_state.keys()
    for name, wanted in expected_state.items():
        np.testing.assert_array_equal(actual_state[name], wanted, strict=True, err_msg=name)
    return expected


@pytest.mark.parametrize(("batch", "frames"), LENGTHS)
def test_same_integers_as_the_interpreter(built, batch: int, frames: int) -> None:
    programs, runners = built
    encoder, decoder = programs["encoder"], programs["decoder"]
    inputs = encoder_input(encoder, batch, frames, seed=frames)
    assert_equal(runners["encoder"], encoder, inputs, random_state(encoder, batch))
    memory = assert_equal(runners["encoder"], encoder, inputs)
    for steps in (1, 4):
        assert_equal(runners["decoder"], decoder, decoder_input(memory, steps, seed=steps))
    assert_equal(runners["decoder"], decoder, decoder_input(memory, 2), random_state(decoder, batch))


@pytest.mark.slow
def test_large_recognizers_and_long_utterances(tmp_path) -> None:
    """Several chunks, tiles and blocks in every product, and a memory of several parts."""
    sizes = {
        "conv_channels": (64, 136), "conv_strides": (1, 2), "encoder_size": 330, "downsampling": (2,),
        "decoder_size": 300, "attention_size": 200,
    }  # fmt: skip
    programs = irnn.convert(quantized_speech(**sizes))
    runners = deploy_tvm.load(deploy_tvm.build(programs, tmp_path / "set"))
    for batch, frames in ((1, 1), (1, 277), (2, 130), (1, 1111)):
        memory = assert_equal(
            runners["encoder"], programs["encoder"], encoder_input(programs["encoder"], batch, frames)
        )
        assert_equal(runners["decoder"], programs["decoder"], decoder_input(memory, 3))


@pytest.mark.parametrize("value", [-128, 127])
def test_a_memory_that_would_overflow_32_bits(small, value: int) -> None:
    """Every place has the full weight and the largest value: their sum needs 64 bits."""
    programs, runners, _ = small
    decoder, places = programs["decoder"], 2 * PLACES + 37
    assert 65535 * 128 * places > 2**31
    memory = np.full((1, places, *decoder.inputs["memory"].shape), value, np.int8)
    keys = np.zeros((1, places, *decoder.inputs["keys"].shape), np.int16)
    for length in (places, PLACES, 1):
        inputs = decoder_input([memory, keys, np.array([length], np.int32)], 1)
        (_, weights) = assert_equal(runners["decoder"], decoder, inputs)
        assert (weights[0, 0, :length] == 65535).all()


def test_scores_far_apart_and_in_the_padding(small) -> None:
    """Keys over all of int16: the best place takes all, and the best of all lies behind the end."""
    programs, runners, _ = small
    decoder, rng = programs["decoder"], np.random.default_rng(0)
    for places in (1, 15, 16, 17, 40):
        memory = rng.integers(-128, 128, (2, places, *decoder.inputs["memory"].shape)).astype(np.int8)
        keys = rng.integers(-32768, 32768, (2, places, *decoder.inputs["keys"].shape)).astype(np.int16)
        lengths = np.array([places, max(1, places // 2)], np.int32)
        (_, weights) = assert_equal(runners["decoder"], decoder, decoder_input([memory, keys, lengths], 3))
        assert not weights[1, :, lengths[1] :].any()


def test_one_step_at_a_time_is_the_whole_sequence(small) -> None:
    programs, runners, _ = small
    memory, _ = runners["encoder"].run_all(encoder_input(programs["encoder"], 2, 31))
    inputs = decoder_input(memory, 5)
    (logits, weights), last = runners["decoder"].run_all(inputs)
    state = None
    for t in range(5):
        (row, attention), state = runners["decoder"].step_all({**inputs, "tokens": inputs["tokens"][:, t]}, state)
        np.testing.assert_array_equal(row, logits[:, t])
        np.testing.assert_array_equal(attention, weights[:, t])
    assert all(np.array_equal(state[name], last[name]) for name in last)


@pytest.mark.parametrize("beam", [1, 3])
def test_searches_find_the_same_with_compiled_programs(small, beam: int) -> None:
    programs, runners, _ = small
    batch = speech_batch()
    given = (batch.features.numpy(), list(FRAMES), Tokens(1, 2, forbidden=(0,)), SearchConfig(beam=beam))
    expected = search(ProgramRecognizer(programs, programs), *given)
    assert search(ProgramRecognizer(runners.programs, runners), *given) == expected
    assert any(hypothesis.tokens for hypothesis in expected)


def test_the_float_build_is_the_float_model(tmp_path) -> None:
    model = speech_model().eval()
    programs = irnn.float_program(model)
    runners = deploy_tvm.load(deploy_tvm.build(programs, tmp_path / "set"))
    batch = speech_batch()
    with torch.no_grad():
        memory = model.encode(batch.features, batch.frames)
        logits, weights, state = model.decode(batch.decoder_inputs, memory)
    lengths = batch.frames.numpy().astype(np.int32)
    found, _ = runners["encoder"].run_all({"features": batch.features.numpy(), "lengths": lengths})
    np.testing.assert_array_equal(found[2], memory.lengths)
    for ours, expected in zip(found, (memory.values, memory.keys), strict=False):
        for row, places in enumerate(found[2]):
            np.testing.assert_allclose(ours[row, :places], expected[row, :places], rtol=0, atol=2e-5)
    tokens = batch.decoder_inputs.numpy().astype(np.int32)
    given = dict(zip(("tokens", "memory", "keys", "lengths"), (tokens, *found), strict=True))
    (our_logits, our_weights), our_state = runners["decoder"].run_all(given)
    np.testing.assert_allclose(our_logits, logits, rtol=0, atol=1e-4)
    np.testing.assert_allclose(our_weights, weights, rtol=0, atol=1e-5)
    for name, expected in state.items():
        np.testing.assert_allclose(our_state[name], expected, rtol=0, atol=2e-5)


@needs.objdump
def test_compiled_code_computes_with_integers_alone(small) -> None:
    _, _, folder = small
    for name in ("encoder", "decoder"):
        library = json.loads((folder / name / "manifest.json").read_text())["library"]
        assert float_instructions(disassemble(folder / name / library)) == []


class TestSet:
    def test_it_carries_programs_and_metadata(self, small, tmp_path) -> None:
        programs, runners, folder = small
        assert list(runners) == ["encoder", "decoder"]
        assert len(runners) == 2
        assert runners.metadata == {"units": ["a", "b"]}
        assert runners.programs["decoder"].outputs == programs["decoder"].outputs
        copy = shutil.copytree(folder, tmp_path / "copy")
        (copy / "left over").write_text("")
        others = ProgramSet({name: random_program(Spec(hidden=2, logits=None)) for name in programs}, {})
        assert deploy_tvm.build(others, copy) == copy
        assert sorted(path.name for path in copy.iterdir()) == ["artefacts.json", "decoder", "encoder"]

    def test_foreign_and_damaged_folders_are_refused(self, small, tmp_path) -> None:
        programs, _, folder = small
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("years")
        with pytest.raises(IrnnError, match=r"not empty and holds no artefacts.json"):
            deploy_tvm.build(programs, tmp_path / "mine")
        copy = shutil.copytree(folder, tmp_path / "copy")
        shutil.rmtree(copy / "encoder")
        shutil.copytree(copy / "decoder", copy / "encoder")
        with pytest.raises(IrnnError, match="belongs to another program"):
            deploy_tvm.load(copy)
        (copy / "artefacts.json").write_text("{}")
        with pytest.raises(IrnnError, match="cannot be read"):
            deploy_tvm.load(copy)


def test_bad_inputs_are_named(small) -> None:
    programs, runners, _ = small
    encoder, good = runners["encoder"], encoder_input(programs["encoder"], 1, 9)
    memory, _ = encoder.run_all(good)
    for change, message in (
        ({"lengths": np.array([10], np.int32)}, "lengths holds 10; there are only 9 along time"),
        ({"lengths": np.array([0], np.int32)}, "lengths holds 0; allowed are 1"),
        ({"lengths": np.array([9, 9], np.int32)}, "lengths has 2 along batch, another input has 1"),
        ({"features": good["features"][..., :5]}, rf"it takes \[batch, time, {FEATURES}\]"),
        ({"features": good["features"].astype(np.float32)}, "features is float32"),
    ):
        with pytest.raises(IrnnError, match=message):
            encoder.run_all({**good, **change})
    with pytest.raises(IrnnError, match=r"inputs \['features'\] do not match"):
        encoder.run_all(good["features"])
    inputs = decoder_input(memory, 1)
    with pytest.raises(IrnnError, match="keys has 2 along memory, another input has 3"):
        runners["decoder"].run_all({**inputs, "keys": inputs["keys"][:, :2]})
