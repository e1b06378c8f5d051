"""Benchmarks end to end on tiny networks: correctness of what is compared and reported, no assertion about time."""

from __future__ import annotations

import io
import json
import sys
import tempfile
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

from deploy_tvm import targets
from deploy_tvm.__main__ import main
from deploy_tvm.bench import floor, measure, rounds
from deploy_tvm.bench.bench import bench
from deploy_tvm.bench.measure import Settings
from deploy_tvm.bench.report import report
from deploy_tvm.bench.subject import made, weight_bytes
from deploy_tvm.bench.utterance import Utterance
from deploy_tvm.codegen.kernels import X86_SETS, choose
from deploy_tvm.peers.peer_worker.peer_serving import block
from deploy_tvm.targets.kernel_sets import host
from irnn.conversion import convert, float_program
from irnn.errors import IrnnError
from irnn.random_programs import Layer, layer_programs
from tests.support import needs
from tests.support.random_programs import Spec, random_program
from tests.support.speech_models import quantized_speech, speech_model

SHORT = Settings(rounds=2, seconds=0.02)


# By one worker: tests that compare results with each other share them.
MEASURED_ONCE = pytest.mark.xdist_group("measured layers")


@cache
def bench_layer(layer: Layer, steps: int, batch: int = 1) -> dict:
    """The benchmark of a layer with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        subject = made("layer", *layer_programs(layer), Path(folder), lambda text: None)
        return bench(subject, steps, Utterance(), replace(SHORT, batch=batch))


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


# --- the floor ---


def test_the_floor_counts_packed_weights_inside_and_outside_of_the_loop() -> None:
    program = random_program(Spec(hidden=8, input_size=6, vocabulary=None, logits=None, weight_bits=4))
    inside, outside = 32 * 8, 32 * 6
    assert weight_bytes(program) == (inside + outside) // 2
    assert floor.work(program, 1) == floor.Work(1, 1, (inside + outside) // 2, 0, inside + outside, 0)
    assert floor.work(program, 10) == floor.Work(10, 1, inside // 2, outside // 2, inside, 10 * outside)


def test_codes_found_at_run_time_are_counted_and_not_multiplied() -> None:
    program, _ = layer_programs(Layer(32, 32, code="alternating", weight_bits=2, codes=2))
    read = 2 * 128 * 32 // 8
    assert floor.work(program, 10) == floor.Work(10, 1, read, read, 0, 0)
    assert Layer(32, 32).weight_bits == 8
    assert Layer(32, 32, code="ternary").weight_bits == 2
    program, _ = layer_programs(Layer(32, 32, code="ternary", codes=2))
    assert floor.work(program, 1).products_every_step == 2 * 128 * 32


def test_a_batch_shares_the_reading_and_not_the_multiplications() -> None:
    program = random_program(Spec(hidden=8, input_size=6, vocabulary=None, logits=None))
    one, three = floor.work(program, 10), floor.work(program, 10, 3)
    assert (three.bytes_every_step, three.bytes_once) == (one.bytes_every_step, one.bytes_once)
    assert (three.products_every_step, three.products_once) == (3 * one.products_every_step, 3 * one.products_once)
    bytes_a_call = 32 * 8 * 10 + 32 * 6
    assert three.bytes_a_second(2.0) == pytest.approx(bytes_a_call / (2e-6 * 10 * 3))


def test_the_floor_counts_what_a_unit_for_many_vectors_takes() -> None:
    kernels = choose(X86_SETS["amx"])

    def tiled(steps: int, batch: int, **spec: int) -> list[bool]:
        """Whether all of every step's products, and of those of all steps, go to the unit; else none do."""
        program = random_program(Spec(hidden=64, input_size=16, vocabulary=None, logits=None, **spec))
        found = floor.work(program, steps, batch, kernels)
        assert found.tiled_every_step in (0, found.products_every_step)
        assert found.tiled_once in (0, found.products_once)
        return [found.tiled_every_step > 0, found.tiled_once > 0]

    assert tiled(1, 1) == [False, False]
    assert tiled(10, 1) == [False, True]
    assert tiled(10, 4) == [True, True]
    assert tiled(3, 5, weight_bits=4) == [False, False]  # unpacked for 16 vectors or more
    assert tiled(4, 4, weight_bits=4) == [False, True]
    assert floor.work(random_program(Spec(hidden=8)), 10, 32).tiled_once == 0  # a CPU without such a unit


