"""A language model of the transcripts in the search: its units, its weight, and what identifies it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import irnn
from irnn.data.speech.speech_batches import SpeechBatches
from irnn.errors import IrnnError
from irnn.recognition.decoding import SearchConfig
from irnn.recognition.recognizer import search
from pipelines.config import RunConfig, read_config
from pipelines.core import deploy
from pipelines.core.deploy import ARTEFACT
from pipelines.core.export import PROGRAM
from pipelines.problems.speech import speech_problem
from pipelines.problems.speech.error_rates import Transcripts
from pipelines.problems.speech.language_models import load_language_model
from pipelines.problems.speech.recognizers import load_recognizer
from pipelines.run import problem_of, run
from pipelines.transcribe import main
from tests.support import needs
from tests.support.tiny_run import composed, stages_of
from tests.support.tiny_speech import SETS, tiny_speech

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
