"""Recognizers compiled for ARM, run by an emulator: the interpreter's integers."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

import irnn
from deploy_tvm import targets
from deploy_tvm.static import bare
from irnn.program import Program
from tests.deploy_tvm.artefact.test_speech_deploy import CASES, LATER, decoder_input, encoder_input
from tests.deploy_tvm.codegen.test_arm_kernels import ARM
from tests.support.boards import need_bare
from tests.support.random_programs import random_state
from tests.support.speech_models import quantized_speech

# One board in each run of the tests, with instructions for dot products; the others, and odd sizes, when there is time.
QUICK = ("arm_dotprod", "small")
OTHERS = [
    (board, case)
    for board in ARM
    for case in ("small", "small, 4-bit weights", "two blocks of filters, threefold steps")
    if (board, case) != QUICK
]


def compare(programs: dict[str, Program], target: targets.Target, folder) -> None:
    """Every output and state of both programs, for utterances of several lengths."""
    functions = {}
    for name, program in programs.items():
        (folder / name).mkdir()
        functions[name] = bare.program_function(program, target, folder / name)

    def run(name: str, inputs: dict[str, np.ndarray], batch: int) -> list[np.ndarray]:
        program, (function, constants) = programs[name], functions[name]
        state = random_state(program, batch)
        outputs, after = program.run_all(inputs, state)
        results, last = bare.results(program, function(*bare.arguments(program, constants, inputs, state)))
        for found, wanted in zip((*results, *last.values()), (*outputs, *after.values()), strict=True):
            np.testing.assert_array_equal(found, wanted, strict=True)
        return outputs

    for batch, frames in ((1, 1), (1, 14), (2, 27)):
        memory = run("encoder", encoder_input(programs["encoder"], batch, frames), batch)
        for steps in (1, 3):
            run("decoder", decoder_input(memory, steps), batch)


def board(name: str) -> targets.Target:
    """A target whose code this machine can link and emulate."""
    need_bare(ARM[name])
    return ARM[name]


def test_same_integers_as_the_interpreter(tmp_path) -> None:
    name, case = QUICK
    compare(irnn.convert(quantized_speech(**(CASES | LATER)[case][1])), board(name), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "case"), OTHERS)
def test_same_integers_on_every_board(name: str, case: str, tmp_path) -> None:
    compare(irnn.convert(quantized_speech(**(CASES | LATER)[case][1])), board(name), tmp_path)
