"""Benchmarks end to end on tiny networks: correctness of what is compared and reported, no assertion about time."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import deploy_tvm
from deploy_tvm.__main__ import main
from deploy_tvm.bench import floor, rounds
from deploy_tvm.bench.bench import bench
from deploy_tvm.bench.measure import Settings
from deploy_tvm.bench.subject import made, weight_bytes
from deploy_tvm.bench.utterance import Utterance
from deploy_tvm.peers import lstm_stack, peers
from deploy_tvm.peers.peer_worker.peer_serving import block
from irnn.conversion import convert, float_program
from irnn.errors import IrnnError
from irnn.models.random_programs import Layer, layer_programs
from irnn.models.sequence import random_layer
from irnn.program import Node, Scan, Tensor
from tests import needs
from tests.random_programs import Spec, random_program
from tests.speech_models import quantized_speech, speech_model

SHORT = Settings(rounds=2, seconds=0.02)


def bench_layer(layer: Layer, steps: int) -> dict:
    """The benchmark of a layer with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        subject = made("layer", *layer_programs(layer), Path(folder), lambda text: None)
        return bench(subject, steps, Utterance(), SHORT)


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


# --- workers ---


def test_a_block_gives_at_least_one_call_and_counts_none_of_the_warm_up() -> None:
    calls = []
    times = block(lambda: calls.append(0), 0.01)
    assert len(times) >= 1
    assert len(calls) > len(times)


def test_a_worker_that_dies_gives_its_last_words(tmp_path: Path) -> None:
    command = python("import sys; print('no such instruction', file=sys.stderr); sys.exit(3)")
    with rounds.Worker(command, tmp_path / "log") as worker, pytest.raises(rounds.WorkerError, match="code 3: no such"):
        worker.start()


def test_a_worker_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "START_TIMEOUT", 0.2)
    with (
        rounds.Worker(python("import time; time.sleep(60)"), tmp_path / "log") as worker,
        pytest.raises(rounds.WorkerError, match="no answer within"),
    ):
        worker.start()


def test_a_worker_that_dies_between_rounds_spares_the_others(tmp_path: Path) -> None:
    dying = python("print('{}', flush=True); input(); print('{\"us\": [1.0]}', flush=True)")
    living = python("print('{}', flush=True)\nwhile input(): print('{\"us\": [2.0, 4.0]}', flush=True)")
    with rounds.Worker(dying, tmp_path / "a") as a, rounds.Worker(living, tmp_path / "b") as b:
        a.start(), b.start()
        times, reasons = rounds.interleave({"a": a, "b": b}, 3, 0.01)
    assert times == {"b": [[2.0, 4.0]] * 3}
    assert reasons["a"].startswith("its process ended")


def test_what_libraries_print_does_not_disturb_the_protocol(tmp_path: Path) -> None:
    script = """
        import os, numpy
        from deploy_tvm.peers.peer_worker.peer_serving import Runtime, serve
        def load():
            os.write(1, b"noise\\n"); print("more noise")
            return Runtime(lambda: [numpy.arange(3.0)], {"x": "1"}, "chosen")
        serve(load, None)
    """
    with rounds.Worker(python("if True:" + script), tmp_path / "log") as worker:
        assert worker.start() == {"ready": True, "versions": {"x": "1"}, "setting": "chosen"}
        assert worker.output().tolist() == [0.0, 1.0, 2.0]
        assert len(worker.time(0.005)) >= 1


def test_summary_is_the_median_of_the_rounds_medians() -> None:
    blocks = [[10.0, 20.0, 90.0], [40.0], [30.0, 32.0]]
    assert rounds.summary(blocks, 2) == {"median": 15.5, "min": 5.0, "p95": 38.75, "rounds": 3, "calls": 6}


# --- networks for the peers ---


