"""Lists of speech as they are found, splits.tsv and tables of the hub: no row is dropped or counted twice silently."""

from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from irnn.data import TextConfig, load_corpus
from irnn.data.audio.utterances import NO_SPLIT
from irnn.data.speech.corpus import load_speech
from irnn.data.speech.librispeech import librispeech_splits
from irnn.errors import IrnnError
from tests.support.found_speech import BOTH, TEXTS, Change, found, libri, refused

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
