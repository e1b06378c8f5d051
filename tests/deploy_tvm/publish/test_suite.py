"""The suite of figures: which rows there are, that they are kept, and the tables made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

from deploy_tvm import targets
from deploy_tvm.bench.measure import Settings
from deploy_tvm.publish import orthogonal, speed, suite
from deploy_tvm.publish.__main__ import main
from deploy_tvm.publish.suite import LAYERS, SUITES, Row, Suite
from deploy_tvm.targets import kernel_sets, machine
from irnn.errors import IrnnError
from irnn.random_programs import Layer

SUITE = SUITES[LAYERS]
TINY = Suite(("gru",), (8,), (4,), (1, 3), (1, 2))
ORTHOGONAL = Suite(("ornn", "lstm"), (16,), (8, 1), (1,), (1,))
QUICK = ["--rounds", "2", "--seconds", "0.02"]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for results and page, and a tiny suite in place of the real ones: a test that took one of those would
    run for hours."""
    monkeypatch.setattr(suite, "SUITES", {LAYERS: TINY, "orthogonal": ORTHOGONAL})
    monkeypatch.setattr(suite, "RESULTS", tmp_path)
    monkeypatch.setattr(speed, "PAGE", tmp_path / "speed.md")
    monkeypatch.setattr(orthogonal, "PAGE", tmp_path / "orthogonal.md")
    (tmp_path / "speed.md").write_text("before\n<!-- speed -->\nold\n<!-- /speed -->\nafter\n")
    (tmp_path / "orthogonal.md").write_text("<!-- speed -->\nold\n<!-- /speed -->\n")
    return tmp_path


def rows(folder: Path) -> dict[str, dict]:
    (path,) = folder.glob("bench_*.json")
    return json.loads(path.read_text())["rows"]


def test_the_suite_is_what_the_page_says() -> None:
    everything = list(SUITE.rows())
    assert len(set(everything)) == len(everything) == 2 * 5 * 3 * 2 * 3
    assert Row("gru", 2048, 2, 35, 32) in everything
    assert str(len(everything)) + " rows" in " ".join(speed.PAGE.read_text().split())


def test_only_chooses_and_names_what_there_is() -> None:
    chosen = SUITE.only("size=650, size=128,batch=1,cell=gru")
    assert (chosen.cell, chosen.size, chosen.batch) == (("gru",), (128, 650), (1,))
    assert (chosen.bits, chosen.steps) == (SUITE.bits, SUITE.steps)
    for text, message in (
        ("size=65", "--only size=65: of size there are 128, 256, 650, 1024, 2048"),
        ("650", "--only 650: give KEY=VALUE; keys are cell, size, bits, steps, batch"),
    ):
        with pytest.raises(IrnnError) as error:
            SUITE.only(text)
        assert str(error.value) == message


