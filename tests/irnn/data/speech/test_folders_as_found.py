"""Folders of speech as they are found: nothing is dropped, counted twice or changed without a word."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from irnn.data.audio.utterances import NO_SPLIT
from irnn.data.folders import entries_under, recordings_of, shown
from irnn.data.speech.corpus import speech_splits
from irnn.data.speech.digits import DigitsConfig, digit_splits
from irnn.data.speech.librispeech import librispeech_splits
from irnn.data.speech.units import UnitsConfig
from tests.support.found_speech import BOTH, CHAPTER, Change, found, libri, refused
from tests.support.speech_files import NARROW, write_fsdd

LIST = CHAPTER / "1-1.trans.txt"


def transcripts(content: bytes) -> Change:
    return lambda folder: (folder / LIST).write_bytes(content)


def copied(place: str) -> Change:
    def change(folder: Path) -> None:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / CHAPTER / "1-1-0000.flac", folder / place)

    return change


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf1-1-0000 ONE TWO\n1-1-0001 TWO\n",
        b"1-1-0000 ONE TWO\r\n1-1-0001 TWO\r\n",
        b"1-1-0000 ONE TWO\r1-1-0001 TWO",
        b"1-1-0000\tONE \t TWO\n\n  1-1-0001 TWO \n",
        "1-1-0000 ONE\u2028TWO\n1-1-0001\tTWO\u00a0\n".encode(),
    ],
)
def test_transcripts_are_read_like_all_text(folder: Path, content: bytes) -> None:
    before = librispeech_splits(libri(folder))
    transcripts(content)(folder)
    after = librispeech_splits(libri(folder))
    for split in before:
        assert [(u.id, u.text, u.identity) for u in after[split]] == [(u.id, u.text, u.identity) for u in before[split]]


def gone(place: Path) -> Change:
    return lambda folder: (folder / place).unlink()


def linked(target: str) -> Change:
    """The recording 1-1-0001 becomes a link."""

    def change(folder: Path) -> None:
        (folder / CHAPTER / "1-1-0001.flac").unlink()
        (folder / CHAPTER / "1-1-0001.flac").symlink_to(target)

    return change


def another_list(content: bytes, place: Path = CHAPTER) -> Change:
    return lambda folder: (folder / place / "x.trans.txt").write_bytes(content)


# What is done to the folder, what is left out of train, a part of the reason.
FAULTS: dict[str, tuple[Change, list[str], str]] = {
    "no line": (transcripts(b"1-1-0000 ONE\n"), BOTH[1:], "1-1-0001.flac has no transcript: a *.trans.txt beside it"),
    "no list": (gone(LIST), BOTH, "has no transcript"),
    "above": (copied("train/x.flac"), ["x"], "train/x.flac has no transcript"),
    "below": (copied("train/a/b/c/x.FLAC"), ["x"], "c/x.FLAC has no transcript"),
    "other ending": (copied(f"{CHAPTER}/1-1-0000.wav"), BOTH[:1], "1-1-0000.wav has no transcript"),
    "no audio": (gone(CHAPTER / "1-1-0001.flac"), BOTH[1:], "1-1-0001.flac is no file"),
    "no such id": (transcripts(b"1-1-0000 A\n1-1-0001 A\n../9/9 A\n"), ["../9/9"], "9.flac is no file"),
    "too long": (transcripts(b"1-1-0000 A\n1-1-0001 A\n" + b"9" * 300), ["9" * 300], "9.flac is no file"),
    "blanks": (transcripts(b"1-1-0000 A\n1-1-0001 \xc2\xa0\t\n"), BOTH[1:], "1-1-0001.flac: the transcript is empty"),
    "latin-1": (transcripts(b"1-1-0000 A\n1-1-0001 \xc9\n"), BOTH, "1-1.trans.txt, line 2 is not UTF-8"),
    "utf-16": (transcripts("1-1-0000 A\n".encode("utf-16")), BOTH, "1-1.trans.txt is UTF-16"),
    "NUL": (transcripts(b"1-1-0000 A\0\n"), BOTH, "1-1.trans.txt, line 1 holds a NUL"),
    "list alone": (another_list(b"\xe9", Path("train")), ["train"], "x.trans.txt, line 1 is not UTF-8"),
    "list is a folder": (lambda f: (f / "train" / "x.trans.txt").mkdir(), ["train"], "x.trans.txt is no file"),
    "twice": (
        transcripts(b"1-1-0000 A\n1-1-0001 B\n1-1-0000  A \n"),
        BOTH[:1],
        "1-1.trans.txt, line 3 lists 1-1-0000 again, word for word as ",
    ),
    "two texts": (
        transcripts(b"1-1-0000 A\n1-1-0001 B\n1-1-0000 C\n"),
        BOTH[:1],
        "one recording, two texts; keep the right one",
    ),
    "two lists": (
        another_list(b"1-1-0001 B\n"),
        BOTH[1:],
        "x.trans.txt, line 1 lists 1-1-0001 in train: one recording",
    ),
    "link": (linked("1-1-0000.flac"), BOTH, "lists 1-1-0001 in train: one recording, two texts"),
    "broken link": (linked("1-1-0001.flac"), BOTH[1:], "1-1-0001.flac is no file"),
    "two lines in a name": (copied(f"{CHAPTER}/a\nb.flac"), ["a\\nb"], "a\\nb.flac has no transcript"),
    "no UTF-8 in a name": (copied(f"{CHAPTER}/caf\udce9.flac"), ["caf\\xe9"], "caf\\xe9.flac has no transcript"),
}
# Of these one line or file is left out, and another one is used.
USED_STILL = {"twice", "other ending"}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_used_is_named_or_counted_once(folder: Path, name: str) -> None:
    change, missing, reason = FAULTS[name]
    change(folder)
    assert reason in refused(libri(folder))
    ids, left_out = found(libri(folder, leave_out=True, speeds=[0.9, 1.0]))
    assert [left.removesuffix("-x0.9") for left, _ in left_out["train"]] == missing
    assert all(reason in why for _, why in left_out["train"][:1])
    kept = {"1-1-0000", "1-1-0001", "2-5-0000"} - (set() if name in USED_STILL else {*missing})
    assert {utterance for utterance in ids["train"] if "x" not in utterance} == kept
    assert len(ids["train"]) == 2 * len(kept)


def test_one_recording_of_two_splits_is_used_in_neither(folder: Path) -> None:
    (folder / "test" / "4" / "1" / "4-1-0000.flac").unlink()
    (folder / "test" / "4" / "1" / "4-1-0000.flac").symlink_to(folder / CHAPTER / "1-1-0001.flac")
    message = "lists 1-1-0001 in train, and "
    assert message in refused(libri(folder))
    assert "lists 4-1-0000 in test: one recording; keep" in refused(libri(folder))
    assert "no utterance of the test split can be used; the first: " in refused(libri(folder, leave_out=True))


def test_one_subset_is_read_once(folder: Path) -> None:
    assert refused(libri(folder, test=["dev"])).startswith("`test` lists the subset 'dev', which `dev` lists too")
    assert refused(libri(folder, train=["train", "train"])).startswith(
        "`train` lists the subset 'train', which `train` lists too"
    )


def test_links_into_the_folder_do_not_multiply_it(folder: Path) -> None:
    """A link that leads back, files of the system, and one chapter by two names."""
    before = found(libri(folder))
    (folder / CHAPTER / "loop").symlink_to(folder / "train")
    (folder / "train" / "9").symlink_to(folder / "train" / "2")
    (folder / CHAPTER / "._1-1.trans.txt").write_bytes(b"\0\5")
    (folder / CHAPTER / "._1-1-0000.flac").write_bytes(b"\0\5")
    (folder / CHAPTER / "notes.txt").write_text("read in May")
    assert found(libri(folder)) == before


def test_linked_folders_are_read(folder: Path, tmp_path: Path) -> None:
    before = found(libri(folder))
    shutil.move(folder / "train" / "2", tmp_path / "elsewhere")
    (folder / "train" / "2").symlink_to(tmp_path / "elsewhere")
    assert found(libri(folder)) == before


def test_a_folder_that_cannot_be_listed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions bind no test that runs as root: the system's refusal is made here."""
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("/1/1"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert "train/1/1 cannot be listed (Permission denied); mend its permissions" in refused(
        libri(folder, leave_out=True)
    )


def test_names_are_shown_in_one_printable_line() -> None:
    assert shown(Path("a b é/ü")) == "a b é/ü"
    assert shown("a\nb\x07\udce9") == "a\\nb\\x07\\xe9"
    paths = [Path(name) for name in ("a.flac", "B.WAV", "c.txt", "d", "flac", "e.trans.txt", "f.m4a")]
    assert [path.name for path in recordings_of(paths)] == ["a.flac", "B.WAV", "f.m4a"]


def test_entries_of_an_empty_folder(tmp_path: Path) -> None:
    assert entries_under(tmp_path) == []
    (tmp_path / "a.wav").mkdir()
    assert entries_under(tmp_path) == [tmp_path / "a.wav"]


def digits(folder: Path, **more: Any) -> DigitsConfig:
    values = {"train_strings": 20, "evaluation_strings": 5, "units": UnitsConfig("words")} | more
    return DigitsConfig(
        source="digits", dir=str(folder), features=NARROW, cache_dir=str(folder.parent / "cache"), **values
    )


@pytest.mark.parametrize(
    ("place", "left_out", "message"),
    [
        (
            "0_Ann_9.wav",
            ["0_Ann_9.wav"],
            "0_Ann_9.wav does not say who speaks what: names are {digit}_{speaker}_{index}",
        ),
        ("10_ann_9.wav", ["10_ann_9.wav"], "does not say who speaks what"),
        ("0_ann_9.FLAC", ["0_ann_9.FLAC"], "does not say who speaks what"),
        ("more/0_ann_9.wav", ["0_ann_9.wav"], "more/0_ann_9.wav does not say"),
        ("caf\udce9.wav", ["caf\\xe9.wav"], "caf\\xe9.wav does not say"),
        ("0_ann_00.wav", ["0_ann_0.wav", "0_ann_00.wav"], "0_ann_0.wav and"),
    ],
)
def test_recordings_of_digits_by_other_names(tmp_path: Path, place: str, left_out: list[str], message: str) -> None:
    folder = write_fsdd(tmp_path / "fsdd")
    (folder / "recordings" / "more").mkdir()
    before = {name: [u.identity for u in us] for name, us in digit_splits(digits(folder)).items()}
    shutil.copy(folder / "recordings" / "0_ann_4.wav", os.path.join(folder, "recordings", place))
    assert message in refused(digits(folder))
    _, unused = found(digits(folder, leave_out=True))
    assert [name for name, _ in unused[NO_SPLIT]] == left_out
    if len(left_out) == 1:
        after = speech_splits(digits(folder, leave_out=True))[0]
        assert {name: [u.identity for u in us] for name, us in after.items()} == before


def test_a_recording_of_digits_by_two_names_is_in_no_split(tmp_path: Path) -> None:
    folder = write_fsdd(tmp_path / "fsdd")
    (folder / "recordings" / "0_ann_9.wav").symlink_to("0_ann_0.wav")
    assert "0_ann_0.wav and " in refused(digits(folder))
    _, unused = found(digits(folder, leave_out=True))
    assert [name for name, _ in unused[NO_SPLIT]] == ["0_ann_0.wav", "0_ann_9.wav"]
