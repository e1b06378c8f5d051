"""The copy task through all stages: quantized weights trained, the rest calibrated, the same integers everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import irnn
from irnn.errors import IrnnError
from pipelines.config import RunConfig, read_config
from pipelines.core.export import PROGRAM
from pipelines.report.report import table_of
from pipelines.run import problem_of, run
from tests.support.tiny_run import composed

TINY = [
    "experiment=copy_qornn", "logger=none", "trainer.progress=false", "model.hidden_size=16", "data.length=2",
    "data.delay=3", "data.train_sequences=320", "data.batch_size=16", "data.evaluation_sequences=40",
    "evaluation.interpreter_sequences=4", "recipe.float.epochs=8", "recipe.float.lr=0.02", "recipe.weights.epochs=3",
]  # fmt: skip


def tiny(folder: Path, *more: str) -> RunConfig:
    return read_config(composed(*TINY, f"output_dir={folder}", *more))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, dict, Path]:
    """(configuration, results, the run's folder)."""
    threads = torch.get_num_threads()
    config = tiny(tmp_path_factory.mktemp("copy"))
    results = run(config)
    torch.set_num_threads(threads)
    return config, results, config.output_dir / config.name / results["digest"]


def test_the_task_is_learnt_and_the_integers_agree(finished: tuple[RunConfig, dict, Path]) -> None:
    _, results, folder = finished
    assert list(results["stages"]) == ["float", "float_matched", "weights", "all", "integer"]
    assert results["epochs"] == {"float": 8, "float_matched": 3, "weights": 3, "all": 0}
    assert results["stages"]["float"]["test_cross_entropy"] < 0.7 * results["baseline"]["test_cross_entropy"]
    assert results["stages"]["all"] == results["stages"]["integer"]
    for found in results["mismatches"].values():
        if found is not None:  # without TVM
            assert found["count"] == 0
            assert found["compared"] == 2 * (4 * 7 * 10 + 4 * 16)
    assert "recall" in str(table_of(results).columns[2].header)
    program = irnn.load(folder / PROGRAM)
    assert program.metadata["delay"] == 3


def test_results_say_bits_orthogonality_and_examples(finished: tuple[RunConfig, dict, Path]) -> None:
    _, results, folder = finished
    assert results["bits"] == {"embedding": 8, "ornn.0.w_x": 4, "ornn.0.w_h": 4, "decoder": 8, "ornn.0.hidden": 12}
    (found,) = results["orthogonality"].values()
    assert len(found["singular_values"]) == 16
    assert 0 < found["spectral"] <= found["bound"]
    assert (folder / "spectrum.png").read_bytes().startswith(b"\x89PNG")
    for example in results["examples"]:
        assert example["input"] == example["target"]
        assert len(example["output"].split()) == 2


def test_baselines_take_the_same_task(tmp_path: Path) -> None:
    config = tiny(tmp_path, "model=lstm_one_hot", "quant=int8", "model.cell=gru", "model.hidden_size=8")
    assert config.model["cell"] == "gru"
    assert problem_of(config).build().recurrent.mode == "GRU"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.delay=1", "data.delay=1 is below the pattern's data.length=2"),
        ("quant.weight=full_range:9", r"quant.weight='full_range:9': '9' is no number of bits"),
        ("post_training=weights", "post_training=weights is unknown; allowed: False, True, compensated, activations"),
        ("model.cell_options.orthogonal=hadamard", "hidden_size=18: no Hadamard matrix"),
        ("+model.vocabulary_size=9", "model.vocabulary_size follows from the task"),
    ],
)
def test_bad_settings_are_one_line(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(IrnnError, match=message):
        problem_of(tiny(tmp_path, "model.hidden_size=18", change)).build()


def test_the_mean_of_projected_matrices_is_refused(tmp_path: Path) -> None:
    more = ("model.cell_options.orthogonal=projunn_d", "recipe.float.average=2", "until=float", "recipe.float.epochs=2")
    with pytest.raises(IrnnError, match=r"recipe\.float\.average=2: the mean of orthogonal matrices is none"):
        run(tiny(tmp_path, *more))