@pytest.mark.slow
def test_a_suite_goes_on_where_it_stood(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--suite", "--only", "steps=1", *QUICK]) == 0
    first = rows(places)
    own = kernel_sets.host().kernels().name
    assert list(first) == [f"gru 8, W4, 1 steps, batch {batch}, {own}" for batch in (1, 2)]
    assert main(["--suite", *QUICK]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(str(places / "bench_"))
    everything = rows(places)
    assert len(everything) == 4
    assert {name: everything[name] for name in first} == first  # down to the time of the measurement
    for row in everything.values():
        assert row["cpu"] == machine.describe()["cpu"]
        assert row["kernels"] == own
        assert row["mismatches"]["count"] == 0
        assert set(row["us_per_step"]) == {"tvm_integer", "tvm_float"}
        assert row["floor"]["share"] > 0
    page = speed.PAGE.read_text()
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "old" not in page
    assert "GRU, 3 steps a call, batch 2:" in page
    # A lesser set has rows of its own, in a column of its own.
    assert main(["--suite", "--only", "steps=1,batch=1", "--kernels", "portable", *QUICK]) == 0
    assert len(rows(places)) == 4 + (own != "portable")
    assert ("- **B**: " in speed.PAGE.read_text()) == (own != "portable")


def test_what_differs_from_the_interpreter_is_not_published(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        suite, "bench", lambda *arguments: {"mismatches": {"count": 3, "compared": 9}, "floor": {}, "machine": {}}
    )
    with pytest.raises(IrnnError, match="differs from the interpreter"):
        suite.run(TINY.only("steps=1,batch=1"), None, Settings(), places, lambda text: None)
    assert not list(places.glob("bench_*"))


def planted(kind: str, cpu: str, *found: dict) -> dict:
    return {"kind": kind, "cpu": cpu, "family": "", "flags": [], "rows": {str(k): row for k, row in enumerate(found)}}


def row(size: int, bits: int, kernels: str, ours: float, **others: float | None) -> dict:
    return {
        "cell": "lstm", "size": size, "bits": bits, "steps": 35, "batch": 1, "kernels": kernels, "gb_per_s": 12.5,
        "us_per_step": {"tvm_integer": ours, "tvm_float": 1.0, **others}, "floor": {"share": 0.625},
        "mismatches": {"count": 0, "compared": 1000}, "commit": "0123456789abcdef",
    }  # fmt: skip


def test_machines_stand_side_by_side_and_are_never_mixed(tmp_path: Path) -> None:
    one = planted(
        "one", "First", row(650, 8, "avx2", 40.0, peer_a=80.0, peer_b=50.0, peer_c=None), row(650, 4, "avx2", 20.0)
    )
    two = planted("two", "Second", row(650, 8, "avx512vnni", 10.0, peer_a=5.0), row(128, 8, "avx2", 7.0))
    for results in (one, two):
        (tmp_path / f"bench_{results['kind']}.json").write_text(json.dumps(results))
    page = speed.with_tables("<!-- speed -->\n<!-- /speed -->", tmp_path)
    lines = page.splitlines()
    assert lines[1].startswith("- **A**: First (`bench_one.json`), kernels avx2; 2 rows, 0 of 2,000 integers")
    assert lines[1].endswith("Commit 0123456789ab.")
    assert lines[2].startswith("- **B**: Second (`bench_two.json`), kernels avx512vnni; 1 rows")
    assert lines[3].startswith("- **C**: Second (`bench_two.json`), kernels avx2; 1 rows")
    nothing = [""] * 4
    a8, a4 = ["40.0", "62%", "12.5", "0.80 peer_b"], ["20.0", "62%", "12.5", ""]
    b8, c8 = ["10.0", "62%", "12.5", "2.00 peer_a"], ["7.0", "62%", "12.5", ""]
    expected = [
        ["128, W8", *nothing, *nothing, *c8],
        ["650, W8", *a8, *b8, *nothing],
        ["650, W4", *a4, *nothing, *nothing],
    ]
    assert lines[-4:-1] == ["| " + " | ".join(cells) + " |" for cells in expected]


def test_few_bits_stand_beside_the_runtime_that_has_them(tmp_path: Path) -> None:
    beside = {"onnxruntime_nbits_4": 50.0, "onnxruntime_nbits_2": None, "onnxruntime_dynamic_int8": 30.0}
    results = planted("one", "First", row(650, 8, "avx2", 40.0, peer_a=80.0), row(650, 4, "avx2", 20.0, **beside))
    (tmp_path / "bench_one.json").write_text(json.dumps(results))
    page = speed.with_tables("<!-- few bits -->\nold\n<!-- /few bits -->", tmp_path)
    *_, found, end = page.splitlines()
    assert (found, end) == ("| A | LSTM 650, W4 | 35 | 20.0 | 50.0 |  | 30.0 |", "<!-- /few bits -->")
    assert "old" not in page


def test_a_file_of_another_machine_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bench_one.json").write_text(json.dumps(planted("two", "Second")))
    with pytest.raises(IrnnError, match="another machine"):
        speed.with_tables("<!-- speed --><!-- /speed -->\n<!-- speed -->\n<!-- /speed -->", tmp_path)


def test_the_page_is_what_the_command_writes() -> None:
    for page, made in ((speed.PAGE, speed.with_tables), (orthogonal.PAGE, orthogonal.with_table)):
        text = page.read_text(encoding="utf-8")
        assert made(text, suite.RESULTS) == text, "run `python -m deploy_tvm.publish --suite`"


def test_machines_that_multiply_otherwise_are_of_another_kind() -> None:
    described = {"cpu": "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", "family": "6-79", "flags": ["avx2"]}
    assert machine.kind(described) == "intel_xeon_e5_2680_v4_6_79_avx2"
    others = [described | {"flags": ["avx2", "avx512_vnni"]}, described | {"family": "6-85"}, described | {"cpu": "i7"}]
    assert len({machine.kind(each) for each in (described, *others)}) == 4
    assert machine.kind(described | {"flags": ["avx2", "avx512_bf16"]}) == machine.kind(described)


def test_only_the_suites_options_go_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--suite", "--layer", "lstm"]) == 1
    assert capsys.readouterr().err == "error: --layer belongs to the figures of ARM, not to --suite\n"
    assert "sse9" not in targets.cpu_flags()
    assert main(["--suite", "--kernels", "sse9"]) == 1
    assert capsys.readouterr().err.startswith("error: kernels=sse9: this machine knows no such set; it can run ")


def test_the_orthogonal_suite_has_bits_that_a_cell_can_have() -> None:
    rows = list(SUITES["orthogonal"].rows())
    assert {(row.cell, row.bits) for row in rows} == {
        *(("ornn", bits) for bits in (8, 5, 4, 1)),
        ("lstm", 8),
        ("lstm", 4),
    }
    hadamard = Row("ornn", 128, 1, 1, 1).layer
    assert hadamard.hadamard
    assert hadamard.quant().weight_code("weight", "ornn.0.w_h").bits == 1
    assert hadamard.quant().weight_code("weight", "ornn.0.w_x").bits == 4
    with pytest.raises(IrnnError, match=r"^hadamard=true: the cell lstm has no such matrix; take ornn$"):
        Layer(8, 8, hadamard=True)


@pytest.mark.slow
def test_a_row_of_each_kind_is_measured_and_stands_in_the_table(
    places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--suite", "orthogonal", *QUICK]) == 0
    found = rows(places)
    own = kernel_sets.host().kernels().name
    assert list(found) == [f"ornn 16, W{bits}, 1 steps, batch 1, {own}" for bits in (8, 1)] + [
        f"lstm 16, W8, 1 steps, batch 1, {own}"
    ]
    assert all(row["mismatches"]["count"] == 0 for row in found.values())
    lines = orthogonal.PAGE.read_text().splitlines()
    (w8, w1) = (line.split(" | ") for line in lines if line.startswith("| 16, "))
    lstm = f"{found[f'lstm 16, W8, 1 steps, batch 1, {own}']['us_per_step']['tvm_integer']:.2f}"
    assert (w8[0], w8[-2], w8[-1]) == ("| 16, W8", lstm, f"{lstm} |")
    assert (w1[0], w1[-2], w1[-1]) == ("| 16, Hadamard, 1 bit", "", f"{lstm} |")
    capsys.readouterr()


def test_the_table_divides_by_the_fastest_float_of_the_row(tmp_path: Path) -> None:
    one = row(128, 4, "avx2", 2.0, onnxruntime_fp32=8.0, torch_fp32=None) | {"cell": "ornn", "load_average": [0.5]}
    one["us_per_step"]["tvm_float"] = 10.0
    (tmp_path / "bench_one.json").write_text(json.dumps(planted("one", "First", one, row(128, 4, "avx2", 5.0))))
    text = orthogonal.with_table("<!-- speed -->\n<!-- /speed -->", tmp_path)
    assert "| 128, W4 | 2.00 | 10.00 | 8.00 |  | 0.25 | 5.00 |  |" in text
    assert "0 of 1,000 integers differ" in text
