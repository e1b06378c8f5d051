"""Recognizers on devices: the integers of encoder and decoder, what is printed about it, what is noticed."""

import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

import deploy_tvm
import irnn
from deploy_tvm import targets
from deploy_tvm.__main__ import main
from deploy_tvm.bench.measure import INTEGER
from deploy_tvm.bench.subject import Subject
from deploy_tvm.remote import emulated
from deploy_tvm.remote.bench import bench_device, figures, golden_runs
from deploy_tvm.remote.board import Found
from deploy_tvm.remote.device import Device
from deploy_tvm.remote.report import report
from deploy_tvm.remote.server import serve
from deploy_tvm.remote.session import DeviceError
from deploy_tvm.remote.workload import Lengths
from irnn.program import Program
from irnn.program.sets import ProgramSet
from tests.support import models
from tests.support.boards import need
from tests.support.speech_models import VOCABULARY, quantized_speech, speech_model

# More units than one call of the golden sequence takes; frames that the sub-sampling by 4 does not divide.
FRAMES, UNITS, PLACES = 23, 20, 6
LENGTHS = Lengths(frames=FRAMES, units=UNITS)


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recognizer")
    irnn.convert(quantized_speech()).save(folder / "run" / "program")
    irnn.float_program(speech_model()).save(folder / "run" / "float_program")
    irnn.convert(quantized_speech()).save(folder / "alone" / "program")
    irnn.convert(models.quantized_layer()).save(folder / "layer")
    return folder


@pytest.fixture
def board():
    with server() as (device, _):
        yield device


@contextmanager
def server():
    """(device, process) of a server on this machine."""
    need("host", cxx=True)
    with serve.running(serve.server_command(None)) as (host, port, process):
        yield Device("rpc", host=host, port=port, timeout=10, number=1, repeat=3, warmup=0), process


def measure(folder, device, target="host", lengths=LENGTHS, progress=lambda text: None):
    return bench_device(folder, None, targets.find(target), device, lengths, progress)


def compared(folder) -> dict[str, int]:
    """How many integers there are: memory, keys, lengths; logits, attention weights; the states of both."""
    sizes = irnn.load(folder)
    states = {part: sum(int(np.prod(state.shape)) for state in sizes[part].states.values()) for part in sizes}
    memory, keys = (int(np.prod(sizes["decoder"].inputs[name].shape)) for name in ("memory", "keys"))
    return {
        "encoder": PLACES * (memory + keys) + 1 + states["encoder"],
        "decoder": UNITS * (VOCABULARY + PLACES) + states["decoder"],
    }


def test_a_device_computes_the_same_integers(programs, board):
    result = measure(programs / "run" / "program", board)
    assert (result["kind"], result["frames"], result["units"]) == ("device_recognizer", FRAMES, UNITS)
    entry, expected = result["targets"]["host"], compared(programs / "run" / "program")
    for part in ("encoder", "decoder"):
        assert entry[part]["mismatches"] == {"count": 0, "compared": expected[part]}
    assert result["mismatches"] == entry["mismatches"] == {"count": 0, "compared": sum(expected.values())}
    assert entry["emulated"] is result["device"]["emulated"] is False
    for program in (entry, entry["float"]):
        us = program["encoder"]["us_per_utterance"] + UNITS * program["decoder"]["us_per_unit"]
        assert program["real_time_factor"] == pytest.approx(us * 1e-6 / 0.23, abs=2e-6)
        assert program["bytes"] == program["encoder"]["bytes"] + program["decoder"]["bytes"] > 20_000
        assert program["decoder"]["memory_peak"].endswith("kB")
    assert entry["speed_up"] == pytest.approx(entry["float"]["real_time_factor"] / entry["real_time_factor"], rel=0.05)


