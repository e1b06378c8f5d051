"""Instructions and modelled cycles: the counter against programs counted by hand, and what is reported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

import irnn
from deploy_tvm import targets
from deploy_tvm.__main__ import main
from deploy_tvm.artefact.golden import Golden
from deploy_tvm.artefact.inputs import random_inputs
from deploy_tvm.static import bare, emulated_peers, mca
from deploy_tvm.targets import toolchain
from irnn.errors import IrnnError
from irnn.models.classifier import Classifier, ClassifierConfig
from irnn.random_programs import Layer, layer_programs
from tests.support import needs
from tests.support.boards import need_counter, need_emulator, need_model
from tests.support.speech_models import quantized_speech, speech_model

LAYER = ["--layer", "lstm", "--input", "40", "--hidden", "48", "--steps", "5"]
SIZES = {"time": 16, "memory": 16}  # of the comparison
WEIGHTS = 4 * 48 * (40 + 48)
# 1 + 2 * 1000 + 2 instructions.
ASSEMBLY = {
    "aarch64": "mov x0, #1000\n1: subs x0, x0, #1\nb.ne 1b\nmov x8, #93\nsvc #0\n",
    "armv7a": "mov r0, #1000\n1: subs r0, r0, #1\nbne 1b\nmov r7, #1\nsvc #0\n",
}
LISTING = """
outer:
\tmov\tw0, #3
.LBB0_1:
\tsdot\tv9.4s, v1.16b, v2.16b
.LBB0_2:
\tldr\tq1, [x0], #16                  // 16-byte load
\tsdot\tv0.4s, v1.16b, v2.16b
\tsdot\tv3.4s, v1.16b, v2.16b
\tsubs\tx3, x3, #1
\tb.ne\t.LBB0_2
.LBB0_3:
\tsmull\tv0.8h, v1.8b, v2.8b
\tcbnz\tx4, .LBB0_3
\tb\t.LBB0_1
\tret
"""


@pytest.mark.parametrize("target", ASSEMBLY)
def test_instructions_are_counted_one_by_one(target: str, tmp_path: Path) -> None:
    need_emulator(target)
    chosen = targets.find(target)
    source = tmp_path / "loop.s"
    source.write_text(f".globl _start\n_start: {ASSEMBLY[target]}")
    program = tmp_path / "loop"
    toolchain.find(chosen.mtriple).run(["-nostdlib", "-static", str(source), "-o", str(program)])
    assert bare.counted(bare.emulator(chosen), [str(program)]) == 2003


def test_the_innermost_loop_with_the_most_products_is_modelled() -> None:
    loop = mca.inner_loop(LISTING)
    assert [line.split()[0] for line in loop] == ["ldr", "sdot", "sdot", "subs", "b.ne"]
    assert "//" not in loop[0]
    assert mca.products(loop) == 32


def test_a_small_product_is_straight_code_between_branches() -> None:
    body = ["smull\tv0.8h, v1.8b, v2.8b", "tbl\tv1.16b, {v2.16b}, v3.16b", "bic\tv4.16b, v5.16b, v6.16b"] * 3
    lines = ["smull\tv0.8h, v1.8b, v2.8b", "bl\tmemset", *body, "cbz\tw0, .L1", "ret"]
    assert mca.inner_loop("".join(f"\t{line}\n" for line in lines)) == [*body, "cbz\tw0, .L1"]
    with pytest.raises(IrnnError, match="no multiplication"):
        mca.inner_loop("\tmov\tw0, #3\n")


def test_a_chain_of_additions_takes_a_cycle_each() -> None:
    need_model()
    for core in mca.CORES.values():
        assert round(mca.cycles(["add x0, x0, #1"] * 7, core.target), 1) in (7.0, 7.1)


def test_an_old_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mca.shutil, "which", lambda name: "/usr/bin/llvm-mca" if name == "llvm-mca" else None)
    monkeypatch.setattr(mca, "tool_version", lambda tool: "14.0.6")
    with pytest.raises(IrnnError, match="no llvm-mca of LLVM 19 or newer: apt-get install"):
        mca.find_tool()


@pytest.mark.parametrize(("target", "bits", "products_an_instruction"), [("cortex_a76", 8, 16), ("armv7a", 4, 8)])
def test_the_static_command(target: str, bits: int, products_an_instruction: int, tmp_path: Path, capsys) -> None:
    need_counter(target)
    path = tmp_path / "static.json"
    arguments = ["bench", "--static", *LAYER, "--weight-bits", str(bits), f"target={target}", "--json", str(path)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "0 mismatches" in printed
    assert "no times" in printed
    result = json.loads(path.read_text())
    single = result["instructions_per_step"]
    assert set(single) == {"tvm_integer", "tvm_float"}
    # No fewer than the multiplications take, and not many times as much.
    assert WEIGHTS / products_an_instruction < single["tvm_integer"] < 10 * WEIGHTS / products_an_instruction
    assert single["tvm_integer"] < single["tvm_float"]
    assert result["sequence"]["instructions_per_step"]["tvm_integer"] < single["tvm_integer"]
    assert set(result["mca_cycles_per_step"]) == set(mca.CORES)
    assert result["mca_cycles_per_step"]["cortex-a53"] > result["mca_cycles_per_step"]["neoverse-n1"] > 0
    # An output and the last states, h and c, after 16 steps.
    assert result["mismatches"] == {"count": 0, "compared": 16 * 48 + 2 * 48}
    assert result["weight_bytes"] == {"tvm_integer": WEIGHTS * bits // 8, "tvm_float": WEIGHTS * 4}
    assert result["layer"]["weight_bits"] == bits
    assert int(result["versions"]["llvm-mca"].split(".")[0]) >= mca.OLDEST


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recognizer") / "program"
    irnn.convert(quantized_speech(encoder_size=40, decoder_size=48, embedding_size=40)).save(folder)
    return folder


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_program_of_several_inputs(recognizer: Path, part: str, tmp_path: Path) -> None:
    need_counter()
    arguments = ["bench", "--static", str(recognizer / part), "target=cortex_a76", "--steps", "8"]
    assert main([*arguments, "--json", str(tmp_path / "static.json")]) == 0
    result = json.loads((tmp_path / "static.json").read_text())
    golden = Golden.of(irnn.load(recognizer / part), random_inputs(irnn.load(recognizer / part), SIZES))
    compared = sum(array.size for array in (*golden.outputs, *golden.states.values()))
    assert result["mismatches"] == {"count": 0, "compared": compared}
    assert result["instructions_per_step"]["tvm_integer"] > 0
    assert all(cycles > 0 for cycles in result["mca_cycles_per_step"].values())


def test_a_wrong_integer_of_any_output_is_counted(recognizer: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    need_counter()
    as_it_is = bare.results

    def planted(program, arrays):
        outputs, states = as_it_is(program, arrays)
        changed = [array.copy() for array in outputs]
        for array in changed:
            array.flat[-1] ^= 1
        return changed, states

    monkeypatch.setattr(bare, "results", planted)
    assert main(["bench", "--static", str(recognizer / "decoder"), "target=cortex_a76", "--steps", "2"]) == 1
    outputs = len(irnn.load(recognizer / "decoder").outputs)
    assert f"'count': {outputs}" in capsys.readouterr().err


def test_how_often_a_step_needs_a_node(recognizer: Path) -> None:
    """The encoder halves the frames twice; a classifier's logits are made once in a sequence."""
    found = {rate for node, rate in mca.rates(irnn.load(recognizer / "encoder"), 8) if node.op == "linear"}
    assert found == {1, 1 / 2, 1 / 4}
    classifier = irnn.float_program(Classifier(ClassifierConfig(feature_size=5, classes=3, hidden_size=7)))
    linear = [rate for node, rate in mca.rates(classifier, 8) if node.op == "linear"]
    assert sorted(set(linear)) == [1 / 8, 1.0]
    assert linear[-1] == 1 / 8


