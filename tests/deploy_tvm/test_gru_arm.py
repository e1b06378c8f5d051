"""The GRU on emulated boards: over RPC, as a bundle and in bare functions the interpreter's integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

import irnn
from deploy_tvm import targets
from deploy_tvm.remote import emulated
from deploy_tvm.remote.bench import bench_device
from deploy_tvm.remote.device import from_config
from deploy_tvm.remote.workload import Lengths
from deploy_tvm.static import bare
from irnn.program import Program
from tests.deploy_tvm.codegen.test_arm_kernels import ARM
from tests.support import models
from tests.support.boards import need, need_bare
from tests.support.random_programs import random_inputs, random_state

TOKENS = 24
NARROW = irnn.QuantConfig(weight=4, embedding=4, logits_weight=4)
MODELS = {
    "8 bits": lambda: models.quantized(models.language_model(cell="gru", layers=2)),
    "4 bits, MadNorm": lambda: models.quantized(models.language_model(cell="gru", norm="mad"), NARROW),
    "both directions": lambda: models.quantized_layer(cell="gru", bidirectional=True),
}


def on_board(model: str, target: str, folder: Path) -> dict[str, int]:
    """What ``bench`` finds on an emulated board: integers compared, and those that differ."""
    need(target, emulated.QEMU32 if target == "armv7a" else emulated.QEMU, cxx=target != "armv7a")
    irnn.convert(MODELS[model]()).save(folder / "program")
    chosen = targets.find(target)
    device = from_config({"kind": "emulated", "number": 1, "repeat": 2, "warmup": 0}, chosen.mcpu)
    lengths = Lengths(steps=TOKENS) if model == "both directions" else Lengths(tokens=TOKENS)
    result = bench_device(folder / "program", None, chosen, device, lengths, lambda text: None)
    return result["targets"][target]["mismatches"]


@pytest.mark.parametrize(("model", "target"), [("8 bits", "aarch64"), ("both directions", "cortex_a76")])
def test_over_rpc(model: str, target: str, tmp_path: Path) -> None:
    found = on_board(model, target, tmp_path)
    compared = TOKENS * models.VOCABULARY + 2 * 24 if model == "8 bits" else TOKENS * 32 + 2 * 16
    assert found == {"count": 0, "compared": compared}


@pytest.mark.slow
@pytest.mark.parametrize("target", ["aarch64", "cortex_a53", "cortex_a72", "cortex_a76"])
@pytest.mark.parametrize("model", MODELS)
def test_over_rpc_on_every_board(model: str, target: str, tmp_path: Path) -> None:
    assert on_board(model, target, tmp_path)["count"] == 0


@pytest.mark.parametrize("model", ["8 bits", "4 bits, MadNorm"])
def test_as_a_bundle_on_a_32_bit_board(model: str, tmp_path: Path) -> None:
    found = on_board(model, "armv7a", tmp_path)
    layers = 2 if model == "8 bits" else 1
    assert found == {"count": 0, "compared": TOKENS * models.VOCABULARY + layers * 24}


@pytest.mark.parametrize("name", ARM)
@pytest.mark.parametrize("model", MODELS)
def test_bare_functions_from_any_state(model: str, name: str, tmp_path: Path) -> None:
    """Every output and last state, from random states, for every set of ARM kernels."""
    need_bare(ARM[name])
    program: Program = irnn.convert(MODELS[model]())
    function, constants = bare.program_function(program, ARM[name], tmp_path)
    for batch, steps in ((1, 1), (2, 7)):
        inputs, state = random_inputs(program, batch, steps), random_state(program, batch)
        expected, after = program.run(inputs, state)
        given = bare.arguments(program, constants, {name: inputs for name in program.inputs}, state)
        outputs, last = bare.results(program, function(*given))
        found = [*outputs, *last.values()]
        for array, wanted in zip(found, [expected, *after.values()], strict=True):
            assert array.dtype == wanted.dtype
            assert np.array_equal(array, wanted)
