"""The keyword spotter compiled, here and for emulated ARM: the interpreter's integers, frame by frame and at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

import deploy_tvm
import irnn
from deploy_tvm.bench import bench
from deploy_tvm.bench.measure import Settings
from deploy_tvm.bench.subject import Subject
from deploy_tvm.bench.utterance import Utterance
from deploy_tvm.static import bare
from examples.keyword_spotting import Spotter
from examples.spotting_data import BANDS, CONTEXT
from irnn.errors import IrnnError
from irnn.program import Program
from tests.deploy_tvm.codegen.test_arm_kernels import ARM
from tests.support.boards import need_bare

QUICK = "arm_neon"  # aarch64 without dot products; the other boards when there is time
FRAMES = 12


@pytest.fixture(scope="module")
def program() -> Program:
    """Of the network as the example has it, calibrated and not trained."""
    torch.manual_seed(0)
    net, clips = Spotter(BANDS).eval(), torch.randn(4, FRAMES, BANDS)
    net = irnn.prepare(net, irnn.QuantConfig(), irnn.PwlConfig(pieces=16), example_inputs=clips[:2])
    irnn.calibrate(net, [clips])
    irnn.set_stage(net, "all")
    return irnn.convert(net)


@pytest.mark.parametrize("board", [QUICK, *(pytest.param(b, marks=pytest.mark.slow) for b in ARM if b != QUICK)])
def test_same_integers_on_arm(board: str, program: Program, tmp_path: Path) -> None:
    need_bare(ARM[board])
    function, constants = bare.program_function(program, ARM[board], tmp_path)
    frames = np.random.default_rng(0).integers(-128, 128, (1, FRAMES, BANDS)).astype(np.int8)
    wanted, last = program.run(frames)

    def call(part: np.ndarray, state: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        given = bare.arguments(program, constants, {name: part for name in program.inputs}, state)
        (scores,), state = bare.results(program, function(*given))
        return scores, state

    whole, after = call(frames, program.initial_state(1))
    np.testing.assert_array_equal(whole, wanted, strict=True)
    state = program.initial_state(1)
    for t in range(FRAMES - CONTEXT + 1):
        scores, state = call(frames[:, t : t + CONTEXT], state)
        np.testing.assert_array_equal(scores, wanted[:, t : t + 1], strict=True)
    for name in last:
        np.testing.assert_array_equal(after[name], last[name], strict=True)
        np.testing.assert_array_equal(state[name], last[name], strict=True)


def test_one_frame_a_call_from_memory_that_is_laid_out_once(program: Program, tmp_path: Path) -> None:
    frames = np.random.default_rng(1).integers(-128, 128, (2, FRAMES, BANDS)).astype(np.int8)
    wanted, last = program.run(frames)
    stream = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact")).stream(2)
    for t in range(FRAMES - CONTEXT + 1):
        np.testing.assert_array_equal(stream.step(frames[:, t : t + CONTEXT]), wanted[:, t], strict=True)
    for name, state in stream.state.items():
        np.testing.assert_array_equal(state, last[name], strict=True)
    with pytest.raises(IrnnError, match="a step holds 4 frames; this stream takes 5"):
        stream.step(frames[:, :4])


def test_a_benchmark_of_one_window_a_call_streams(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is that of one step; longer calls are runs, timed by what goes in."""
    asked: list[tuple[str, int]] = []

    def measured(*_: object, function: str, steps: int) -> dict[str, dict[str, float]]:
        asked.append((function, steps))
        return {"us": {}}

    monkeypatch.setattr(bench, "_measured", measured)
    monkeypatch.setattr(bench, "_compared", lambda *_: {})
    subject = Subject("spotter", {"": program}, None, {})
    for frames in (CONTEXT, 64):
        bench.bench(subject, frames, Utterance(), Settings(), lambda text: None)
    assert asked == [("step", 1), ("run", 64)]
