"""A recognizer through all stages; what is left on disk is a recognizer again, and bad input is one line."""

import io
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import irnn
from irnn.data.speech.speech_batches import SpeechBatches
from irnn.errors import IrnnError
from irnn.recognition.decoding import SearchConfig
from irnn.recognition.recognizer import search
from pipelines.config import RunConfig, read_config
from pipelines.core import deploy
from pipelines.core.checkpoints import load_weights
from pipelines.core.deploy import ARTEFACT, FLOAT_ARTEFACT
from pipelines.core.export import FLOAT_PROGRAM, PROGRAM
from pipelines.core.plan import plan
from pipelines.core.problem import TaskSettings
from pipelines.core.stages import Stage
from pipelines.problems.speech import speech_problem
from pipelines.problems.speech.error_rates import Transcripts
from pipelines.problems.speech.language_models import load_language_model
from pipelines.problems.speech.recognizers import load_recognizer
from pipelines.run import problem_of, run
from pipelines.transcribe import main
from tests.pipelines.core.test_training import run_and_kill
from tests.support import needs
from tests.support.speech_files import tone
from tests.support.tiny_run import composed
from tests.support.tiny_speech import tiny_speech, tiny_speech_overrides

SETS = ("dev", "test")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def stages_of(config: RunConfig) -> dict[str, Stage]:
    return {stage.name: stage for stage in plan(config, problem_of(config))}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[RunConfig, dict, dict[str, Path]]:
    """(configuration, results, folders of the stages) of a whole run."""
    config = tiny_speech(tmp_path_factory.mktemp("speech"), "evaluation.search.beam=2")
    results = run(config)
    return config, results, {name: stage.folder for name, stage in stages_of(config).items()}


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """A stereo file at another rate than the recognizer's."""
    path = tmp_path_factory.mktemp("audio") / "stereo.wav"
    left, right = tone(0.9, 22050, 300), tone(0.9, 22050, 900)
    soundfile.write(path, np.stack([left, right], axis=1), 22050)
    return path


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
    unbroken = tiny_speech(tmp_path / "unbroken", *more, "logger=csv_tensorboard")
    run(unbroken)
    curves = (stages_of(unbroken)["float"].folder / "csv" / "version_0" / "metrics.csv").read_text().splitlines()
    first, second = (int(line.split(",")[3]) + 1 for line in curves[1::2])
    assert first == math.ceil((second - first) / 2)
    # Later stages begin with a trained model and see everything at once.
    settings = TaskSettings("pwl", "", 1, [0.1], [0.0], 0, "adam", bf16=False)
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


def _recording(rate: int = 8000) -> bytes:
    """A WAV file of 8000 samples."""
    file = io.BytesIO()
    soundfile.write(file, tone(1.0, 8000), rate, format="WAV")
    return file.getvalue()