def test_the_floor_is_the_longer_of_the_two_limits_of_each_product() -> None:
    """Numbers chosen by hand: reading takes 5 us a step and 15 us once a call of 10 steps."""

    def limit(batch: int, us_per_product: float) -> float:
        needed = floor.Work(10, batch, 1000, 3000, 4 * batch, 80 * batch)
        found = floor.combine(needed, 100.0, 5.0, us_per_product)
        assert found["share"] == round(found["us_per_step"] / 100, 4)
        return found["us_per_step"]

    assert limit(1, 0.1) == 5.0 + 1.5  # both are read
    assert limit(1, 1.0) == 5.0 + 8.0  # the input-side product is multiplied
    assert limit(1, 2.0) == 8.0 + 16.0  # both are
    assert limit(4, 0.1) == (5.0 + 3.2) / 4  # four times the multiplications, one reading, a quarter each
    assert limit(4, 1.0) == (16.0 + 32.0) / 4
    tiled = [
        floor.combine(floor.Work(10, 1, 1000, 3000, 4, 80, *n), 100.0, 5.0, 1.0, 0.5)
        for n in ((0, 0), (0, 80), (4, 40))
    ]
    assert [(found["multiply_us"], found["multiply_once_us"]) for found in tiled] == [(4, 8), (4, 4), (2, 6)]
    without = floor.combine(floor.Work(10, 1, 1000, 3000, 4, 80), 100.0, 5.0, None)
    assert (without["us_per_step"], without["share"]) == (None, None)


