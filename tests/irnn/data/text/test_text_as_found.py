"""Text as it is found: marks, line ends, encodings, control characters, paths that are no files, parquet tables."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from irnn.data import EOS, TextConfig, Vocabulary, load_corpus
from irnn.data.speech.units import Units, UnitsConfig
from irnn.data.text.quickstart import quickstart_lines
from irnn.data.text.text_files import read_lines, read_table
from irnn.errors import IrnnError
from tests.support import needs


def corpus_of(folder: Path, train: bytes) -> list[str]:
    """The words of the training split, `<eos>` after each line."""
    for split, content in (("train", train), ("valid", b"a\n"), ("test", b"a\n")):
        (folder / f"{split}.txt").write_bytes(content)
    corpus = load_corpus(TextConfig("folder", dir=str(folder)))
    return corpus.vocabulary.decode(corpus.train)


def one_line(caught: pytest.ExceptionInfo[IrnnError]) -> bool:
    return "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"a b\nc\n",
        b"a b\nc",
        b"\xef\xbb\xbfa b\nc\n",
        b"\xef\xbb\xbf\xef\xbb\xbfa b\nc\n",
        b"a b\r\nc\r\n",
        b"a b\rc\r",
        b"a b\rc",
        b"a b\r\nc\n",
        b"a b\r\r\nc\r\r\n",
        "a\u00a0b\nc\n".encode(),
        "a\u2028b\nc\n".encode(),
        b"a\tb\x0c\nc\n",
        "a\u0085b\nc\n".encode(),
        b"a\x1cb\nc\n",
    ],
)
def test_marks_line_ends_and_blanks_make_no_words(tmp_path: Path, content: bytes) -> None:
    assert corpus_of(tmp_path, content) == ["a", "b", EOS, "c", EOS]


def test_line_ends_may_be_mixed_and_empty_lines_stay(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"a\rb\nc\r\n\r\n\nd\r\re")
    assert read_lines(tmp_path / "x") == ["a", "b", "c", "", "", "d", "", "e"]
    (tmp_path / "x").write_bytes(b"\r" * 200_000 + b"a")
    assert len(read_lines(tmp_path / "x")) == 200_001
    (tmp_path / "x").write_bytes(b"")
    assert read_lines(tmp_path / "x") == []


def test_what_is_part_of_a_word_stays(tmp_path: Path) -> None:
    """Only a mark at the beginning is none; characters without a width and control characters separate nothing."""
    text = "a\ufeff \ufeffb\u200bc \x01d e\u0301\n"
    assert corpus_of(tmp_path, text.encode() + b"a\n") == [
        "a\ufeff",
        "\ufeffb\u200bc",
        "\x01d",
        "e\u0301",
        EOS,
        "a",
        EOS,
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a b\n".encode("utf-16"), r"train\.txt is UTF-16 \(byte-order mark ff fe\).*iconv -f UTF-16 -t UTF-8"),
        (b"\xfe\xff\0a", r"train\.txt is UTF-16 \(byte-order mark fe ff\)"),
        ("a b\n".encode("utf-32"), r"train\.txt is UTF-32 \(byte-order mark ff fe 00 00\)"),
        (b"\0\0\xfe\xff\0\0\0a", r"train\.txt is UTF-32 \(byte-order mark 00 00 fe ff\)"),
        ("a b\n".encode("utf-16-le"), r"train\.txt, line 1 holds a NUL character; .* UTF-16 without a byte-order mark"),
        (b"a\r\nb \0\r\n", r"train\.txt, line 2 holds a NUL"),
        (b"a\rb\rcaf\xe9\r", r"train\.txt, line 3 is not UTF-8 \(byte 0xe9 at position 7\); .*iconv -f LATIN1"),
        (b"\xef\xbb\xbf", r"train\.txt is empty"),
        (b"\n \t\r\n", r"train\.txt is empty"),
    ],
)  # fmt: skip
def test_text_that_cannot_be_read_is_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(IrnnError, match=message) as caught:
        corpus_of(tmp_path, content)
    assert one_line(caught)


def _loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.mkdir, r"train\.txt is no file but a folder or a device"),
        (os.mkfifo, r"train\.txt is no file but a folder or a device"),
        (_loop, r"train\.txt cannot be read \(Too many levels of symbolic links\)"),
        (lambda path: path.symlink_to("nowhere"), r"train\.txt cannot be read \(No such file or directory\)"),
    ],
)
def test_a_path_that_is_no_file_is_one_clear_line(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / "train.txt")
    with pytest.raises(IrnnError, match=message):
        load_corpus(TextConfig("folder", dir=str(tmp_path)))


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions bind no test that runs as root: the system's refusal is made here."""

    opened = Path.open

    def refuse(path: Path, mode: str = "r", *more: object, **named: object) -> object:
        if mode == "rb":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, mode, *more, **named)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(IrnnError, match=r"train\.txt cannot be read \(Permission denied\); mend the file or its perm"):
        corpus_of(tmp_path, b"a\n")


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ptb.train.txt").write_text("a\n")
    with pytest.raises(IrnnError, match=r"holds both train\.txt and ptb\.train\.txt; keep the one that is meant"):
        corpus_of(tmp_path, b"a\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe{\0", "is UTF-16"),
        (b'{"caf\xe9": 1}', r"line 1 is not UTF-8"),
        (b"[" * 200_000, r"is damaged JSON \(nested too deeply\)"),
        (b'{"format": ', "is damaged JSON"),
        (b'{"format": "irnn-vocabulary-1"}', "has no list of words under 'words'"),
        (b'{"format": "irnn-vocabulary-1", "words": ["<eos>", 1]}', "has no list of words"),
        (b'{"format": "irnn-vocabulary-1", "words": "<eos>"}', "has no list of words"),
        (b"7", "is not a vocabulary of the format"),
    ],
)
def test_json_is_read_like_all_text(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "vocabulary.json"
    path.write_bytes(content)
    with pytest.raises(IrnnError, match=message) as caught:
        Vocabulary.load(path)
    assert one_line(caught)


def test_a_mark_before_json_is_none(tmp_path: Path) -> None:
    Vocabulary([EOS, "a"]).save(tmp_path / "vocabulary.json")
    units = Units.train(["ab"], UnitsConfig())
    units.save(tmp_path)
    for name in ("vocabulary.json", "units.json"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + (tmp_path / name).read_bytes().replace(b"\n", b"\r\n"))
    assert Vocabulary.load(tmp_path / "vocabulary.json").words == [EOS, "a"]
    assert Units.load(tmp_path).describe() == units.describe()
    (tmp_path / "units.json").unlink()
    (tmp_path / "units.json").mkdir()
    with pytest.raises(IrnnError, match=r"units\.json is no file but a folder"):
        Units.load(tmp_path)


def test_a_table_is_cut_at_tabs_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes(b'\xef\xbb\xbfa\tb\r\n1\t"2"\r\n\r\n3\t' + b"4" * 200_000 + b"\r\n5\r\n6\t7\t8")
    rows = read_table(path, ("a", "b"))
    assert [(row.line, row.cells) for row in rows[::2]] == [(2, {"a": "1", "b": '"2"'}), (5, {"a": "5"})]
    assert [row.fault for row in rows[:2]] == ["", ""]
    assert "x.tsv, line 5 has 1 cells between tabs, not 2" in rows[2].fault
    assert "x.tsv, line 6 has 3 cells between tabs, not 2" in rows[3].fault
    path.write_text("a\ta\n")
    with pytest.raises(IrnnError, match="has twice the column 'a'; its first line must name the columns"):
        read_table(path, ("a",))
    path.write_text("")
    with pytest.raises(IrnnError, match="has no column 'a'"):
        read_table(path, ("a",))


def parquet(folder: Path, train: object) -> TextConfig:
    for name, table in (
        ("train", {"sentence": train}),
        ("validation", {"sentence": ["a"]}),
        ("test", {"sentence": ["a"]}),
    ):
        (folder / name).mkdir()
        pyarrow.parquet.write_table(pyarrow.table(table), folder / name / "0.parquet")
    return TextConfig("parquet", dir=str(folder))


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (["a", None], r"train/\*\.parquet: row 2 of the column 'sentence' is null"),
        (["a", "b\0"], r"row 2 of the column 'sentence' holds a NUL"),
        (pyarrow.array([b"a", b"\xff"]).view(pyarrow.string()), r"row 2 of the column 'sentence' is not UTF-8"),
        (pyarrow.array([None, None]), r"the column 'sentence' is of type null, where text"),
        ([1, 2], r"the column 'sentence' is of type int64, where text"),
        ([["a"], ["b"]], r"the column 'sentence' is of type list, where text"),
        ([b"a"], r"the column 'sentence' is of type binary, where text"),
        (pyarrow.array([], pyarrow.string()), r"train/\*\.parquet .*holds no rows"),
    ],
)
def test_rows_that_hold_no_text_are_one_clear_line(tmp_path: Path, train: object, message: str) -> None:
    with pytest.raises(IrnnError, match=message) as caught:
        load_corpus(parquet(tmp_path, train))
    assert one_line(caught)