@pytest.mark.parametrize("bidirectional", [False, True])
def test_lstm_layers_are_recognized_with_their_weights(bidirectional: bool) -> None:
    model = random_layer(5, 7, num_layers=2, bidirectional=bidirectional)
    stack = lstm_stack.recognize(float_program(model))
    cells = [cell for layer in model.lstm.layers for cell in layer.cells.values()]
    found = [cell for layer in stack.layers for cell in layer]
    assert len(stack.layers) == 2
    assert len(found) == len(cells)
    for cell, (w_x, w_h, bias) in zip(cells, ((f.w_x, f.w_h, f.bias) for f in found), strict=True):
        assert np.array_equal(w_x, cell.w_x.weight.detach())
        assert np.array_equal(w_h, cell.w_h.weight.detach())
        assert np.allclose(bias, cell.w_x.bias.detach(), atol=1e-7)


def test_gates_are_found_by_their_part_in_the_cell_not_by_their_place() -> None:
    program = random_program(Spec(kind="float", vocabulary=None, logits=None))
    expected = lstm_stack.recognize(program).layers[0][0]
    order = [2, 0, 3, 1]  # the quarter that each gate moves to
    hidden = program.states["layer0.forward.h"].shape[0]

    def moved(node: Node) -> Node:
        if node.op != "slice":
            return node
        start = order[node.attributes["start"] // hidden] * hidden
        return replace(node, attributes={"start": start, "stop": start + hidden})

    tensors = {
        name: Tensor(np.concatenate([np.split(t.data, 4)[order.index(k)] for k in range(4)]), 32)
        for name, t in program.tensors.items()
    }
    nodes = [replace(n, body=tuple(map(moved, n.body))) if isinstance(n, Scan) else n for n in program.nodes]
    found = lstm_stack.recognize(replace(program, nodes=tuple(nodes), tensors=tensors)).layers[0][0]
    assert np.array_equal(found.w_x, expected.w_x)
    assert np.array_equal(found.w_h, expected.w_h)
    assert np.array_equal(found.bias, expected.bias)


def test_normalized_layers_are_no_plain_lstm(tmp_path: Path) -> None:
    program = random_program(Spec(kind="float", norm="mad"))
    assert lstm_stack.recognize(program) is None
    with pytest.raises(IrnnError, match="float program"):
        lstm_stack.save_job(random_program(Spec()), np.zeros((1, 3), np.int64), tmp_path)


# --- the floor ---


def test_the_floor_counts_packed_weights_inside_and_outside_of_the_loop() -> None:
    program = random_program(Spec(hidden=8, input_size=6, vocabulary=None, logits=None, weight_bits=4))
    assert weight_bytes(program) == (32 * 6 + 32 * 8) // 2
    assert floor.work(program, 1) == floor.Work((32 * 6 + 32 * 8) // 2, 0, 0)
    assert floor.work(program, 10) == floor.Work(32 * 8 // 2, 32 * 6 // 2, 10 * 32 * 6)


def test_the_floor_is_reading_plus_the_longer_of_the_two_limits_of_the_product() -> None:
    needed = floor.Work(1000, 3000, 80)
    compute_bound = floor.combine(needed, 10, 5.0, 1.0)
    assert compute_bound["us_per_step"] == 5.0 + 8.0
    read_bound = floor.combine(needed, 10, 5.0, 0.1)
    assert read_bound["us_per_step"] == 5.0 + 1.5
    assert floor.combine(needed, 10, 5.0, None)["us_per_step"] is None


@pytest.mark.parametrize(
    ("shown", "feature"),
    [
        ({"avx2", "avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512vbmi"}, "avx512vnni"),
        ({"avx2", "avx512f", "avx512bw", "avx512vl"}, "avx2"),
        ({"avx2"}, "avx2"),
        (set(), "sse2"),
    ],
    ids=["AVX512-VNNI", "AVX512", "AVX2", "any x86-64"],
)
def test_the_floor_of_every_processor_is_measured(
    shown: set[str], feature: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the operating system shows of this CPU: the whole benchmark, its floor included."""
    needs.tvm()
    from deploy_tvm import targets

    needs.features(sorted(shown - targets.cpu_flags()))
    monkeypatch.setattr(targets, "cpu_flags", lambda: frozenset(shown))
    assert floor.host_product().feature == feature
    measured = bench_layer(Layer(9, 16), 3)
    assert measured["mismatches"]["count"] == 0
    limit = measured["floor"]
    assert limit["bytes_every_step"] == 4 * 16 * 16
    assert limit["us_per_step"] >= limit["read_us"] + limit["arithmetic_us"] - 0.01  # each is rounded to 0.01
    assert limit["arithmetic_us"] >= 0


@pytest.mark.parametrize(
    ("feature", "instruction"),
    [("avx512vnni", "vpdpbusd"), ("avxvnni", "vpdpbusd"), ("avx2", "vpmaddubsw"), ("sse2", "pmaddwd")],
)
def test_the_multiplications_that_are_timed_stay_in_the_loop(feature: str, instruction: str) -> None:
    """A compiler may move what does not change out of a loop, and a limit that is then measured is none."""
    needs.tvm()
    import tvm

    from deploy_tvm import targets

    host = targets.find("host").resolve()
    needs.features(sorted({feature} - host.features() - {"sse2"}))
    (product,) = (p for p in floor.PRODUCTS if p.feature == feature)
    module, products = floor.peak_module(product, host.tvm())
    assert products == floor.PEAK_ROUNDS * floor.CHAINS * product.products
    assert module.mod.inspect_source("asm").count(instruction) >= floor.CHAINS
    operands = [tvm.runtime.tensor(array) for array in floor.peak_operands(product)]
    module["peak"](*operands)
    if product.accumulates:  # each chain adds its own start, and four products of ones in every round
        expected = sum(range(floor.CHAINS)) + floor.CHAINS * 4 * floor.PEAK_ROUNDS
        assert operands[2].numpy().tolist() == [expected] * product.accumulator[1]


# --- whole benchmarks ---


def test_a_layer_benchmark_is_json_without_mismatches() -> None:
    needs.tvm()
    layer = Layer(9, 16, layers=2, bidirectional=True, norm="mad", weight_bits=4)
    result = json.loads(json.dumps(bench_layer(layer, 3)))
    assert result["mismatches"]["count"] == 0
    assert result["mismatches"]["compared"] > 64 * 32
    assert set(result["us_per_step"]) == {"tvm_integer", "tvm_float"}
    assert all(value > 0 for value in result["us_per_step"].values())
    assert all(spread["rounds"] == 2 for spread in result["spread"].values())
    assert result["weight_bytes"]["float"] == 8 * result["weight_bytes"]["integer"]
    assert result["machine"]["cpu"]
    assert result["versions"]["numpy"] == np.__version__


def test_a_recognizer_benchmark_is_json_with_real_time_factors(tmp_path: Path) -> None:
    needs.tvm()
    convert(quantized_speech()).save(tmp_path / "program")
    float_program(speech_model()).save(tmp_path / "float_program")
    sizes = ["--frames", "50", "--units", "3", "--rounds", "2", "--seconds", "0.1"]
    assert main(["bench", str(tmp_path / "program"), *sizes, "--json", str(tmp_path / "result.json")]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["mismatches"] == {"count": 0, "compared": result["mismatches"]["compared"]}
    assert result["mismatches"]["compared"] > 12 * (16 + 7)
    assert (result["seconds_of_speech"], result["places"]) == (0.5, 13)
    for name in ("tvm_integer", "tvm_float"):
        us = result["encoder"]["us_per_utterance"][name] + 3 * result["decoder"]["us_per_unit"][name]
        assert result["real_time_factor"][name] == pytest.approx(us * 1e-6 / 0.5, abs=1e-6)
    factors = result["real_time_factor"]
    assert result["speed_up"]["tvm_float"] == pytest.approx(factors["tvm_float"] / factors["tvm_integer"], rel=0.05)


def test_a_wrong_recognizer_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs.tvm()
    float_program(speech_model()).save(tmp_path / "float")
    for arguments, message in (
        (["--recognizer", "parrot"], "unknown; allowed are speech_"),
        (["--recognizer", "speech_small", str(tmp_path / "float")], "not both"),
        ([str(tmp_path / "float")], "programs of kind 'float'; integer ones are wanted"),
        ([str(tmp_path / "float"), "--units", "0"], "--units 0: must lie in 1 to"),
        ([str(tmp_path / "float"), "--hidden", "3"], "--hidden belongs to --layer"),
    ):
        assert main(["bench", *arguments]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("key", ["onnxruntime_fp32", "openvino_fp32", "litert_fp32", "torch_fp32"])
def test_a_runtime_that_is_not_installed_has_a_reason(key: str, tmp_path: Path) -> None:
    # An environment with NumPy alone: its folders are linked into an otherwise empty one.
    packages = tmp_path / "packages"
    packages.mkdir()
    for folder in Path(np.__file__).parents[1].glob("numpy*"):
        (packages / folder.name).symlink_to(folder)
    launcher = tmp_path / "python"
    launcher.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} -S "$@"\n')
    launcher.chmod(0o755)
    lstm_stack.save_job(float_program(random_layer(3, 4)), np.zeros((2, 1, 3), np.float32), tmp_path)
    command = peers.command(key, str(launcher), tmp_path, None)
    with rounds.Worker(command, tmp_path / "log") as worker, pytest.raises(rounds.WorkerError) as error:
        worker.start()
    assert error.value.absent
    assert peers.absent_reason(key, str(error.value)).startswith("not installed (ModuleNotFoundError: No module named")


@needs.peers("onnx", "onnxruntime", "numpy")
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize(
    "layer",
    [Layer(5, 16), Layer(5, 16, layers=2, bidirectional=True), Layer(5, 16, norm="mad"),
     Layer(5, 16, norm="layer", bidirectional=True)],
    ids=["lstm", "bidirectional", "mad", "layer-norm"],
)  # fmt: skip
def test_the_onnx_model_equals_the_float_build(layer: Layer, steps: int, tmp_path: Path) -> None:
    needs.tvm()
    _, program = layer_programs(layer)
    x = np.random.default_rng(0).standard_normal((1, steps, 5)).astype(np.float32)
    expected, _ = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact")).run(x)
    lstm_stack.save_job(program, np.ascontiguousarray(x.transpose(1, 0, 2)), tmp_path)
    command = peers.command("onnxruntime_fp32", needs.PEERS_PYTHON, tmp_path, None)
    with rounds.Worker(command, tmp_path / "log") as worker:
        worker.start()
        assert np.abs(worker.output().ravel() - expected.ravel()).max() < 1e-5


@needs.peers("onnx", "onnxruntime", "numpy")
@pytest.mark.parametrize("frames", [1, 37])
def test_the_onnx_model_of_a_recognizer_equals_the_float_build(frames: int, tmp_path: Path) -> None:
    needs.tvm()
    programs = float_program(speech_model(conv_channels=(4, 6, 5), conv_strides=(1, 2, 1)))
    runners = deploy_tvm.load(deploy_tvm.build(programs, tmp_path / "artefact"))
    x = np.random.default_rng(0).standard_normal((1, frames, 12)).astype(np.float32)
    inputs = {"features": x, "lengths": np.array([frames], np.int32)}
    memory, _ = runners["encoder"].run_all(inputs)
    tokens = np.array([[7]], np.int32)
    given = {
        "encoder": inputs,
        "decoder": dict(zip(("tokens", "memory", "keys", "lengths"), (tokens, *memory), strict=True)),
    }
    for name, part in given.items():
        expected, _ = runners[name].run(part)
        folder = tmp_path / name
        folder.mkdir()
        lstm_stack.save_job(programs[name], part, folder)
        with rounds.Worker(
            peers.command("onnxruntime_fp32", needs.PEERS_PYTHON, folder, None), folder / "log"
        ) as worker:
            worker.start()
            assert np.abs(worker.output().ravel() - expected.ravel()).max() < 1e-5