def test_a_program_that_dies_while_it_is_timed_is_one_line(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill_first(workers: dict[str, rounds.Worker], *more: object) -> object:
        workers["tvm_integer"]._process.kill()
        return rounds.interleave(workers, *more)

    monkeypatch.setattr(measure, "interleave", kill_first)
    sizes = ["--input", "9", "--hidden", "16", "--steps", "3", "--rounds", "2", "--seconds", "0.02"]
    assert main(["bench", "--layer", "lstm", *sizes]) == 1
    assert "the built program cannot be timed" in capsys.readouterr().err


# One of each register width in each run of the tests.
LATER = ("avxvnni", "portable")
SETS = pytest.mark.parametrize(
    "kernels", [pytest.param(k, marks=pytest.mark.slow) if k in LATER else k for k in X86_SETS]
)


@SETS
def test_every_set_of_kernels_is_measured_with_its_floor(kernels: str, tmp_path: Path) -> None:
    """The whole command, where this CPU can execute them."""
    needs.features(sorted(X86_SETS[kernels] - targets.cpu_flags()))
    path = tmp_path / "result.json"
    sizes = ["--input", "9", "--hidden", "16", "--steps", "3", "--rounds", "2", "--seconds", "0.02"]
    assert main(["bench", "--layer", "lstm", *sizes, "--kernels", kernels, "--json", str(path)]) == 0
    measured = json.loads(path.read_text())
    assert measured["kernels"] == kernels
    assert measured["mismatches"]["count"] == 0
    limit, ours = measured["floor"], measured["us_per_step"]["tvm_integer"]
    assert limit["bytes_every_step"] == 4 * 16 * 16
    assert limit["multiply_us"] >= 0
    parts = max(limit["read_us"], limit["multiply_us"]) + max(limit["read_once_us"], limit["multiply_once_us"])
    assert limit["us_per_step"] == pytest.approx(parts, abs=0.02)  # each is rounded to 0.01
    assert limit["share"] == pytest.approx(limit["us_per_step"] / ours, abs=0.01 / ours)
    bytes_a_step = 4 * 16 * 16 + 4 * 16 * 9 / 3
    assert measured["gb_per_s"] == pytest.approx(bytes_a_step / ours / 1000, abs=0.01)
    assert measured["cpu"] == measured["machine"]["cpu"]
    assert measured["batch"] == 1


@pytest.mark.parametrize(
    ("kernels", "instruction"),
    [
        ("amx", "vpdpbusd"),
        ("avx512vnni", "vpdpbusd"),
        ("avxvnni", "vpdpbusd"),
        ("avx2", "vpmaddubsw"),
        ("portable", "pmaddwd"),
    ],
)
def test_the_multiplications_that_are_timed_stay_in_the_loop(kernels: str, instruction: str) -> None:
    """A compiler may move what does not change out of a loop, and a limit that is then measured is none."""
    import tvm

    needs.features(sorted(X86_SETS[kernels] - targets.cpu_flags()))
    product = floor.PRODUCTS[kernels]
    module, products = floor.peak_module(product, host(kernels).tvm())
    assert products == floor.PEAK_ROUNDS * floor.CHAINS * product.products
    assert module.mod.inspect_source("asm").count(instruction) >= floor.CHAINS
    operands = [tvm.runtime.tensor(array) for array in floor.peak_operands(product)]
    module["peak"](*operands)
    if product.accumulates:  # each chain adds its own start, and four products of ones in every round
        expected = sum(range(floor.CHAINS)) + floor.CHAINS * 4 * floor.PEAK_ROUNDS
        assert operands[2].numpy().tolist() == [expected] * product.accumulator[1]


def test_a_product_alone_is_measured() -> None:
    measured = bench_layer(Layer(9, 36, cell="linear", weight_bits=4), 20)
    assert measured["mismatches"]["count"] == 0
    assert measured["mismatches"]["compared"] >= 20 * 36
    assert measured["us_per_step"]["tvm_float"] > 0


@pytest.mark.parametrize("more", [{"layers": 2}, {"norm": "mad"}, {"bidirectional": True}, {"codes": 2}], ids=str)
def test_a_product_alone_has_nothing_of_a_stack(more: dict) -> None:
    ((name, value),) = more.items()
    with pytest.raises(IrnnError, match=rf"^{name}={value}: a product alone \(linear\) has none; leave it out$"):
        Layer(9, 36, cell="linear", **more)


# --- batches ---


# Each starts eight processes: a step and a sequence, one cell each.
@MEASURED_ONCE
@pytest.mark.parametrize(("cell", "steps"), [("lstm", 5), pytest.param("gru", 1, marks=pytest.mark.slow)])
def test_a_batch_is_compared_and_timed_by_its_sequences(cell: str, steps: int) -> None:
    one, several = (bench_layer(Layer(9, 16, cell=cell), steps, batch) for batch in (1, 7))
    assert keys(several) == keys(one)
    assert several["batch"] == 7
    assert several["mismatches"]["count"] == 0
    # 64 steps in all, at least: outputs by sequences and by steps, and as many states as the cell has.
    compared = 7 * max(steps, 10)
    assert several["mismatches"]["compared"] == 2 * 16 * (compared + 7 * {"lstm": 2, "gru": 1}[cell])
    assert several["weight_bytes"] == one["weight_bytes"]
    assert several["floor"]["bytes_every_step"] == one["floor"]["bytes_every_step"]
    text = printed(several | {"kind": "layer", "layer": asdict(Layer(9, 16, cell=cell))})
    assert ", batch 7: a sequence's share" in text
    assert f"{several['gb_per_s']:.1f} GB/s of weights" in text
    assert f"integer: {several['floor']['share']:.0%} of the floor" in text


def printed(result: dict) -> str:
    """The report of a result, as it is shown."""
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report(result))
    return console.export_text()