def test_the_command_prints_a_table_and_writes_json(programs, board, tmp_path, capsys, monkeypatch):
    """A set of artefacts for the target is taken as it is."""
    built = deploy_tvm.build(irnn.load(programs / "alone" / "program"), tmp_path / "set", target="host")
    monkeypatch.setattr(deploy_tvm, "build", None)
    arguments = ["bench", str(built), "device=rpc", f"device.host={board.host}", f"device.port={board.port}"]
    arguments += ["target=host", "device.repeat=2", "--frames", str(FRAMES), "--units", str(UNITS)]
    assert main([*arguments, "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    assert f"host on {board.name}, 0.23 s of speech, {UNITS} units" in printed
    assert "integer encoder" in printed
    assert "float" not in printed.replace("float / this", "")
    total = sum(compared(programs / "alone" / "program").values())
    assert f"0 mismatches with the interpreter in {total} integers ({FRAMES} frames, {UNITS} units)" in printed
    entry = json.loads((tmp_path / "out.json").read_text())["targets"]["host"]
    assert f"{entry['real_time_factor']:.5f}" in printed
    assert "float" not in entry


def test_a_library_that_computes_something_else_is_noticed(programs, board, capsys, monkeypatch):
    """The decoder's library is built of other weights than the interpreter has."""
    as_it_is = deploy_tvm.build

    def build(program: Program, folder, target):
        tensors = dict(program.tensors)
        if "tokens" in program.inputs:
            name = max(tensors, key=lambda name: tensors[name].data.size)
            tensors[name] = replace(tensors[name], data=-tensors[name].data)
        return as_it_is(replace(program, tensors=tensors), folder, target)

    monkeypatch.setattr(deploy_tvm, "build", build)
    arguments = ["bench", str(programs / "alone" / "program"), "device=rpc", f"device.host={board.host}"]
    assert main([*arguments, f"device.port={board.port}", "target=host", "device.repeat=2", "--frames", "23"]) == 1
    assert "the built program differs from the interpreter" in capsys.readouterr().err


@pytest.mark.parametrize(("part", "arrays"), [("encoder", 11), ("decoder", 7)])
def test_every_single_wrong_integer_is_counted(programs, part, arrays):
    """A device that gives the interpreter's integers but one, in one array of one part."""
    parts = dict(irnn.load(programs / "alone" / "program"))
    workload, subject = LENGTHS.workload("here", parts), Subject("here", parts, None, {})
    goldens = golden_runs(workload, subject, lambda text: None)
    other = {"encoder": "decoder", "decoder": "encoder"}[part]
    assert len(parts[part].outputs) + len(parts[part].states) == arrays
    for index in range(arrays):
        runs = {}
        for name, golden in goldens.items():
            results = [array.copy() for array in (*golden.outputs, *golden.states.values())]
            if name == part:
                results[index].flat[-1] ^= 1
            count = len(golden.outputs)
            differing = golden.compare("the device", results[:count], results[count:])
            runs[name] = Found(1.0, 1.0, 1, None, True, differing)
        entry = figures(workload, subject, {INTEGER: runs})
        assert entry["mismatches"]["count"] == entry[part]["mismatches"]["count"] == 1, index
        # The decoder attends to the interpreter's memory: a wrong encoder is not blamed on it.
        assert entry[other]["mismatches"]["count"] == 0
    (memory, *_), attended = goldens["encoder"].outputs, goldens["decoder"].inputs["memory"]
    np.testing.assert_array_equal(memory, attended)


def test_a_library_for_another_machine(programs, board):
    need("aarch64")
    with pytest.raises(
        DeviceError, match="is x86_64, the library was built for aarch64: choose another target"
    ) as caught:
        measure(programs / "alone" / "program", board, "aarch64")
    assert "\n" not in str(caught.value)


def test_a_server_killed_in_the_middle_and_started_again(programs):
    folder = programs / "alone" / "program"
    with server() as (device, process):

        def progress(stage):
            if "integer decoder: timing, 1 of" in stage:
                process.kill()

        slow = replace(device, cooldown=0.5)
        with pytest.raises(DeviceError, match=r"(failed|broke) while timing.*connection refused") as caught:
            measure(folder, slow, lengths=Lengths(frames=3, units=1), progress=progress)
        assert "\n" not in str(caught.value)
    with server() as (device, _):
        assert measure(folder, device)["mismatches"]["count"] == 0


@pytest.mark.parametrize(
    ("folder", "arguments", "message"),
    [
        ("run/program", ["--tokens", "9"], "holds a recognizer, whose length is --frames and --units"),
        ("run/program", ["--units", "0"], "--units 0: must lie in 1 to"),
        ("run/program", ["--recognizer", "speech_small"], "--recognizer is for this machine"),
        ("run/float_program", [], "holds programs of kind 'float'; integer ones are wanted"),
        ("layer", ["--frames", "9"], "layer holds no language model, whose length is --steps"),
        ("layer", ["--steps", "0"], "--steps 0: must lie in 1 to"),
        ("run/program", ["device.cpu=cortex-a7", "target=aarch64"], "does not run on an emulated cortex-a7"),
    ],
)
def test_what_does_not_fit_is_one_line(programs, folder, arguments, message, capsys):
    need("aarch64", emulated.QEMU, cxx=True)
    assert main(["bench", str(programs / folder), "device=emulated", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_what_takes_a_single_program_says_so(programs, tmp_path, capsys):
    program = programs / "alone" / "program"
    for folder in (program, deploy_tvm.build(irnn.load(program), tmp_path / "set")):
        assert main(["bench", "--static", str(folder), "target=cortex_a53"]) == 1
        error = capsys.readouterr().err
        assert "belong together, as a recognizer's do; a single one is wanted here" in error
        assert error.count("\n") == 1


def test_a_set_that_is_no_recognizers_is_measured_part_by_part(programs, board, tmp_path):
    """The encoder is told its length, so a call makes all steps; the other one takes a step a call."""
    sizes = {"encoder": irnn.load(programs / "run" / "program")["encoder"], "layer": irnn.load(programs / "layer")}
    ProgramSet(sizes).save(tmp_path / "two")
    result = measure(tmp_path / "two", board, lengths=Lengths(steps=12))
    assert (result["kind"], result["steps"]) == ("device_set", 12)
    assert result["timed"] == {"encoder": "step", "layer": "step"}
    entry = result["targets"]["host"]
    assert entry["mismatches"]["compared"] == sum(entry[part]["mismatches"]["compared"] for part in sizes)
    assert entry["mismatches"]["count"] == 0
    assert all(entry[part]["us_per_step"] > 0 for part in sizes)
    assert "real_time_factor" not in entry
    console = Console(width=150)
    with console.capture() as captured:
        console.print(report(result))
    assert "integer encoder" in captured.get()
    assert "(12 steps)" in captured.get()


def test_a_32_bit_board_runs_both_bundles(programs, tmp_path, capsys):
    need("armv7a", emulated.QEMU32)
    arguments = ["bench", str(programs / "run" / "program"), "device=emulated", "target=armv7a", "device.repeat=1"]
    arguments += ["--frames", str(FRAMES), "--units", str(UNITS), "--json", str(tmp_path / "out.json")]
    assert main([*arguments, "device.number=2"]) == 0
    printed = capsys.readouterr().out
    assert "armv7a on emulated cortex-a7" in printed
    assert "the bundle's own runner" in printed
    entry = json.loads((tmp_path / "out.json").read_text())["targets"]["armv7a"]
    expected = compared(programs / "run" / "program")
    for part, count in expected.items():
        assert entry[part]["mismatches"] == {"count": 0, "compared": count}
        assert entry[part]["bytes"] > 10_000
    assert entry["encoder"]["us_per_utterance"] > entry["decoder"]["us_per_unit"] > 0
    assert entry["real_time_factor"] is None
    assert "float" not in entry


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cortex_a76", "cortex_a53", "aarch64"])
def test_emulated_boards_compute_the_same_integers(programs, target):
    need(target, emulated.QEMU, cxx=True)
    device = Device("emulated", cpu=emulated.cpu_of(targets.find(target).mcpu), number=1, repeat=2, warmup=0)
    result = measure(programs / "run" / "program", device, target)
    entry = result["targets"][target]
    assert entry["mismatches"] == {"count": 0, "compared": sum(compared(programs / "run" / "program").values())}
    assert entry["emulated"] is entry["float"]["emulated"] is True
    # A rate, a ratio or memory under emulation would be taken for a device's.
    assert entry["real_time_factor"] is entry["float"]["real_time_factor"] is None
    assert entry["decoder"]["memory_peak"] is None
    assert "speed_up" not in entry


@pytest.mark.slow
def test_dot_products_on_a_core_without_them(programs):
    need("cortex_a76", emulated.QEMU, cxx=True)
    device = Device("emulated", cpu="cortex-a53", number=1, repeat=2, warmup=0)
    message = r"signal 4 \(Illegal instruction\) \(built for another CPU\? choose another target=\)"
    with pytest.raises(DeviceError, match=message):
        measure(programs / "alone" / "program", device, "cortex_a76")
