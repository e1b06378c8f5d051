"""Folders and lists of speech as they are found: nothing is dropped, counted twice or changed without a word."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from irnn.data import TextConfig, load_corpus
from irnn.data.audio.features import FeatureConfig
from irnn.data.audio.utterances import NO_SPLIT
from irnn.data.folders import entries_under, recordings_of, shown
from irnn.data.speech.corpus import load_speech, speech_splits
from irnn.data.speech.digits import DigitsConfig, digit_splits
from irnn.data.speech.librispeech import LibriSpeechConfig, librispeech_splits
from irnn.data.speech.units import UnitsConfig
from irnn.errors import IrnnError
from tests.support.speech_files import write_fsdd, write_librispeech

NARROW = FeatureConfig(sample_rate=8000, num_mel_bins=20)
TEXTS = {
    "train": {"1-1-0000": "ONE TWO", "1-1-0001": "TWO", "2-5-0000": "TWO ONE"},
    "dev": {"3-1-0000": "ONE"},
    "test": {"4-1-0000": "TWO"},
}
CHAPTER = Path("train", "1", "1")
LIST = CHAPTER / "1-1.trans.txt"
Change = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_librispeech(tmp_path / "libri", TEXTS)


def libri(folder: Path, **more: Any) -> LibriSpeechConfig:
    values = {"train": ["train"], "dev": ["dev"], "test": ["test"], "source": "librispeech"} | more
    return LibriSpeechConfig(dir=str(folder), features=NARROW, cache_dir=str(folder.parent / "cache"), **values)


def found(config: Any) -> tuple[dict[str, list[str]], dict[str, list[tuple[str, str]]]]:
    """(ids by split, what is left out by split) of a corpus that is ready for training."""
    corpus = load_speech(config)
    ids = {name: [utterance.id for utterance in split.utterances] for name, split in corpus.splits.items()}
    return ids, {name: [tuple(left) for left in unused] for name, unused in corpus.left_out.items() if unused}


def refused(config: Any) -> str:
    with pytest.raises(IrnnError) as caught:
        load_speech(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


BOTH = ["1-1-0000", "1-1-0001"]
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


HEAD = "utt\tsplit\tspeaker\tpath\ttranscript\n"
ROWS = [
    "1-1-0000\ttrain\t1\ttrain/1/1/1-1-0000.flac\tONE TWO\n",
    "1-1-0001\ttrain\t1\ttrain/1/1/1-1-0001.flac\tONE TWO\n",
    "3-1-0000\tdev\t3\tdev/3/1/3-1-0000.flac\tONE\n",
    "4-1-0000\ttest\t4\ttest/4/1/4-1-0000.flac\tTWO\n",
]
TABLE = HEAD + "".join(ROWS)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + TABLE.encode(),
        TABLE.replace("\n", "\r\n").encode(),
        TABLE.replace("\n", "\r").encode(),
        TABLE.replace("\n", "\n\n").encode(),
    ],
)
def test_the_list_of_splits_is_read_like_all_text(folder: Path, content: bytes) -> None:
    (folder / "splits.tsv").write_text(TABLE)
    before = librispeech_splits(libri(folder))
    assert {split: len(utterances) for split, utterances in before.items()} == {"train": 2, "dev": 1, "test": 1}
    (folder / "splits.tsv").write_bytes(content)
    after = librispeech_splits(libri(folder))
    for split in before:
        assert [(u.id, u.text, u.identity) for u in after[split]] == [(u.id, u.text, u.identity) for u in before[split]]


@pytest.mark.parametrize(
    ("more", "split", "left_out", "message"),
    [
        ("9\ttrain\n", "train", ["9"], "splits.tsv, line 6 has 2 cells between tabs, not 5; mend the line"),
        ("9\ttrain\t1\tp\tA\tB\n", "train", ["9"], "splits.tsv, line 6 has 6 cells between tabs, not 5"),
        ("9\n", NO_SPLIT, ["9"], "splits.tsv, line 6 has 1 cells between tabs, not 5"),
        ("9\teval\t1\tp\tA\n", NO_SPLIT, ["9"], "line 6: 9 is of the split 'eval'; allowed: train, dev, test"),
        (HEAD, NO_SPLIT, ["utt"], "line 6: utt is of the split 'split'"),
        ("9\ttrain\t1\t \tA\n", "train", ["9"], "splits.tsv, line 6: the column 'path' is empty"),
        ("\ttrain\t1\tp\tA\n", "train", ["line 6"], "splits.tsv, line 6: the column 'utt' is empty"),
        ("9\ttrain\t1\tp.flac\tA\n", "train", ["9"], "p.flac is no file"),
        ("\n" + ROWS[1], "train", ["1-1-0001"], "splits.tsv, line 7 lists 1-1-0001 again, word for word as "),
        (ROWS[1].replace("TWO", "X"), "train", ["1-1-0001"], "line 6 lists 1-1-0001 in train: one recording, two"),
        (ROWS[1].replace("0001.flac", "0000.flac"), "train", BOTH, "lists 1-1-0001 in train: one recording"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used_are_named_or_counted(
    folder: Path, more: str, split: str, left_out: list[str], message: str
) -> None:
    (folder / "splits.tsv").write_text(TABLE + more + "5\ttrain\t2\ttrain/2/5/2-5-0000.flac\tONE TWO\n")
    assert message in refused(libri(folder))
    ids, unused = found(libri(folder, leave_out=True))
    assert list(unused) == [split]
    assert [name for name, _ in unused[split]] == left_out
    assert ids["dev"] == ["3-1-0000"]
    assert "5" in ids["train"]


def test_a_row_of_two_splits_is_used_in_neither(folder: Path) -> None:
    (folder / "splits.tsv").write_text(TABLE + ROWS[0].replace("train\t", "test\t"))
    message = "splits.tsv, line 2 lists 1-1-0000 in train, and "
    assert message in refused(libri(folder))
    ids, unused = found(libri(folder, leave_out=True))
    assert ids == {"train": ["1-1-0001"], "dev": ["3-1-0000"], "test": ["4-1-0000"]}
    assert {split: [name for name, _ in left] for split, left in unused.items()} == {
        "train": ["1-1-0000"],
        "test": ["1-1-0000"],
    }


def test_one_id_of_two_recordings_is_told(folder: Path) -> None:
    row = "1-1-0001\ttrain\t2\ttrain/2/5/2-5-0000.flac\tONE TWO\n"
    (folder / "splits.tsv").write_text(TABLE + row + ROWS[1])
    message = "line 6 lists 1-1-0001 in train: one id, two recordings; keep the right one"
    assert message in refused(libri(folder))
    ids, unused = found(libri(folder, leave_out=True))
    assert ids["train"] == ["1-1-0000"]
    assert {name for name, _ in unused["train"]} == {"1-1-0001"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("".join(ROWS)), "has no column 'utt'; its first line must name"),
        (lambda path: path.write_text(TABLE.replace("\t", ",")), "has no column 'utt'"),
        (lambda path: path.touch(), "has no column 'utt'"),
        (lambda path: path.write_text(HEAD), "the train split of source=librispeech is empty"),
        (lambda path: path.write_bytes(TABLE.encode("utf-16")), "splits.tsv is UTF-16"),
        (lambda path: path.write_bytes(TABLE.encode() + b"\xe9"), "splits.tsv, line 6 is not UTF-8"),
        (lambda path: path.mkdir(), "splits.tsv is no file but a folder"),
        (lambda path: path.symlink_to("nowhere"), "splits.tsv cannot be read (No such file or directory)"),
    ],
)  # fmt: skip
def test_a_list_of_splits_that_cannot_be_read_is_one_clear_line(folder: Path, make: Change, message: str) -> None:
    make(folder / "splits.tsv")
    assert message in refused(libri(folder, leave_out=True))


def test_what_a_language_model_reads_is_counted_too(folder: Path) -> None:
    (folder / "splits.tsv").write_text(TABLE + ROWS[1] + "8\teval\t1\tp\tA\n")
    config = libri(folder, leave_out=True)
    corpus = load_corpus(TextConfig("transcripts", speech=config))
    assert {name: len(left) for name, left in corpus.left_out.items()} == {
        "train": 1,
        "valid": 0,
        "test": 0,
        NO_SPLIT: 1,
    }
    with pytest.raises(IrnnError, match=r"line 6 lists 1-1-0001 again"):
        load_corpus(TextConfig("transcripts", speech=libri(folder)))


def hub(folder: Path, change: Callable[[dict[str, list]], object]) -> Path:
    for subset, texts in TEXTS.items():
        paths = {path.stem: path for path in (folder / subset).rglob("*.flac")}
        table: dict[str, list] = {
            "audio": [{"bytes": paths[name].read_bytes(), "path": f"{name}.flac"} for name in texts],
            "text": list(texts.values()),
            "speaker_id": [1 for _ in texts],
            "id": list(texts),
        }
        if subset == "train":
            change(table)
        (folder.parent / "hub" / subset).mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.table(table), folder.parent / "hub" / subset / "0.parquet")
    return folder.parent / "hub"


@pytest.mark.parametrize(
    ("change", "left_out", "message"),
    [
        (lambda t: t["text"].__setitem__(1, None), "1-1-0001", "1-1-0001 in .*the transcript is empty"),
        (lambda t: t["audio"].__setitem__(1, None), "1-1-0001", "1-1-0001 in .* holds no audio"),
        (lambda t: t["audio"].__setitem__(1, {"bytes": None, "path": None}), "1-1-0001", "holds no audio"),
        (lambda t: t["audio"].__setitem__(1, {"bytes": b"", "path": "x"}), "1-1-0001", "is an empty file"),
        (lambda t: t["audio"].__setitem__(1, {"bytes": None, "path": "/x.flac"}), "1-1-0001", "is no file"),
        (lambda t: t["id"].__setitem__(1, None), "row 2", r"row 2 of .*train/\*\.parquet has no id"),
        (
            lambda t: [t[key].append(t[key][1]) for key in t],
            "1-1-0001",
            r"row 4 of .* again, word for word as row 2 of",
        ),
    ],
)
def test_rows_of_the_hub_are_named_or_counted(
    folder: Path, change: Callable[[dict[str, list]], object], left_out: str, message: str
) -> None:
    config = libri(hub(folder, change), source="librispeech_hub")
    with pytest.raises(IrnnError, match=message):
        load_speech(config)
    _, unused = found(libri(folder.parent / "hub", source="librispeech_hub", leave_out=True))
    assert [name for name, _ in unused["train"]] == [left_out]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("text", [1, 2, 3], "the column 'text' is of type int64, where text"),
        ("text", [["A"], ["B"], ["C"]], "the column 'text' is of type list, where text"),
        ("audio", [1, 2, 3], "the column 'audio' holds no audio"),
    ],
)
def test_columns_of_the_hub_that_hold_something_else(folder: Path, column: str, values: list, message: str) -> None:
    place = hub(folder, lambda table: table.__setitem__(column, values))
    assert message in refused(libri(place, source="librispeech_hub", leave_out=True))


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