def test_a_call_of_a_batch_is_divided_by_its_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is timed takes 60 us: of 3 steps and 5 sequences that is 4 us."""
    blocks = [[60.0]] * 2
    monkeypatch.setattr(measure, "interleave", lambda workers, *rest: ({name: blocks for name in workers}, {}))
    result = bench_layer(Layer(9, 16), 3, 5)
    assert result["us_per_step"] == {"tvm_integer": 4.0, "tvm_float": 4.0}
    assert result["gb_per_s"] == round((3 * 4 * 16 * 16 + 4 * 16 * 9) / 60 / 1000, 2)


@pytest.mark.slow
def test_a_language_model_is_measured_in_batches(tmp_path: Path) -> None:
    random_program(Spec()).save(tmp_path / "program")
    short = ["--rounds", "2", "--seconds", "0.02", "--steps", "3", "--json", str(tmp_path / "out.json")]
    assert main(["bench", str(tmp_path / "program"), "--batch", "4", *short]) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert (result["batch"], result["sequence"]["batch"], result["mismatches"]["count"]) == (4, 4, 0)


# --- whole benchmarks ---


def test_a_layer_benchmark_is_json_without_mismatches() -> None:
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


@MEASURED_ONCE
def test_a_layer_has_any_cell() -> None:
    """The cells' results have the same keys, down to the last, whether they walk or step; the GRU has three quarters
    of the LSTM's weights."""
    lstm, gru = bench_layer(Layer(9, 16, cell="lstm"), 5, 1), bench_layer(Layer(9, 16, cell="gru"), 1, 1)
    assert gru["mismatches"]["count"] == 0
    assert set(gru["us_per_step"]) == {"tvm_integer", "tvm_float"}
    assert keys(gru) == keys(lstm)
    assert {kind: 3 * size // 4 for kind, size in lstm["weight_bytes"].items()} == gru["weight_bytes"]


def keys(result: object) -> object:
    """The keys of a result, of what is in it, too."""
    return {key: keys(value) for key, value in result.items()} if isinstance(result, dict) else None


@needs.peers("torch", "numpy")
@pytest.mark.parametrize("cell", ["lstm", pytest.param("gru", marks=pytest.mark.slow)])
def test_a_layer_is_timed_beside_torchs(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    sizes = ["--input", "40", "--hidden", "48", "--steps", "5", "--rounds", "2", "--seconds", "0.1"]
    against = ["--against", "torch", "--peers-python", needs.PEERS_PYTHON, "--json", str(path)]
    assert main(["bench", "--layer", cell, *sizes, *against]) == 0
    result = json.loads(path.read_text())
    assert result["layer"]["cell"] == cell
    assert result["reasons"] == {}
    assert set(result["us_per_step"]) == {"tvm_integer", "tvm_float", "torch_fp32", "torch_dynamic_int8"}
    differences = result["max_difference_from_float"]
    assert differences["torch_fp32"] < 2e-6 < differences["torch_dynamic_int8"] < 0.1


def test_a_recognizer_benchmark_is_json_with_real_time_factors(tmp_path: Path) -> None:
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
    float_program(speech_model()).save(tmp_path / "float")
    for arguments, message in (
        (["--recognizer", "parrot"], "unknown; allowed are speech_"),
        (["--recognizer", "speech_small", str(tmp_path / "float")], "not both"),
        ([str(tmp_path / "float")], "programs of kind 'float'; integer ones are wanted"),
        ([str(tmp_path / "float"), "--units", "0"], "--units 0: must lie in 1 to"),
        ([str(tmp_path / "float"), "--hidden", "3"], "--hidden belongs to --layer"),
        (["--recognizer", "speech_small", "--batch", "2"], "--batch 2: a recognizer is measured with one utterance"),
        (["--layer", "lstm", "--input", "4", "--hidden", "4", "--batch", "0"], "--batch 0: must lie in 1 to 1024"),
        (["--layer", "lstm", "--input", "4", "--hidden", "4", "--kernels", "avx"], "kernels=avx: this machine knows"),
        (["--layer", "lstm", "--static", "--kernels", "avx2"], "--static counts for target=, one sequence a call"),
        (["lib", "device=emulated", "--kernels", "avx2"], "--kernels is for this machine"),
    ):
        assert main(["bench", *arguments]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
