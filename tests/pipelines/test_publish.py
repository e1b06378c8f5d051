"""Joining the results of several seeds into one file of the documentation."""

import json
from pathlib import Path

import pytest

from irnn.errors import IrnnError
from pipelines import publish as publish_module
from pipelines.publish import DOCS, main, publish, publish_rows
from pipelines.report.readme import PAGES, README, with_tables


def write_run(folder: Path, seed: int, perplexity: float, configuration: str = "c") -> Path:
    folder.mkdir(parents=True)
    stages = {"float": {"valid_perplexity": perplexity, "test_perplexity": perplexity + 1}}
    run = {
        "experiment": "tiny",
        "problem": "language_model",
        "seed": seed,
        "configuration": configuration,
        "stages": stages,
        "mismatches": {"interpreter_vs_qat": {"count": seed, "compared": 100}, "tvm_vs_interpreter": None},
        "size_bytes": {"float": 400, "integer": 100},
        "us_per_token": {"tvm_float": 3.0 * seed, "tvm_integer": None},
        "epochs": {"float": 2, "float_matched": 1},
        "commit": "0" * 40,
    }
    (folder / "results.json").write_text(json.dumps(run))
    return folder


def test_seeds_are_joined_and_replaced(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    (path,) = publish([write_run(tmp_path / "a", 2, 100.0)], docs)
    publish([write_run(tmp_path / "b", 10, 104.0)], docs)
    content = json.loads(path.read_text())
    assert list(content["seeds"]) == ["2", "10"]
    assert content["stages"] == {"float": {"valid_perplexity": 102.0, "test_perplexity": 103.0}}
    assert content["mismatches"] == {"interpreter_vs_qat": {"count": 12, "compared": 200}, "tvm_vs_interpreter": None}
    assert content["size_bytes"] == {"float": 400, "integer": 100}
    assert content["us_per_token"] == {"tvm_float": 18.0, "tvm_integer": None}
    publish([write_run(tmp_path / "c", 2, 102.0)], docs)
    assert json.loads(path.read_text())["stages"]["float"]["valid_perplexity"] == 103.0


def test_runs_of_another_configuration_are_refused_and_change_nothing(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    (path,) = publish([write_run(tmp_path / "a", 1, 100.0)], docs)
    before = path.read_bytes()
    with pytest.raises(IrnnError, match=r"seeds 1, 2 ran with different configurations \(c, d\)"):
        publish([write_run(tmp_path / "b", 2, 100.0, configuration="d")], docs)
    assert path.read_bytes() == before


def test_recognizers_have_figures_of_their_own(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    interval = {"test_wer": {"difference": 0.01, "low": -0.01, "high": 0.03, "confidence": 0.95, "samples": 10}}

    def recognizer(seed: int) -> Path:
        folder = write_run(tmp_path / f"{seed}", seed, 1.0)
        run = json.loads((folder / "results.json").read_text())
        run["stages"] = {
            name: {"dev_cross_entropy": 0.5, "test_wer": 0.02 * seed} for name in ("float_matched", "integer")
        }
        factors = {"tvm_integer": 0.001 * seed, "tvm_float": 0.004 * seed, "interpreter": 0.1}
        run |= {"problem": "speech", "bootstrap": interval, "real_time_factor": factors}
        (folder / "results.json").write_text(json.dumps(run))
        return folder

    (path,) = publish([recognizer(1)], docs)
    assert json.loads(path.read_text())["bootstrap"] == interval
    (path,) = publish([recognizer(3)], docs)
    content = json.loads(path.read_text())
    assert "bootstrap" not in content
    assert content["seeds"]["1"]["bootstrap"] == interval
    assert content["real_time_factor"] == {"tvm_integer": 0.002, "tvm_float": 0.008, "interpreter": 0.1}
    text = with_tables("<!-- table:tiny -->\n<!-- /table -->", docs)
    assert "| stage | dev nats | test WER | size | s/s audio | speed-up | mismatches |" in text
    assert "| integer program | 0.500 | 4.0% | 0.00 MB | 0.0020 | 4.0x |  |" in text


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(publish_module, "DOCS", tmp_path / "docs" / "results")
    monkeypatch.setattr(publish_module, "EXPERIMENTS", tmp_path / "experiment")
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- table:tiny -->\nold\n<!-- /table -->\nb\n")
    monkeypatch.setattr(publish_module, "README", readme)
    (tmp_path / "docs" / "results").mkdir(parents=True)
    for page in PAGES:
        (tmp_path / "docs" / page).write_text("<!-- table:tiny -->\nold\n<!-- /table -->\n")
    with pytest.raises(SystemExit, match="2"):
        main(["--unknown"])
    assert main([str(write_run(tmp_path / "good", 1, 1.0))]) == 0
    text = readme.read_text()
    assert "old" not in text
    assert "| float | 1.00 | 2.00 |" in text
    for page in PAGES:
        assert "| float | 1.00 | 2.00 |" in (tmp_path / "docs" / page).read_text()
    assert text.startswith("a\n")
    assert text.endswith("b\n")
    assert (tmp_path / "docs" / "recipes.md").read_text().startswith("# Recipes")
    assert main([str(tmp_path / "nowhere")]) == 1
    assert "holds no results.json: give the folder of a complete run" in capsys.readouterr().err
    (write_run(tmp_path / "bad", 1, 1.0) / "results.json").write_text("{")
    assert main([str(tmp_path / "bad")]) == 1
    assert "is damaged" in capsys.readouterr().err
    (tmp_path / "bad" / "results.json").write_text("{}")
    assert main([str(tmp_path / "bad")]) == 1
    assert "is of irnn 0.1, whose results name no problem; run the experiment again" in capsys.readouterr().err


def test_the_readme_names_the_commit_of_every_seed(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / str(seed), seed, 1.0) for seed in (1, 2, 3)]
    path = folders[2] / "results.json"
    path.write_text(path.read_text().replace("0" * 40, "a" * 40))
    docs = tmp_path / "docs"
    publish(folders, docs)
    text = with_tables("<!-- table:tiny -->\n<!-- /table -->", docs)
    assert "Seeds: 1, 2, 3." in text
    assert f"Commit {'0' * 12}, {'a' * 12}." in text


def test_the_readme_is_what_the_command_writes() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_tables(text, DOCS) == text, "run `python -m pipelines.publish`"


def test_benchmarks_of_layers_make_one_table(tmp_path: Path) -> None:
    for steps, bits, integer in ((1, 8, 50.0), (35, 4, 20.0)):
        result = {
            "steps": steps,
            "weight_bits": bits,
            "us_per_step": {"tvm_integer": integer, "onnxruntime_dynamic_int8": 100.0, "litert_fp32": None},
            "floor": {"us_per_step": 10.0},
            "mismatches": {"count": 0, "compared": 7},
            "machine": {"cpu": "a CPU"},
        }
        (tmp_path / f"lstm_9_{steps}_{bits}.json").write_text(json.dumps(result))
    text = with_tables("<!-- bench:lstm_9 -->\n<!-- /table -->", tmp_path)
    assert "| us a step | 35 steps a call, W4 | 1 steps a call, W8 |" in text
    assert "| onnxruntime_dynamic_int8 | 100.0 (0.20) | 100.0 (0.50) |" in text
    assert "| litert_fp32 | not measured | not measured |" in text
    assert "0 of 14 integers" in text
    assert "(no results yet)" in with_tables("<!-- bench:other -->\n<!-- /table -->", tmp_path)


def low_bit_run(folder: Path, seed: int, integer: float, weight: int | str = 2, **changes: object) -> Path:
    """The results of a run with the quantization `quant=ternary` or bits of denseshift."""
    run = json.loads((write_run(folder, seed, 100.0) / "results.json").read_text())
    stages = {"float_matched": {"test_perplexity": 99.0}, "integer": {"test_perplexity": integer}}
    config = {
        "model": {"cell": "gru"},
        "quant": {
            "code": "denseshift",
            "weight": weight,
            "embedding": weight,
            "logits_weight": weight,
            "hidden": 8,
            "of": {},
        },
        "post_training": False,
    }
    run |= {"stages": run["stages"] | stages, "config": config, "command": "python run.py", **changes}
    run["us_per_token"] = {"tvm_float": 30.0, "tvm_integer": 10.0}
    (folder / "results.json").write_text(json.dumps(run))
    return folder


def test_runs_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "low_bit.json"
    publish_rows([low_bit_run(tmp_path / "a", 1, 100.0), low_bit_run(tmp_path / "b", 1, 120.0, "ternary")], path)
    publish_rows([low_bit_run(tmp_path / "c", 2, 104.0), low_bit_run(tmp_path / "d", 1, 101.0)], path)
    ternary, shifts = json.loads(path.read_text())["rows"]
    assert [(row["code"], row["weight_bits"], row["activation_bits"]) for row in (ternary, shifts)] == [
        ("ternary", 2, 8),
        ("denseshift", 2, 8),
    ]
    assert shifts["integer"] == 102.5
    assert shifts["float_matched"] == 99
    assert shifts["seeds"] == [1, 2]
    assert (shifts["mismatches"], shifts["compared"]) == (3, 200)
    assert (shifts["us_per_token"], shifts["float_us_per_token"]) == (10, 30)
    table = with_tables("<!-- rows:low_bit -->\nold\n<!-- /table -->\n", tmp_path)
    assert "| ternary | 8 bits | 99.00 | 120.00 | +21.00 | 0.00 MB | 4.0x |" in table
    assert "| denseshift 2 | 8 bits | 99.00 | 102.50 | +3.50 |" in table
    assert "Seeds: 1, 2. Epochs: float 2, float_matched 1." in table


def test_sums_of_binary_codes_are_told_apart_by_how_many(tmp_path: Path) -> None:
    """A code of `alternating:3` is one bit, its weight has 3."""
    folders = [low_bit_run(tmp_path / str(k), 1, 100.0, f"alternating:{k}") for k in (2, 3)]
    path = publish_rows(folders, tmp_path / "sums.json")
    assert [row["weight_bits"] for row in json.loads(path.read_text())["rows"]] == [3, 2]
    table = with_tables("<!-- rows:sums -->\n<!-- /table -->\n", tmp_path)
    assert "| alternating 3 |" in table
    assert "| alternating 2 |" in table


def test_activations_of_few_bits_are_no_codes(tmp_path: Path) -> None:
    """4 bits of uniform integers and 4 codes found at run time are two rows."""
    folders = []
    for hidden in (4, "alternating:4"):
        folder = low_bit_run(tmp_path / str(hidden), 1, 100.0)
        run = json.loads((folder / "results.json").read_text())
        run["config"]["quant"] |= {"code": "uniform", "weight": 8, "embedding": 8, "logits_weight": 8, "hidden": hidden}
        (folder / "results.json").write_text(json.dumps(run))
        folders.append(folder)
    path = publish_rows(folders, tmp_path / "few.json")
    assert len(json.loads(path.read_text())["rows"]) == 2
    table = with_tables("<!-- rows:few -->\n<!-- /table -->\n", tmp_path)
    assert "| uniform 8 | 4 bits |" in table
    assert "| uniform 8 | 4 codes |" in table


def test_what_keeps_a_matrix_orthogonal_tells_rows_apart(tmp_path: Path) -> None:
    """And weights that were trained quantized, everything else calibrated, are compared with as much float training."""
    folders = []
    for orthogonal, trained in (("projunn_d", "activations"), ("bjorck", "activations"), (None, True)):
        folder = low_bit_run(tmp_path / str(orthogonal), 1, 100.0)
        run = json.loads((folder / "results.json").read_text())
        model = {"cell": "ornn", "cell_options": {"orthogonal": orthogonal}}
        run["config"] |= {"model": model, "post_training": trained}
        (folder / "results.json").write_text(json.dumps(run))
        folders.append(folder)
    path = publish_rows(folders, tmp_path / "orthogonal.json")
    assert [row["orthogonal"] for row in json.loads(path.read_text())["rows"]] == [None, "bjorck", "projunn_d"]
    table = with_tables("<!-- rows:orthogonal -->\n<!-- /table -->\n", tmp_path)
    matched, floating = 99, json.loads(path.read_text())["rows"][0]["float"]
    assert f"| denseshift 2, not trained | 8 bits | {floating:.2f} |" in table
    for name in ("bjorck", "projunn_d"):
        assert f"| {name}, denseshift 2 | 8 bits | {matched:.2f} |" in table


def copy_run(folder: Path, delay: int, right: float) -> Path:
    """The results of a run of the copy task."""
    run = json.loads((low_bit_run(folder, 1, 0.0) / "results.json").read_text())
    figures = {"test_cross_entropy": (1 - right) / 50, "test_recall": right}
    run["config"] |= {"data": {"delay": delay}, "model": {"cell": "ornn", "cell_options": {"orthogonal": "bjorck"}}}
    run |= {
        "problem": "copy_memory",
        "stages": {"float_matched": figures | {"test_cross_entropy": 0.0}, "integer": figures},
        "us_per_step": run.pop("us_per_token"),
        "bits": {"ornn.0.w_h": 2},
        "orthogonality": {"ornn.0.w_h": {"singular_values": [1.5, 0.5], "spectral": 1.25, "spectral_radius": 1.125}},
    }
    (folder / "results.json").write_text(json.dumps(run))
    return folder


def test_tasks_of_one_problem_are_rows_beside_the_experiments_own_figures(tmp_path: Path) -> None:
    """Copying after 100 and after 1,000 steps are two tasks, told by their cost; a run published later keeps them."""
    run = write_run(tmp_path / "own", 1, 100.0)
    (path,) = publish([run], tmp_path)
    own = json.loads(path.read_text())
    publish_rows([copy_run(tmp_path / str(delay), delay, 0.5) for delay in (1000, 100)], path)
    found = json.loads(path.read_text())
    assert {key: found[key] for key in own} == own
    assert [row["task"] for row in found["rows"]] == [{"delay": 100}, {"delay": 1000}]
    table = with_tables(f"<!-- rows:{path.stem} -->\n<!-- /table -->\n", tmp_path)
    assert "test nats/step, float" in table
    assert (
        "| T = 1000, bjorck, denseshift 2 | 8 bits | 0.00000 | 0.01000 | +0.01000 | 0.00 MB | 4.0x | 1.1250 |" in table
    )
    (kept,) = found["rows"][0]["runs"].values()
    assert kept["orthogonality"] == {"ornn.0.w_h": {"spectral": 1.25, "spectral_radius": 1.125}}
    assert kept["bits"] == {"ornn.0.w_h": 2}
    publish([run], tmp_path)
    assert json.loads(path.read_text()) == found


def test_a_row_of_another_configuration_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path = publish_rows([low_bit_run(tmp_path / "a", 1, 100.0)], tmp_path / "low_bit.json")
    before = path.read_bytes()
    with pytest.raises(IrnnError, match="denseshift 2: published with configuration c, this run has d"):
        publish_rows([low_bit_run(tmp_path / "b", 2, 100.0, configuration="d")], path)
    with pytest.raises(IrnnError, match="tiny, seed 3: no figures of an integer program"):
        publish_rows([low_bit_run(tmp_path / "c", 3, 100.0, stages={"float": {}})], path)
    assert path.read_bytes() == before


def test_a_comparison_needs_runs(capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--compare", "low_bit"])
    assert "--compare takes the folders of complete runs" in capsys.readouterr().err


def test_examples_are_those_of_the_results(tmp_path: Path) -> None:
    example = {"input": "3 1", "target": "3 1", "output": "3 2"}
    (tmp_path / "tiny.json").write_text(json.dumps({"seeds": {"7": {"examples": [example]}}}))
    text = with_tables("<!-- examples:tiny -->\n<!-- /table -->", tmp_path)
    assert text.splitlines()[3] == "| 7 | 3 1 | 3 1 | 3 2 |"