class TestTranscribe:
    def test_back_ends_agree(self, finished, recording: Path, capsys: pytest.CaptureFixture) -> None:
        _, _, folders = finished
        models = [folders["program"] / PROGRAM]
        kinds = ["integer"]
        if deploy.available():
            models.append(folders["artefact"] / ARTEFACT)
            kinds.append("compiled")
        assert [load_recognizer(model).kind for model in models] == kinds
        said = set()
        for model in models:
            assert main([str(model), str(recording), str(recording)]) == 0
            first, second = capsys.readouterr().out.splitlines()
            assert first == second
            assert first.startswith(f"{recording}: ")
            said.add(first)
        assert len(said) == 1

    def test_float_stages_are_recognizers(self, finished, recording: Path, capsys: pytest.CaptureFixture) -> None:
        _, _, folders = finished
        assert main([str(folders["float"]), str(recording)]) == 0
        # A stage is shared by runs with other searches: it is searched as it was scored, greedily.
        assert load_recognizer(folders["float_matched"]).kind == "float"
        assert load_recognizer(folders["float_matched"]).search == SearchConfig()
        runs_own = ["search.beam=2", "search.max_length_factor=0.0", "search.max_length_extra=5"]
        assert main([str(folders["float_matched"]), str(recording), *runs_own]) == 0
        _, matched = capsys.readouterr().out.splitlines()
        if deploy.available():
            assert main([str(folders["artefact"] / FLOAT_ARTEFACT), str(recording)]) == 0
            assert capsys.readouterr().out.splitlines() == [matched]

    def test_rate_and_channels_do_not_matter(self, finished, tmp_path: Path) -> None:
        _, _, folders = finished
        recognizer = load_recognizer(folders["program"] / PROGRAM)
        sound = tone(1.0, 8000, 500) * np.linspace(0, 1, 8000, dtype=np.float32)
        soundfile.write(tmp_path / "mono.wav", sound, 8000, subtype="FLOAT")
        soundfile.write(tmp_path / "stereo.wav", np.stack([sound, sound], 1), 8000, subtype="FLOAT")
        fast = tone(1.0, 44100, 500) * np.linspace(0, 1, 44100, dtype=np.float32)
        soundfile.write(tmp_path / "fast.wav", fast, 44100, subtype="FLOAT")
        texts = {recognizer.transcribe(tmp_path / f"{name}.wav") for name in ("mono", "stereo", "fast")}
        assert len(texts) == 1

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda path: path.write_bytes(b""), "is an empty file (zero length)"),
            (lambda path: path.write_bytes(b"RIFF" + bytes(60)), "cannot be read as audio"),
            (lambda path: soundfile.write(path, np.zeros(0), 8000), "holds no samples (zero length)"),
            (lambda path: soundfile.write(path, np.zeros(100), 8000), "100 samples at 8000 Hz, less than the 200"),
            (
                lambda path: soundfile.write(path, np.full(4000, np.nan, np.float32), 8000, subtype="FLOAT"),
                "samples are NaN or infinite",
            ),
            (lambda path: None, "is no file"),
            (lambda path: path.write_bytes(_recording()[:9000]), "is truncated: its header states 7044 bytes more"),
            (lambda path: path.write_bytes(_recording(rate=1)), "has a sample rate of 1 Hz; allowed: 1000 to 1000000"),
        ],
    )
    def test_bad_audio_is_one_line(self, finished, tmp_path: Path, capsys, make, message: str) -> None:
        path = tmp_path / "bad.wav"
        make(path)
        assert main([str(finished[2]["program"] / PROGRAM), str(path)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert message in error
        assert str(path) in error

    def test_an_utterance_that_is_too_long_is_named(self, finished, recording: Path) -> None:
        recognizer = load_recognizer(finished[2]["program"] / PROGRAM)
        with pytest.raises(IrnnError, match=r"stereo\.wav lasts 0\.90 s, longer than the 0\.5 s"):
            replace(recognizer, max_seconds=0.5).transcribe(recording)

    def test_another_vocabulary_is_refused(self, finished, tmp_path: Path) -> None:
        copy = shutil.copytree(finished[2]["program"] / PROGRAM, tmp_path / "program")
        units = json.loads((copy / "units.json").read_text())
        units["names"][3] = "nought"
        (copy / "units.json").write_text(json.dumps(units))
        with pytest.raises(IrnnError, match="was edited or belongs to another"):
            load_recognizer(copy)
        irnn.data.speech.units.Units("words", ["no", "yes"]).save(copy)
        with pytest.raises(IrnnError, match=rf"vocabulary of 5 words .* does not match {copy}"):
            load_recognizer(copy)

    def test_folders_that_hold_no_recognizer_say_what_is_wanted(self, finished, tmp_path: Path) -> None:
        _, _, folders = finished
        with pytest.raises(IrnnError, match="holds no recognizer; give a run's program/"):
            load_recognizer(tmp_path)
        with pytest.raises(IrnnError, match="is a float program, which has to be compiled"):
            load_recognizer(folders["program"] / FLOAT_PROGRAM)
        with pytest.raises(IrnnError, match="holds no recognizer"):
            load_recognizer(folders["pwl"])
        (tmp_path / "program.json").write_text("{}")
        with pytest.raises(IrnnError, match="holds a language model"):
            load_recognizer(tmp_path)
        copy = shutil.copytree(folders["float"], tmp_path / "float")
        (copy / "recognizer.json").write_text("{}")
        with pytest.raises(IrnnError, match="run the stage again"):
            load_recognizer(copy)

    def test_a_wrong_command_line_shows_the_usage(self, capsys: pytest.CaptureFixture) -> None:
        assert main(["model"]) == 2
        assert main(["--help"]) == 2
        assert capsys.readouterr().err.startswith("usage: python -m pipelines.transcribe MODEL FILE ...")


TINY_MODEL = [
    "experiment=synthetic_speech_lm",
    "logger=none",
    "trainer.progress=false",
    "data.speech.train_strings=40",
    "data.speech.evaluation_strings=3",
    "data.speech.max_digits=2",
    "data.batch_size=2",
    "recipe.float.epochs=2",
    "pwl.pieces=8",
    "evaluation.interpreter_tokens=20",
]


@pytest.fixture(scope="module")
def language_model(finished) -> Path:
    """The run's folder of a language model of the recognizer's transcripts."""
    config = read_config(composed(*TINY_MODEL, f"output_dir={finished[0].output_dir}"))
    results = run(config)
    assert results["mismatches"]["interpreter_vs_qat"]["count"] == 0
    return config.output_dir / config.name / results["digest"]


class TestLanguageModel:
    """From the transcripts to the search: its units, its weight, and what identifies it."""

    def fused(self, finished, folder: Path, *more: str) -> RunConfig:
        """The configuration of the finished run with the language model in `folder`."""
        model = f"evaluation.search.language_model={folder}"
        parent = finished[0].output_dir.parent
        return tiny_speech(parent, "evaluation.search.beam=2", "evaluation.search.lm_weight=2", model, *more)

    def test_nothing_is_trained_again_for_the_fused_search(self, finished, language_model: Path) -> None:
        config, results, folders = finished
        fused = self.fused(finished, language_model / PROGRAM)
        again = run(fused)
        changed = {name for name, stage in stages_of(fused).items() if stage.folder != folders[name]}
        # The program says how it is to be searched; nothing is trained again.
        assert changed == {"program", "artefact", "evaluate", "bench"} & set(folders)
        searches = [load_recognizer(stages_of(c)["program"].folder / PROGRAM).search for c in (config, fused)]
        assert [search.lm_weight for search in searches] == [0, 2]
        before, after = (found["stages"]["integer"] for found in (results, again))
        assert set(before) == set(after)
        assert {name: after[name] for name in after if "search" not in name} == {
            name: before[name] for name in before if "search" not in name
        }
        said = [
            Transcripts.load(config.output_dir / config.name / found["digest"] / "search_dev_transcripts.json")
            for found in (results, again)
        ]
        assert said[0].hypotheses != said[1].hypotheses

    def test_the_evaluation_is_identified_by_the_integers_not_by_the_folder(
        self, finished, language_model: Path, tmp_path: Path
    ) -> None:
        def digest(folder: Path) -> str:
            return stages_of(self.fused(finished, folder))["evaluate"].digest

        there = shutil.copytree(language_model / PROGRAM, tmp_path / "there")
        first = digest(language_model / PROGRAM)
        assert digest(there) == first
        if deploy.available():
            assert digest(language_model / ARTEFACT) == first
        program = irnn.load(there)
        bias = next(tensor for tensor in program.tensors.values() if tensor.data.dtype == np.int32)
        bias.data.flat[0] ^= 1
        shutil.rmtree(there)
        program.save(there)
        assert digest(there) != first

    @pytest.mark.parametrize("beam", [1, 3])
    def test_interpreter_and_compiled_library_find_the_same_units(
        self, finished, language_model: Path, beam: int
    ) -> None:
        needs.tvm()
        config, _, folders = finished
        corpus = problem_of(config).corpus
        tokens, found = speech_problem._TOKENS, []
        settings = SearchConfig(beam=beam, max_length_factor=0.0, max_length_extra=5, lm_weight=0.5)
        places = [(folders["program"] / PROGRAM, language_model / PROGRAM)]
        places.append((folders["artefact"] / ARTEFACT, language_model / ARTEFACT))
        for place, folder in places:
            recognizer, model = load_recognizer(place), load_language_model(folder, corpus.units)
            assert recognizer.kind == model.kind
            found.append([])
            for name in SETS:
                batches = SpeechBatches(corpus, name)
                for batch in (batches[k] for k in range(len(batches))):
                    features, frames = batch.features.numpy(), batch.frames.tolist()
                    found[-1] += search(recognizer.recognizer, features, frames, tokens, settings, model.step)
        assert found[0] == found[1]  # scores as well
        assert len(found[0]) == 6
        assert any(hypothesis.tokens for hypothesis in found[0])

    def test_a_model_of_other_units_stops_before_anything_is_trained(
        self, finished, language_model: Path, tmp_path: Path
    ) -> None:
        more = ["evaluation.search.lm_weight=1", f"evaluation.search.language_model={language_model / PROGRAM}"]
        with pytest.raises(IrnnError, match=r"vocabulary of \d+ characters .* does not match .*program, which was"):
            run(tiny_speech(tmp_path, "data.units.kind=characters", *more))
        with pytest.raises(IrnnError, match=r"holds no language model"):
            run(
                tiny_speech(tmp_path, *more[:1], f"evaluation.search.language_model={finished[2]['program'] / PROGRAM}")
            )
        assert not (tmp_path / "out").exists()

    def test_transcribe_takes_the_keys_of_the_search(
        self, finished, language_model: Path, recording: Path, capsys: pytest.CaptureFixture
    ) -> None:
        _, _, folders = finished
        said = {}
        for weight in (0.01, 8):
            for kind, model in ((PROGRAM, "program"), (ARTEFACT, "artefact")):
                if model in folders:
                    search = ["search.beam=2", f"search.lm_weight={weight}", "search.max_length_extra=3"]
                    search.append(f"search.language_model={language_model / kind}")
                    assert main([str(folders[model] / kind), str(recording), *search]) == 0
                    said.setdefault(weight, set()).add(capsys.readouterr().out)
        assert [len(texts) for texts in said.values()] == [1, 1]
        assert said[0.01] != said[8]

    @pytest.mark.parametrize(
        ("search", "message"),
        [
            (["search.lm_weight=0.3"], "search.lm_weight=0.3 needs a language model: set search.language_model=FOLDER"),
            (["search.language_model=x"], "search.language_model=x has no weight: set search.lm_weight"),
            (["search.lm_weight=1", "search.language_model=x"], "x holds no language model"),
            (["search.beam=0"], "search.beam=0 must be at least 1"),
            (["search.width=3"], "search.width is no key of the configuration; allowed: beam"),
            (["search.beam=[3"], "'search.beam=[3' cannot be read; it takes search.KEY=VALUE"),
        ],
    )
    def test_a_wrong_search_is_one_line(self, finished, recording: Path, capsys, search, message: str) -> None:
        assert main([str(finished[2]["program"] / PROGRAM), str(recording), *search]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {message}")
        assert error.count("\n") == 1

    def test_a_saved_weight_asks_for_the_model_and_no_folder_is_saved(
        self, finished, language_model: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        metadata = problem_of(self.fused(finished, language_model / PROGRAM)).metadata()
        assert str(language_model) not in json.dumps(metadata)
        assert metadata["search"]["lm_weight"] == 2
        copy = shutil.copytree(finished[2]["program"] / PROGRAM, tmp_path / "program")
        index = json.loads((copy / "programs.json").read_text())
        (copy / "programs.json").write_text(json.dumps(index | {"metadata": metadata}))
        assert main([str(copy), str(recording)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: search.lm_weight=2 needs a language model: set search.language_model=FOLDER")
        assert main([str(copy), str(recording), f"search.language_model={language_model / PROGRAM}"]) == 0
        assert main([str(copy), str(recording), "search.lm_weight=0"]) == 0
