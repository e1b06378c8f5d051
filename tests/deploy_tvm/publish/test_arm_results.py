"""The figures that the documentation quotes about ARM, and its tables."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

from deploy_tvm.publish import arm
from deploy_tvm.publish.__main__ import main
from deploy_tvm.static.mca import CORES


@pytest.fixture(scope="module")
def results() -> dict:
    return json.loads(arm.RESULTS.read_text(encoding="utf-8"))


def test_every_board_computes_the_interpreters_integers(results: dict) -> None:
    assert set(results["targets"]) == {"aarch64", "cortex_a53", "cortex_a72", "cortex_a76", "armv7a"}
    for entry in results["targets"].values():
        assert entry["mismatches"]["count"] == 0
        assert entry["mismatches"]["compared"] > entry["tokens"] >= 2000
        assert entry["emulated"] is True
        assert entry["us_per_token"] > 0
        assert entry["bytes"] > 0


def test_a_recognizer_computes_the_interpreters_integers(results: dict) -> None:
    assert set(results["recognizer"]) == {"aarch64", "cortex_a53", "cortex_a72", "cortex_a76"}
    for entry in results["recognizer"].values():
        assert entry["mismatches"]["count"] == 0
        assert entry["decoder"]["mismatches"]["compared"] > entry["units"] * entry["frames"] // 8
        assert entry["emulated"] is True
        assert entry["real_time_factor"] is None


LIMITS = {
    "lstm": {"onnxruntime_dynamic_int8": 0.7, "litert_integer_only_int8": 0.25, "tvm_float": 0.35},
    "gru": {"onnxruntime_dynamic_int8": 0.7, "litert_integer_only_int8": 0.85, "tvm_float": 0.35},
}


@pytest.mark.parametrize("cell", arm.LAYERS)
def test_fewer_instructions_than_the_other_runtimes(cell: str, results: dict) -> None:
    found = results["layers"][cell]
    figures = found["instructions_per_step"]
    assert found["target"] == "cortex_a76"
    layer = found["layer"]
    assert (layer["cell"], layer["input"], layer["hidden"], layer["weight_bits"]) == (cell, 650, 650, 8)
    for name, limit in LIMITS[cell].items():
        assert figures["tvm_integer"] <= limit * figures[name]
    assert set(found["mca_cycles_per_step"]) == set(CORES)
    everything = [found, *found["static"].values()]
    assert all(each["mismatches"]["count"] == 0 and each["layer"]["cell"] == cell for each in everything)
    assert len(everything) == len(arm.BITS) * len(arm.CORES)


def test_a_gru_is_three_quarters_of_an_lstm(results: dict) -> None:
    """Of the weights, and of the instructions as nearly: what is done once an element is a few in a hundred."""
    lstm, gru = (results["layers"][cell] for cell in ("lstm", "gru"))
    assert 4 * gru["weight_bytes"]["tvm_integer"] == 3 * lstm["weight_bytes"]["tvm_integer"]
    for name, entry in gru["static"].items():
        theirs = lstm["static"][name]["instructions_per_step"]["tvm_integer"]
        assert 0.7 < entry["instructions_per_step"]["tvm_integer"] / theirs < 0.8, name


def test_the_page_is_what_the_command_writes(results: dict) -> None:
    text = arm.PAGE.read_text(encoding="utf-8")
    assert arm.with_tables(text, results) == text, "run `python -m deploy_tvm.publish`"
    assert set(arm.TABLES) == {found[1] for found in arm._TABLE.findall(text)}


@pytest.mark.parametrize("cell", arm.LAYERS)
def test_tables_show_the_figures(cell: str, results: dict) -> None:
    """What is planted in the results appears in its row."""
    planted = json.loads(json.dumps(results))
    layer = planted["layers"][cell]
    layer["instructions_per_step"] |= {"tvm_integer": 400_000.0, "onnxruntime_fp32": 1_600_000.0}
    layer["static"]["armv7a, W4"]["sequence"]["instructions_per_step"]["tvm_integer"] = 7_654_321.0
    planted["targets"]["armv7a"]["mismatches"] = {"count": 3, "compared": 1234}
    layer["mca_cycles_per_step"]["cortex-a55"] = 9_876_000.0
    planted["recognizer"] = {"some_core": planted["recognizer"]["cortex_a76"]}
    planted["recognizer"]["some_core"]["decoder"] |= {"mismatches": {"count": 5, "compared": 4321}, "bytes": 7_650_000}
    names = ("boards", "recognizer", f"{cell}_instructions", f"{cell}_cycles")
    page = "".join(f"<!-- arm:{name} -->\nold\n<!-- /arm -->\n" for name in names)
    text = arm.with_tables(page, planted)
    assert "old" not in text
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines()}
    assert "| 3 of 1,234 |" in rows["armv7a"]
    assert "| 5 of 4,321 |" in rows["some_core"]
    assert rows["some_core"].endswith("| 7.65 MB |")
    assert rows["onnxruntime_fp32"].endswith("| 1,600 |  |  |  |  |  | 0.25 |")
    assert rows["tvm_integer, cortex_a76"].startswith("| tvm_integer, cortex_a76 | 400 |")
    assert "| 7,654 |" in rows["tvm_integer, armv7a"]
    assert rows["cortex-a55"].startswith("| cortex-a55 | 9,876 |")


def test_bad_input_is_one_line(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(arm, "RESULTS", tmp_path / "arm.json")
    for arguments, message in (
        ([str(tmp_path / "nothing")], "error: "),
        (["--layer", "gru,rnn"], "error: --layer rnn: no such table; allowed are lstm, gru"),
        (["--only", "size=650"], "error: --only belongs to --suite"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err.strip()
        assert error.startswith(message)
        assert "\n" not in error
    assert not arm.RESULTS.exists()
