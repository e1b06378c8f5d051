"""What a run leaves on disk is a recognizer again, whatever executes it, and bad input is one line."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

import irnn
from irnn.errors import IrnnError
from irnn.recognition.decoding import SearchConfig
from pipelines.core import deploy
from pipelines.core.deploy import ARTEFACT, FLOAT_ARTEFACT
from pipelines.core.export import FLOAT_PROGRAM, PROGRAM
from pipelines.problems.speech.recognizers import load_recognizer
from pipelines.transcribe import main
from tests.support.speech_files import tone


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
