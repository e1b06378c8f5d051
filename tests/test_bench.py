"""Benchmarks end to end on tiny networks: correctness of what is compared and reported, no assertion about time."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from deploy_tvm.__main__ import main
from deploy_tvm.bench import floor, rounds
from deploy_tvm.bench.bench import bench
from deploy_tvm.bench.measure import Settings
from deploy_tvm.bench.subject import made, weight_bytes
from deploy_tvm.bench.utterance import Utterance
from deploy_tvm.peers.peer_worker.peer_serving import block
from irnn.conversion import convert, float_program
from irnn.random_programs import Layer, layer_programs
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


@pytest.mark.parametrize("steps", [1, 5])
def test_a_layer_has_any_cell(steps: int) -> None:
    """The cells' results have the same keys, down to the last; the GRU has three quarters of the LSTM's weights."""
    needs.tvm()
    lstm, gru = (bench_layer(Layer(9, 16, cell=cell), steps) for cell in ("lstm", "gru"))
    assert gru["mismatches"]["count"] == 0
    assert set(gru["us_per_step"]) == {"tvm_integer", "tvm_float"}
    assert keys(gru) == keys(lstm)
    assert {kind: 3 * size // 4 for kind, size in lstm["weight_bytes"].items()} == gru["weight_bytes"]


def keys(result: object) -> object:
    """The keys of a result, of what is in it, too."""
    return {key: keys(value) for key, value in result.items()} if isinstance(result, dict) else None


@needs.peers("torch", "numpy")
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_layer_is_timed_beside_torchs(cell: str, tmp_path: Path) -> None:
    needs.tvm()
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