@pytest.mark.parametrize("kind", [pyarrow.string(), pyarrow.large_string()])
def test_text_columns_of_either_width_are_read_and_a_mark_is_none(tmp_path: Path, kind: pyarrow.DataType) -> None:
    corpus = load_corpus(parquet(tmp_path, pyarrow.array(["\ufeffa b", "", "c\nd"], kind)))
    assert corpus.vocabulary.decode(corpus.train) == ["a", "b", EOS, EOS, "c", "d", EOS]


def _gone(folder: Path) -> None:
    (folder / "0.parquet").unlink()


def _other_columns(folder: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"other": [1]}), folder / "1.parquet")


def _corrupt(folder: Path) -> None:
    content = bytearray((folder / "0.parquet").read_bytes())
    content[4:20] = b"\xff" * 16
    (folder / "0.parquet").write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_gone, r"^no parquet files at .*validation/\*\.parquet"),
        (_other_columns, r"validation/\*\.parquet cannot be read as parquet .*other columns than the files beside it"),
        (_corrupt, r"validation/\*\.parquet cannot be read as parquet"),
        (lambda folder: (folder / "0.parquet").write_bytes(b"garbage"), r"cannot be read as parquet \(Parquet file"),
    ],
)  # fmt: skip
def test_damaged_tables_are_one_clear_line(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    config = parquet(tmp_path, ["a"])
    damage(tmp_path / "validation")
    with pytest.raises(IrnnError, match=message) as caught:
        load_corpus(config)
    assert one_line(caught)


def test_a_hub_that_cannot_be_reached_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise ConnectionError("Couldn't reach the hub\n(timed out).")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    with pytest.raises(IrnnError, match=r"hf://.*train/\*\.parquet .*the hub \(timed out\)\); mend") as caught:
        load_corpus(TextConfig("parquet", dir="hf://datasets/a/b@main"))
    assert one_line(caught)


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [
        ("ptb", "05a4eef6b1983d5ebee1fd0b6e9c2daf9cc2935bb1ab23bdcf540aca36b57586"),
        ("wikitext-2", "d6289f87d1480d35b9dd20ace12fdc05afc811b9a53cb8df03934f173cfa37ab"),
    ],
)
def test_known_corpora_keep_their_fingerprints(name: str, fingerprint: str) -> None:
    """What was trained on them stays valid."""
    assert load_corpus(TextConfig("folder", dir=str(needs.data(name)))).fingerprint == fingerprint


def test_the_quickstart_corpus_keeps_its_fingerprint() -> None:
    words = json.dumps(quickstart_lines(), sort_keys=True).encode()
    if hashlib.sha256(words).hexdigest()[:16] != "ff95232f2317b2b1":
        needs.skip("python", "the documentation of this version has other words")
    fingerprint = load_corpus(TextConfig("quickstart", max_vocabulary=2000)).fingerprint
    assert fingerprint == "5118026a5457a75b8afead4d447c0f51b03d5e7dce53e56a9e717c0856f3b535"
