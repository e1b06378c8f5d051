"""A recognizer through all stages: figures, comparisons, digests, and training that was killed."""

import json
import math
from pathlib import Path

import pytest
import torch

import irnn
from irnn.errors import IrnnError
from pipelines.core.checkpoints import load_weights
from pipelines.core.export import PROGRAM
from pipelines.core.problem import TaskSettings
from pipelines.problems.speech import speech_problem
from pipelines.problems.speech.error_rates import Transcripts
from pipelines.run import problem_of, run
from tests.pipelines.core.test_training import run_and_kill
from tests.support import needs
from tests.support.tiny_run import stages_of
from tests.support.tiny_speech import SETS, tiny_speech, tiny_speech_overrides


def test_results_hold_every_figure(finished) -> None:
    config, results, folders = finished
    figures = {"dev_cross_entropy"} | {f"{name}_{rate}" for name in SETS for rate in ("wer", "cer")}
    searched = {f"search_{name}_{rate}" for name in SETS for rate in ("wer", "cer")}
    for stage, found in results["stages"].items():
        assert set(found) == (figures | searched if stage == "integer" else figures), stage
    assert set(results["stages"]) == {"float", "float_matched", "pwl", "weights", "activations", "all", "integer"}
    assert results["stages"]["integer"] != results["stages"]["float_matched"]
    assert {name: results["stages"]["integer"][name] for name in figures} == results["stages"]["all"]
    assert results["mismatches"]["interpreter_vs_qat"]["count"] == 0
    assert results["mismatches"]["interpreter_vs_qat"]["compared"] > 1000
    assert set(results["bootstrap"]) == figures - {"dev_cross_entropy"}
    for name in SETS:
        pair = [results["stages"][stage][f"{name}_wer"] for stage in ("float_matched", "integer")]
        assert results["bootstrap"][f"{name}_wer"]["difference"] == pytest.approx(pair[1] - pair[0])
        kept = Transcripts.load(folders["evaluate"] / f"{name}_transcripts.json")
        assert kept.wer == pair[1]
        assert len(kept.alignments) == 3
    run_folder = config.output_dir / config.name / results["digest"]
    assert (run_folder / "attention.png").read_bytes().startswith(b"\x89PNG")
    assert Transcripts.load(run_folder / "search_test_transcripts.json").ids == kept.ids


def test_the_compiled_recognizer_is_compared_on_all_and_timed(finished) -> None:
    needs.tvm()
    _, results, _ = finished
    counts = results["mismatches"]["tvm_vs_interpreter"]
    assert counts["count"] == 0
    assert counts["compared"] > results["mismatches"]["interpreter_vs_qat"]["compared"]
    assert set(results["real_time_factor"]) == {"tvm_integer", "tvm_float", "interpreter"}
    assert all(factor > 0 for factor in results["real_time_factor"].values())


def test_a_wrong_executor_is_counted(finished) -> None:
    """One step of one key, of one token: the comparison sees it."""
    config, _, folders = finished
    problem = problem_of(config)
    programs = irnn.load(folders["program"] / PROGRAM)

    class Wrong:
        def run_all(self, inputs, state=None):
            outputs, state = programs["encoder"].run_all(inputs, state)
            outputs[1] = outputs[1].copy()
            outputs[1][0, 0, 0] ^= 1
            return outputs, state

    executors = {"encoder": Wrong(), "decoder": programs["decoder"]}
    batches = 2 * len(SETS) if config.data.batches.max_utterances < 3 else len(SETS)
    counted = problem._mismatch(programs, executors, programs, SETS, None)
    assert counted["count"] == batches
    hypotheses = {"test": [(3, 4), (5,)]}
    assert speech_problem._different_tokens(hypotheses, {"test": [(3, 4), (5, 5)]}) == {"count": 1, "compared": 4}


def test_a_second_run_repeats_nothing(finished) -> None:
    config, results, folders = finished
    times = {name: (folder / "manifest.json").stat().st_mtime_ns for name, folder in folders.items()}
    assert run(config)["stages"] == results["stages"]
    assert {name: (folder / "manifest.json").stat().st_mtime_ns for name, folder in folders.items()} == times


def test_digests_follow_what_a_stage_depends_on(tmp_path: Path) -> None:
    base = stages_of(tiny_speech(tmp_path))

    def changed(*overrides: str) -> set[str]:
        other = stages_of(tiny_speech(tmp_path, *overrides))
        return {name for name in base if base[name].digest != other[name].digest}

    everything = set(base)
    assert changed("data.augment.level_db=3") == changed("data.batches.curriculum=1") == everything
    assert changed("data.train_strings=41") == changed("model.dropout=0.3") == everything
    assert changed("data.leave_out=true") == changed("trainer.threads=2") == set()
    searched = changed("evaluation.search.beam=3")
    assert searched == {"program", "artefact", "evaluate", "bench"} & everything


def test_a_killed_training_ends_bit_equal_to_an_unbroken_one(tmp_path: Path) -> None:
    """Augmentation and a curriculum: the second epoch's batches must not depend on whether the first one ran here."""
    more = [
        "until=float", "data.batches.curriculum=1", "data.augment.level_db=6", "data.augment.warp=0.1",
        "data.augment.time_masks=1", "data.augment.time_share=0.2",
    ]  # fmt: skip
    unbroken = tiny_speech(tmp_path / "unbroken", *more)
    run(unbroken)
    curve = json.loads((stages_of(unbroken)["float"].folder / "manifest.json").read_text())["curve"]
    first, second = (point["step"] for point in curve)
    assert first == math.ceil((second - first) / 2)
    # Later stages begin with a trained model and see everything at once.
    settings = TaskSettings("pwl", "", 1, [0.1], [0.0], 0, "adam", bf16=False, graphs=False, show=lambda curve: None)
    problem = problem_of(unbroken)
    assert len(problem.task(problem.build(), settings).train_dataloader()) == second - first
    run_and_kill("float", 1, [*tiny_speech_overrides(tmp_path / "broken"), *more])
    broken = tiny_speech(tmp_path / "broken", *more)
    folder = stages_of(broken)["float"].folder
    assert (folder / "resume.ckpt").is_file()
    run(broken)
    expected = load_weights(stages_of(unbroken)["float"].folder)
    resumed = load_weights(folder)
    for name, tensor in expected.items():  # ranges that nothing has observed are NaN
        assert torch.equal(tensor.nan_to_num(), resumed[name].nan_to_num()), name


def test_what_follows_from_the_data_is_no_setting(tmp_path: Path) -> None:
    for key in ("vocabulary_size", "feature_size"):
        with pytest.raises(IrnnError, match=rf"model\.{key} follows from the data; leave it out"):
            problem_of(tiny_speech(tmp_path, f"+model.{key}=13"))