def test_products_too_small_for_a_loop(tmp_path: Path) -> None:
    need_counter()
    need_model()
    arguments = ["--layer", "lstm", "--input", "3", "--hidden", "4", "--steps", "2", "target=cortex_a76"]
    path = tmp_path / "static.json"
    assert main(["bench", "--static", *arguments, "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    assert all(0 < cycles < 1000 for cycles in result["mca_cycles_per_step"].values())


def test_several_inputs_have_no_peer(recognizer: Path, capsys) -> None:
    need_counter()
    folder = str(recognizer / "decoder")
    arguments = ["bench", "--static", folder, "--float", folder, "--against", "litert", "target=cortex_a76"]
    assert main(arguments) == 1
    assert "the float one is wanted here" in capsys.readouterr().err
    floating = irnn.float_program(speech_model())["decoder"]
    with pytest.raises(IrnnError, match="compares layers of features"):
        emulated_peers.peer_instructions(floating, targets.find("cortex_a76"), ("litert_fp32",), None, 1, print)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["target=host"], "--static is for ARM targets, not host"),
        (["device=emulated"], "leave device= out"),
        (["target=armv7a", "--against", "onnxruntime"], "needs an aarch64 target under Linux, not armv7a"),
        (["target=cortex_a76", "--against", "torch"], "with --static allowed are onnxruntime, litert"),
        (["target=cortex_a76", "--against", "litert", "--peers-python", "nowhere/python"], "no such program"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys) -> None:
    need_counter()
    assert main(["bench", "--static", *LAYER, *arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def counted_peers(monkeypatch: pytest.MonkeyPatch, python: str) -> tuple[dict, dict, dict]:
    """The figures of ONNX Runtime with a guest that runs the model, and the guest's script, on this machine."""

    class Native:
        def __init__(self, cpu: str) -> None:
            assert cpu == "cortex-a76"

        def count(self, model: Path) -> float:
            subprocess.run([python, str(emulated_peers.SCRIPT), str(model), "3"], check=True, timeout=120)
            return 1000.0

        def version_of(self, key: str) -> dict[str, str]:
            return {key: "1"}

    monkeypatch.setattr(emulated_peers, "_Guest", Native)
    _, floating = layer_programs(Layer(5, 16))
    keys = ("onnxruntime_fp32", "onnxruntime_dynamic_int8")
    return emulated_peers.peer_instructions(floating, targets.find("cortex_a76"), keys, python, 2, lambda text: None)


def test_a_runtime_that_is_not_installed_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = tmp_path / "python"
    packages = Path(np.__file__).parents[1]
    (tmp_path / "packages").mkdir()
    for folder in packages.glob("numpy*"):
        (tmp_path / "packages" / folder.name).symlink_to(folder)
    launcher.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "packages"} exec {sys.executable} -S "$@"\n')
    launcher.chmod(0o755)
    found, absent, versions = counted_peers(monkeypatch, str(launcher))
    assert found == versions == {}
    assert set(absent) == {"onnxruntime_fp32", "onnxruntime_dynamic_int8"}
    assert all(reason.startswith("not installed (ModuleNotFoundError") for reason in absent.values())


@needs.peers("onnx", "onnxruntime", "numpy")
def test_the_models_of_other_runtimes_run_in_the_guests_script(monkeypatch: pytest.MonkeyPatch) -> None:
    found, absent, versions = counted_peers(monkeypatch, needs.PEERS_PYTHON)
    assert found == {"onnxruntime_fp32": 500.0, "onnxruntime_dynamic_int8": 500.0}
    assert absent == {}
    assert set(versions) == set(found)


@pytest.mark.slow
@needs.peers("onnx", "onnxruntime", "ai_edge_litert", "tensorflow", "tf_keras")
def test_other_runtimes_under_the_emulator(tmp_path: Path) -> None:
    """Fewer instructions than all of them at the size that the documentation quotes."""
    need_counter()
    path = tmp_path / "static.json"
    layer = ["--layer", "lstm", "--input", "650", "--hidden", "650"]
    against = ["--against", "onnxruntime,litert", "--peers-python", needs.PEERS_PYTHON]
    assert main(["bench", "--static", *layer, *against, "target=cortex_a76", "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    assert result["absent"] == {}
    figures = result["instructions_per_step"]
    limits = {"onnxruntime_dynamic_int8": 0.7, "litert_integer_only_int8": 0.25, "tvm_float": 0.35}
    for name, limit in limits.items():
        assert figures["tvm_integer"] <= limit * figures[name]
