"""A classifier through all stages: a row of logits a sequence, the same integers everywhere."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import irnn
from irnn.errors import IrnnError
from irnn.models.classifier import Classifier, ClassifierConfig, program_inputs
from pipelines.config import RunConfig, read_config
from pipelines.core.export import PROGRAM
from pipelines.core.plan import plan
from pipelines.report.report import table_of
from pipelines.run import problem_of, run
from tests.support import needs
from tests.support.tiny_run import composed

TINY = [
    "problem=classifier",
    "logger=none",
    "trainer.progress=false",
    "data.train_words=120",
    "data.evaluation_words=20",
    "model.hidden_size=24",
    "recipe.float.epochs=10",
    "recipe.float.lr=0.01",
    "pwl.pieces=8",
]


def tiny(folder: Path, *more: str) -> RunConfig:
    """The checked configuration of a tiny run that writes everything below `folder`."""
    places = [f"data.cache_dir={folder / 'features'}", f"output_dir={folder / 'out'}"]
    return read_config(composed(*TINY, *places, *more))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[RunConfig, dict, Path]:
    """(configuration, results, the run's folder)."""
    config = tiny(tmp_path_factory.mktemp("words"))
    results = run(config)
    return config, results, config.output_dir / config.name / results["digest"]


def test_all_sequences_give_the_same_integers_and_the_program_its_stages_accuracy(finished) -> None:
    _, results, folder = finished
    figures = {f"{split}_{figure}" for split in ("dev", "test") for figure in ("accuracy", "cross_entropy")}
    assert all(set(found) == figures for found in results["stages"].values())
    assert results["stages"]["float"]["dev_accuracy"] > 0.3  # 0.1 is chance
    assert results["stages"]["integer"] == pytest.approx(results["stages"]["all"], rel=1e-6)
    compared = results["mismatches"]["interpreter_vs_qat"]
    # Logits and the state of 20 words in each of two sets.
    assert compared == {"count": 0, "compared": 2 * 20 * (10 + 24)}
    assert json.loads((folder / "program" / "labels.json").read_text())[3] == "three"
    assert json.loads((folder / "results.json").read_text()) == results


def test_the_compiled_classifier_is_compared_and_timed(finished) -> None:
    needs.tvm()
    _, results, _ = finished
    assert results["mismatches"]["tvm_vs_interpreter"] == results["mismatches"]["interpreter_vs_qat"]
    assert all(results["us_per_sequence"][name] > 0 for name in ("tvm_float", "tvm_integer"))
    assert [column.header for column in table_of(results).columns][-3:] == ["us/seq.", "speed-up", "mismatches"]


def test_a_wrong_executor_is_counted(finished) -> None:
    config, _, folder = finished
    program = irnn.load(folder / PROGRAM)

    class Wrong:
        def run_all(self, inputs):
            (logits,), state = program.run_all(inputs)
            logits = logits.copy()
            logits[0, 0] ^= 1
            return [logits], state

    counted = problem_of(config)._mismatch(program, Wrong())
    assert counted == {"count": 2, "compared": 2 * 20 * (10 + 24)}  # a batch in each of two sets
    batches = ["evaluation.interpreter_sequences=7", "evaluation.batch_size=4"]  # of 4 and of 3 of each set
    some = problem_of(tiny(folder.parents[2], *batches))
    assert some._mismatch(program, Wrong()) == {"count": 4, "compared": 2 * 7 * (10 + 24)}
    assert some.evaluation == {"compared": 7}


def test_what_follows_a_sequences_end_does_not_count(finished) -> None:
    config, _, _ = finished
    problem = problem_of(config)
    stage = next(stage for stage in plan(config, problem) if stage.name == "all")
    model = stage.run.trained_model(stage)
    program = irnn.convert(model)
    batch = next(iter(problem._batches("test")))
    row = int(batch.frames.argmin())
    frames = int(batch.frames[row])
    noise = batch.features.clone()
    noise[row, frames:] = 5.0
    alone = program_inputs(program, batch.features[row : row + 1, :frames], [frames])
    (expected,), _ = program.run_all(alone)
    for features in (batch.features, noise):
        (found,), _ = program.run_all(program_inputs(program, features, batch.frames))
        assert np.array_equal(found[row : row + 1], expected)
    integer = model(noise, batch.frames)[row].numpy() / program.logits_scale
    assert np.array_equal(np.round(integer).astype(np.int32), expected[0])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.cell=transformer", r"'transformer'.*gru, lstm"),
        ("model.hidden_size=0", r"model\.hidden_size=0: must be at least 1"),
        ("model.dropout=1", r"model\.dropout=1\.0?: must lie in \[0, 1\)"),
        ("+model.classes=10", r"model\.classes follows from the data; leave it out"),
        ("data.batch_size=0", r"data\.batch_size=0 must be at least 1"),
        ("data.train_words=0", r"data\.train_words=0 must be at least 1"),
        ("evaluation.batch_size=0", r"evaluation\.batch_size=0 must be greater than 0"),
        ("data.source=digits", r"data\.source='digits' is unknown; allowed: synthetic_words, digit_words"),
    ],
)
def test_wrong_values_are_one_line(finished, override: str, message: str) -> None:
    with pytest.raises(IrnnError, match=message) as caught:
        problem_of(tiny(finished[0].output_dir.parent, override))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_float_logits_read_the_last_state(cell: str) -> None:
    torch.manual_seed(0)
    config = ClassifierConfig(feature_size=5, classes=3, cell=cell, hidden_size=7, num_layers=2, dropout=0.0)
    model = Classifier(config).eval()
    x, frames = torch.randn(4, 9, 5), torch.tensor([9, 1, 4, 9])
    packed = torch.nn.utils.rnn.pack_padded_sequence(x.transpose(0, 1), frames, enforce_sorted=False)
    _, state = model.recurrent(packed)
    h = state[0] if cell == "lstm" else state
    expected = h[-1] @ model.head.weight.T + model.head.bias
    assert torch.allclose(model(x, frames), expected, rtol=0, atol=1e-6)
