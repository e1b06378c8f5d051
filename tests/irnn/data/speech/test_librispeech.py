"""LibriSpeech: its folder, lists of splits, tables of the hub, and utterances that cannot be used."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from irnn.data.audio.features import filterbank
from irnn.data.speech.corpus import load_speech, speech_splits
from irnn.data.speech.librispeech import LibriSpeechConfig, librispeech_splits
from irnn.errors import IrnnError
from tests.support import needs
from tests.support.speech_corpora import TEXTS, libri
from tests.support.speech_files import tone, write_librispeech


def test_librispeech_folder(tmp_path: Path) -> None:
    folder = write_librispeech(tmp_path / "LibriSpeech", TEXTS)
    splits = librispeech_splits(libri(folder, tmp_path))
    assert [(u.id, u.text, u.speaker) for u in splits["train"]] == [
        ("1-1-0000", "ONE TWO", "1"),
        ("1-1-0001", "THREE", "1"),
        ("2-5-0000", "TWO ONE", "2"),
    ]
    assert [u.id for u in splits["dev"]] == ["3-1-0000"]
    assert len(splits["train"][1].read()) == 2000  # 0.25 s, at 8 kHz
    slow = librispeech_splits(libri(folder, tmp_path, speeds=[0.8, 1.0]))
    assert [u.id for u in slow["train"]][:2] == ["1-1-0000-x0.8", "1-1-0000"]
    assert len(slow["train"][2].read()) == 2500
    assert len(slow["dev"]) == 1


def test_splits_file_decides(tmp_path: Path) -> None:
    folder = write_librispeech(tmp_path / "LibriSpeech", TEXTS)
    paths = {path.stem: path.relative_to(folder) for path in folder.rglob("*.flac")}
    wanted = {"1-1-0000": "train", "3-1-0000": "train", "2-5-0000": "dev", "4-1-0000": "test"}
    head = "utt\tsplit\tsubset\tspeaker\tsex\tseconds\tpath\ttranscript\n"
    rows = [f"{name}\t{split}\tx\t1\tF\t1\t{paths[name]}\tTEXT OF {name[0]}\n" for name, split in wanted.items()]
    (folder / "splits.tsv").write_text(head + "".join(rows))
    splits = librispeech_splits(libri(folder, tmp_path))
    assert {split: [u.id for u in found] for split, found in splits.items()} == {
        "train": ["1-1-0000", "3-1-0000"],
        "dev": ["2-5-0000"],
        "test": ["4-1-0000"],
    }
    assert splits["dev"][0].text == "TEXT OF 2"
    (folder / "splits.tsv").write_text(head + rows[0].replace("train", "eval"))
    with pytest.raises(IrnnError, match="line 2: 1-1-0000 is of the split 'eval'; allowed: train, dev, test"):
        speech_splits(libri(folder, tmp_path))
    (folder / "splits.tsv").write_text("utt\tsplit\n1\ttrain\n")
    with pytest.raises(IrnnError, match=r"splits\.tsv has no column 'speaker'"):
        librispeech_splits(libri(folder, tmp_path))


def test_parquet_of_the_hub_gives_what_the_folder_gives(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    folder = write_librispeech(tmp_path / "LibriSpeech", TEXTS)
    for subset, texts in TEXTS.items():
        paths = {path.stem: path for path in (folder / subset).rglob("*.flac")}
        table = {
            "file": [f"{name}.flac" for name in texts],
            "audio": [{"bytes": paths[name].read_bytes(), "path": f"{name}.flac"} for name in texts],
            "text": list(texts.values()),
            "speaker_id": [int(name.split("-")[0]) for name in texts],
            "id": list(texts),
        }
        place = tmp_path / "hub" / subset.replace("-", ".")
        place.mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.table(table), place / "0000.parquet")
    ours = librispeech_splits(libri(folder, tmp_path))
    names = {"train": ["train.clean.100"], "dev": ["dev.clean"], "test": ["test.clean"]}
    hub = librispeech_splits(libri(tmp_path / "hub", tmp_path, source="librispeech_hub", **names))
    for split in ("train", "dev", "test"):
        assert [(u.id, u.text, u.speaker) for u in hub[split]] == [(u.id, u.text, u.speaker) for u in ours[split]]
        for one, other in zip(hub[split], ours[split], strict=True):
            assert np.array_equal(one.read(), other.read())
    with pytest.raises(IrnnError, match=r"no parquet files at .*train\.other\.500/\*\.parquet"):
        librispeech_splits(libri(tmp_path / "hub", tmp_path, source="librispeech_hub", train=["train.other.500"]))


def _spoil(folder: Path) -> None:
    """One utterance of each kind that cannot be used, beside one that can."""
    place = folder / "train-clean-100" / "7" / "1"
    place.mkdir(parents=True)
    good = tone(0.3, 16000)
    soundfile.write(place / "7-1-0000.flac", good, 16000)
    (place / "7-1-0001.flac").write_bytes(b"broken")
    soundfile.write(place / "7-1-0002.flac", good, 16000)
    soundfile.write(place / "7-1-0003.flac", np.zeros(0, np.float32), 16000)
    soundfile.write(place / "7-1-0004.flac", tone(3.0, 16000), 16000)
    texts = ["ONE", "ONE", "", "ONE", "ONE", "ONE"]  # 7-1-0005 has no file
    lines = "".join(f"7-1-{k:04d} {text}".rstrip() + "\n" for k, text in enumerate(texts))
    (place / "7-1.trans.txt").write_text(lines)


def test_unusable_utterances_are_named_and_counted_or_stop_the_run(tmp_path: Path) -> None:
    folder = write_librispeech(tmp_path / "LibriSpeech", TEXTS)
    _spoil(folder)
    corpus = load_speech(libri(folder, tmp_path, leave_out=True, max_seconds=2.0))
    train = corpus.split("train")
    assert [u.id for u in train.utterances] == ["1-1-0000", "1-1-0001", "2-5-0000", "7-1-0000"]
    assert train.features(3).shape == (train.frames[3], 20)
    reasons = {left.id: left.reason for left in train.left_out}
    expected = {
        "7-1-0001": "cannot be read as audio",
        "7-1-0002": "the transcript is empty",
        "7-1-0003": "zero length",
        "7-1-0004": r"longer than max_seconds=2",
        "7-1-0005": "is no file",
    }
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in reasons[name]
        assert f"{name}.flac" in reasons[name]
        assert "\n" not in reasons[name]
        for other in {"7-1-0000", *expected} - {name}:
            (folder / "train-clean-100" / "7" / "1" / f"{other}.flac").unlink(missing_ok=True)
        lines = folder / "train-clean-100" / "7" / "1" / "7-1.trans.txt"
        text = "" if name == "7-1-0002" else " ONE"
        lines.write_text(f"{name}{text}\n")
        with pytest.raises(IrnnError) as caught:
            load_speech(libri(folder, tmp_path, max_seconds=2.0))
        assert f"{name}.flac" in str(caught.value)
        assert reason in str(caught.value)
        shutil.rmtree(folder / "train-clean-100" / "7")
        _spoil(folder)


def test_a_transcript_with_unknown_characters_is_named(tmp_path: Path) -> None:
    folder = write_librispeech(tmp_path / "LibriSpeech", TEXTS | {"dev-clean": {"3-1-0000": "ZOO"}})
    with pytest.raises(IrnnError, match=r"3-1-0000\.flac: 'Z' is not among the \d+ characters"):
        load_speech(libri(folder, tmp_path))
    with pytest.raises(IrnnError, match=r"no utterance of the dev split can be used; the first: .*'Z'"):
        load_speech(libri(folder, tmp_path, leave_out=True))


def test_real_librispeech() -> None:
    config = LibriSpeechConfig(source="librispeech", dir=str(needs.data("LibriSpeech")))
    splits = librispeech_splits(config)
    assert {name: len(found) for name, found in splits.items()} == {"train": 746, "dev": 96, "test": 156}
    speakers = [{u.speaker for u in found} for found in splits.values()]
    assert not speakers[0] & speakers[1]
    assert not (speakers[0] | speakers[1]) & speakers[2]
    first = splits["dev"][0]
    features = filterbank(first.read(), config.features, first.where)
    assert features.shape[1] == 80
    assert 5 < features.mean() < 25
