"""Text in a recognizer's units, and the language models that are trained on it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

import irnn
from irnn.arithmetic.torch_ops import TORCH
from irnn.data import TextConfig, Vocabulary, load_corpus
from irnn.data.speech.librispeech import LibriSpeechConfig
from irnn.data.speech.synthetic_speech import SyntheticSpeechConfig, synthetic_splits
from irnn.data.speech.units import EOS, Units, UnitsConfig
from irnn.data.text.corpus import SPLITS
from irnn.errors import IrnnError
from irnn.program.interpreter import Interpreter
from irnn.recognition.recognizer import program_step
from pipelines.config import read_config
from pipelines.problems.language_model import text_problem
from pipelines.problems.speech.language_models import load_language_model
from pipelines.run import problem_of
from tests.support.models import VOCABULARY, language_model, quantized
from tests.support.speech_files import write_librispeech
from tests.support.tiny_run import composed

TEXTS = ["HE LAUGHED", "AH ME", "HE LAUGHED", "A LEAF FELL"]


def lines_of(corpus, split: str) -> list[str]:
    """The text between the ends of lines."""
    lines, line = [], []
    for number in getattr(corpus, split).tolist():
        if number == EOS:
            lines.append(corpus.units.decode(line))
            line = []
        else:
            line.append(number)
    assert not line
    return lines


def librispeech(tmp_path: Path, train: list[str] = TEXTS, **more) -> LibriSpeechConfig:
    parts = {"train": train, "dev": ["A FLEA"], "test": ["ME"]}
    named = {part: {f"1-2-{k:04d}": text for k, text in enumerate(texts)} for part, texts in parts.items()}
    folder = tmp_path / "libri"
    if not folder.exists():
        write_librispeech(folder, named)
    return LibriSpeechConfig(source="librispeech", dir=str(folder), train=["train"], dev=["dev"], test=["test"], **more)


def text_folder(folder: Path, **splits: str) -> Path:
    folder.mkdir()
    for split in SPLITS:
        (folder / f"{split}.txt").write_text(splits.get(split, "HE LAUGHED\n"))
    return folder


def saved_units(folder: Path, kind: str, size: int | None = None) -> str:
    Units.train(TEXTS * 5, UnitsConfig(kind, size)).save(folder)
    return str(folder)


def test_transcripts_are_one_stream_with_an_end_behind_each() -> None:
    config = SyntheticSpeechConfig(source="synthetic_speech", train_strings=30, evaluation_strings=5)
    corpus = load_corpus(TextConfig("transcripts", speech=config))
    said = synthetic_splits(config)
    for split, name in (("train", "train"), ("valid", "dev"), ("test", "test")):
        assert lines_of(corpus, split) == [utterance.text for utterance in said[name]]
    assert corpus.train.dtype == np.int64
    assert corpus.vocabulary.eos == EOS
    assert corpus.vocabulary.words == corpus.units.names
    fewer = SyntheticSpeechConfig(source="synthetic_speech", train_strings=29, evaluation_strings=5)
    assert load_corpus(TextConfig("transcripts", speech=fewer)).fingerprint != corpus.fingerprint


def test_units_of_transcripts_are_those_of_the_corpus_recognizer(tmp_path: Path) -> None:
    """The very ids: pieces depend on how often a text is there, so on the speeds; the stream has each text once."""
    for kind, size in (("characters", None), ("sentencepiece", 14)):
        config = librispeech(tmp_path, speeds=(0.9, 1.0, 1.1), units=UnitsConfig(kind, size))
        corpus = load_corpus(TextConfig("transcripts", speech=config))
        recognizer = Units.train([text for text in TEXTS for _ in range(3)], config.units)
        assert corpus.units.describe() == recognizer.describe()
        assert lines_of(corpus, "train") == TEXTS
        assert np.array_equal(corpus.valid, [*recognizer.encode("A FLEA"), EOS])


def test_transcripts_are_cut_into_the_units_of_a_trained_recognizer(tmp_path: Path) -> None:
    config = librispeech(tmp_path, units=UnitsConfig("characters"))
    units = saved_units(tmp_path / "units", "sentencepiece", 14)
    corpus = load_corpus(TextConfig("transcripts", speech=config, units=units))
    assert corpus.units.describe() == Units.load(tmp_path / "units").describe()
    assert lines_of(corpus, "train") == TEXTS


@pytest.mark.parametrize(("kind", "size"), [("words", None), ("characters", None), ("sentencepiece", 14)])
def test_any_text_is_cut_into_saved_units(tmp_path: Path, kind: str, size: int | None) -> None:
    folder = text_folder(tmp_path / "text", train="AH  ME\nHE LAUGHED\n", valid="A LEAF\n")
    config = TextConfig("folder", dir=str(folder), units=saved_units(tmp_path / "units", kind, size))
    corpus = load_corpus(config)
    units = Units.load(tmp_path / "units")
    assert np.array_equal(corpus.train, [*units.encode("AH ME"), EOS, *units.encode("HE LAUGHED"), EOS])
    assert lines_of(corpus, "valid") == ["A LEAF"]
    assert corpus.vocabulary.words == units.names
    assert corpus.fingerprint != load_corpus(TextConfig("folder", dir=str(folder), max_vocabulary=9)).fingerprint


def test_the_fingerprint_follows_the_units(tmp_path: Path) -> None:
    """Equal ids of other units are another model."""
    folder = text_folder(tmp_path / "text")
    Units("words", ["HE", "LAUGHED"]).save(tmp_path / "one")
    Units("words", ["HE", "LAUGHED", "ME"]).save(tmp_path / "two")
    first, second = (
        load_corpus(TextConfig("folder", dir=str(folder), units=str(tmp_path / k))) for k in ("one", "two")
    )
    assert np.array_equal(first.train, second.train)
    assert first.fingerprint != second.fingerprint


def test_transcripts_that_cannot_be_used_are_named_or_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = librispeech(tmp_path, ["HE LAUGHED", "", "A FLEAM"])
    with pytest.raises(IrnnError, match=r"1-2-0001\.flac: the transcript is empty"):
        load_corpus(TextConfig("transcripts", speech=config))
    corpus = load_corpus(TextConfig("transcripts", speech=librispeech(tmp_path, leave_out=True)))
    assert lines_of(corpus, "train") == ["HE LAUGHED", "A FLEAM"]
    assert [left.id for left in corpus.left_out["train"]] == ["1-2-0001"]
    overrides = [
        "experiment=librispeech_lm", f"data.speech.dir={config.dir}", "data.speech.train=[train]",
        "data.speech.dev=[dev]", "data.speech.test=[test]", "data.speech.leave_out=true",
    ]  # fmt: skip
    problem = problem_of(read_config(composed(*overrides)))
    assert "train: 1 utterances are left out; the first: " in capsys.readouterr().out
    assert problem.metadata() == {"units": corpus.units.describe()}
    monkeypatch.setattr(text_problem, "mismatch", lambda *executors: {})
    monkeypatch.setattr(text_problem, "stream_cross_entropy", lambda *stream, **options: (1.0, 1))
    program = SimpleNamespace(run_all=None, output_scales=[1.0])
    assert problem.evaluate(program, nn.Module(), None, tmp_path, tmp_path).metrics["left_out"] == {"train": 1}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["~data.speech"], r"data\.speech is not set, and data\.source=transcripts reads from it"),
        (["data.source=folder", "+data.dir=x"], r"data\.speech is set, and data\.source=folder does not read it"),
        (["data.speech.source=radio"], r"^data\.speech\.source='radio' is unknown; allowed: synthetic_speech"),
        (["data.speech.max_digits=0"], r"^data\.speech\.max_digits=0 must be at least 1"),
        (["+data.speech.batch_size=3"], r"^data\.speech\.batch_size is no key of the configuration"),
        (["data@data.speech=digits"], r"^data\.speech\.dir is not set; add data\.speech\.dir=FOLDER"),
        (["+data.dir=x"], r"data\.dir=x: transcripts are those of data\.speech"),
        (["+data.max_vocabulary=9"], r"data\.max_vocabulary=9: a recognizer's units are all kept"),
        (["data=text", "data.dir=x", "data.units=y", "data.max_vocabulary=9"], r"a recognizer's units are all kept"),
    ],
)  # fmt: skip
def test_wrong_values_are_one_clear_line(overrides: list[str], message: str) -> None:
    with pytest.raises(IrnnError, match=message) as caught:
        read_config(composed("experiment=synthetic_speech_lm", *overrides))
    assert "\n" not in str(caught.value)


def test_a_corpus_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    config = read_config(composed("experiment=librispeech_lm", "data.speech.dir=/nowhere")).data
    with pytest.raises(IrnnError, match=r"^speech\.dir=/nowhere is not a folder"):
        load_corpus(config)
    folder = str(text_folder(tmp_path / "text", valid="HE LAUGHED\nHE RAN\n"))
    with pytest.raises(IrnnError, match=r"the valid split, line 2: 'R' is not among the 10 characters"):
        load_corpus(TextConfig("folder", dir=folder, units=saved_units(tmp_path / "units", "characters")))
    with pytest.raises(IrnnError, match=r"no units at .*libri"):
        load_corpus(TextConfig("folder", dir=folder, units=str(tmp_path / "libri")))


class TestLanguageModels:
    """On disk and as the step of a search."""

    units = Units("words", [f"w{k}" for k in range(VOCABULARY - 3)])

    @pytest.fixture
    def program(self) -> irnn.Program:
        program = irnn.convert(quantized(language_model()))
        program.metadata["units"] = self.units.describe()
        return program

    def test_a_step_reads_what_a_stream_reads(self, program: irnn.Program) -> None:
        """A line of the training text behind the end of another one, unit by unit; two rows that are told apart."""
        lines = np.array([[EOS, 7, 9, 4], [EOS, 8, 3, 3]])
        logits_i32, _ = program.run(lines)
        for run in (program, Interpreter(program, TORCH)):
            step, state = program_step(program, run), None
            for k in range(lines.shape[1]):
                logits, state = step(lines[:, k], state)
                assert np.array_equal(logits, logits_i32[:, k] * program.logits_scale)
        assert not np.array_equal(logits_i32[0, 1], logits_i32[1, 1])

    def test_only_what_was_trained_in_these_units_is_taken(self, program: irnn.Program, tmp_path: Path) -> None:
        program.save(tmp_path / "program")
        Vocabulary(self.units.names).save(tmp_path / "program" / "vocabulary.json")
        model = load_language_model(tmp_path / "program", self.units)
        assert (model.kind, model.program_hash) == ("integer", irnn.program.storage.program_hash(program))
        others = Units("characters", self.units.names[3:])
        with pytest.raises(IrnnError, match=r"vocabulary of 60 characters .* does not match .*program, which was") as e:
            load_language_model(tmp_path / "program", others)
        assert "\n" not in str(e.value)
        for folder in (tmp_path, tmp_path / "nowhere"):
            with pytest.raises(IrnnError, match=r"holds no language model; search\.language_model takes the program/"):
                load_language_model(folder, self.units)
        program.metadata.clear()
        program.save(tmp_path / "plain")
        with pytest.raises(IrnnError, match=r"was not trained in the units of a recognizer; train it with"):
            load_language_model(tmp_path / "plain", self.units)
        irnn.float_program(language_model().eval()).save(tmp_path / "float")
        with pytest.raises(IrnnError, match=r"is a float program, which has to be compiled; give the run's program/"):
            load_language_model(tmp_path / "float", self.units)
