"""Corpora, vocabulary and batches."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from irnn.data import EOS, UNK, TextBatches, TextConfig, Vocabulary, load_corpus
from irnn.data.text.quickstart import quickstart_lines
from irnn.errors import IrnnError
from tests.support import needs


def write_folder(folder: Path, train: str, valid: str = "a b\n", test: str = "b a\n", prefix: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, text in (("train", train), ("valid", valid), ("test", test)):
        (folder / f"{prefix}{split}.txt").write_text(text, encoding="utf-8")
    return folder


def folder_config(folder: Path, **more: object) -> TextConfig:
    return TextConfig("folder", dir=str(folder), **more)


def test_vocabulary_is_ordered_by_frequency_then_alphabetically(tmp_path: Path) -> None:
    corpus = load_corpus(folder_config(write_folder(tmp_path, "b a a\nc b a\n d\n")))
    # a: 3, <eos>: 3 ("<" comes before "a"), b: 2, c: 1, d: 1
    assert corpus.vocabulary.words == [EOS, "a", "b", "c", "d"]
    assert np.array_equal(corpus.train, [2, 1, 1, 0, 3, 2, 1, 0, 4, 0])
    assert np.array_equal(corpus.valid, [1, 2, 0])


def test_every_line_ends_in_eos_also_an_empty_one(tmp_path: Path) -> None:
    corpus = load_corpus(folder_config(write_folder(tmp_path, "a b\n\nb a")))
    assert corpus.vocabulary.decode(corpus.train) == ["a", "b", EOS, EOS, "b", "a", EOS]


def test_lines_are_cut_into_characters(tmp_path: Path) -> None:
    """As the published character files of Penn Treebank: one blank between words, `<unk>` spelled, a line's end."""
    corpus = load_corpus(folder_config(write_folder(tmp_path, " ab  <unk> \n"), characters=True))
    assert corpus.vocabulary.decode(corpus.train) == [*"ab <unk>", EOS]
    assert set(corpus.vocabulary.words) == {*"ab <unk>", EOS}
    assert load_corpus(folder_config(tmp_path)).fingerprint != corpus.fingerprint
    with pytest.raises(IrnnError, match="characters=true: a recognizer's units say how its lines are cut"):
        folder_config(tmp_path, characters=True, units="recognizer")


def test_penn_treebank_has_the_published_characters() -> None:
    """5,017 thousand, 393 thousand and 442 thousand of them, 50 different ones."""
    corpus = load_corpus(folder_config(needs.data("ptb"), characters=True))
    assert len(corpus.vocabulary) == 50
    assert [len(corpus.train), len(corpus.valid), len(corpus.test)] == [5_017_482, 393_042, 442_423]


def test_both_file_names_work_and_give_one_fingerprint(tmp_path: Path) -> None:
    plain = load_corpus(folder_config(write_folder(tmp_path / "plain", "a b\n")))
    ptb = load_corpus(folder_config(write_folder(tmp_path / "ptb", "a b\n", prefix="ptb.")))
    other = load_corpus(folder_config(write_folder(tmp_path / "other", "a b b\n")))
    assert plain.fingerprint == ptb.fingerprint
    assert plain.fingerprint != other.fingerprint


def test_fingerprint_sees_where_a_split_ends(tmp_path: Path) -> None:
    one = load_corpus(folder_config(write_folder(tmp_path / "1", "a b\n", "a\nb\n", "a\n")))
    two = load_corpus(folder_config(write_folder(tmp_path / "2", "a b\n", "a\n", "b\na\n")))
    assert one.fingerprint != two.fingerprint


def test_limited_vocabulary_maps_rare_words_to_unk(tmp_path: Path) -> None:
    text = "a a a b b c\n"
    corpus = load_corpus(folder_config(write_folder(tmp_path, text, "a d\n"), max_vocabulary=4))
    assert set(corpus.vocabulary.words) == {"a", "b", EOS, UNK}
    assert corpus.vocabulary.decode(corpus.train) == ["a", "a", "a", "b", "b", UNK, EOS]
    assert corpus.vocabulary.decode(corpus.valid) == ["a", UNK, EOS]


def test_unk_of_the_corpus_stands_for_unknown_words(tmp_path: Path) -> None:
    corpus = load_corpus(folder_config(write_folder(tmp_path, f"a b {UNK}\n", "a zebra\n")))
    assert corpus.vocabulary.decode(corpus.valid) == ["a", UNK, EOS]


def test_unknown_word_without_unk_names_word_and_line(tmp_path: Path) -> None:
    with pytest.raises(IrnnError, match=r"valid split, line 2: the word 'zebra'"):
        load_corpus(folder_config(write_folder(tmp_path, "a b\n", "a\na zebra\n")))


def test_wide_separators_inside_a_word_are_no_line_ends(tmp_path: Path) -> None:
    corpus = load_corpus(folder_config(write_folder(tmp_path, "a\x85b c\n", "c\n", "c\n")))
    assert (corpus.train == corpus.vocabulary.eos).sum() == 1


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "valid.txt").unlink(), r"holds neither valid.txt nor ptb.valid.txt"),
        (lambda folder: (folder / "test.txt").write_text("\n"), r"test.txt is empty"),
        (lambda folder: (folder / "train.txt").write_bytes(b"caf\xe9 a b\n"), r"not UTF-8 \(byte 0xe9 at position 3\)"),
    ],
)
def test_bad_folders_are_one_clear_line(tmp_path: Path, break_it: object, message: str) -> None:
    folder = write_folder(tmp_path, "a b\n")
    break_it(folder)
    with pytest.raises(IrnnError, match=message) as caught:
        load_corpus(folder_config(folder))
    assert "\n" not in str(caught.value)


def test_missing_folder_and_missing_setting(tmp_path: Path) -> None:
    with pytest.raises(IrnnError, match="is not a folder"):
        load_corpus(folder_config(tmp_path / "nowhere"))
    with pytest.raises(IrnnError, match=r"add dir=FOLDER"):
        TextConfig("folder")
    with pytest.raises(IrnnError, match="allowed: folder, parquet, quickstart"):
        TextConfig("ftp", dir="x")
    with pytest.raises(IrnnError, match=r"steps=0"):
        TextConfig("quickstart", steps=0)


def test_vocabulary_survives_saving(tmp_path: Path) -> None:
    vocabulary = Vocabulary(["the", EOS, "naïve", "“"])
    vocabulary.save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json").words == vocabulary.words
    assert json.loads((tmp_path / "vocabulary.json").read_text(encoding="utf-8"))["words"][0] == "the"


@pytest.mark.parametrize(
    "content", ["", '{"words": ["a"]}', "[1]", '{"format": "irnn-vocabulary-1", "words": ["a", "a"]}']
)
def test_damaged_vocabulary_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "vocabulary.json").write_text(content)
    with pytest.raises(IrnnError):
        Vocabulary.load(tmp_path / "vocabulary.json")
    with pytest.raises(IrnnError, match="no vocabulary at"):
        Vocabulary.load(tmp_path / "other.json")


def test_decoding_an_id_out_of_range() -> None:
    with pytest.raises(IrnnError, match="token id 2 is out of range; this vocabulary has ids 0 to 1"):
        Vocabulary([EOS, "a"]).decode([0, 2])


@given(tokens=st.integers(1, 200), rows=st.integers(1, 7), steps=st.integers(1, 11))
def test_batches_are_contiguous_rows_with_shifted_targets(tokens: int, rows: int, steps: int) -> None:
    ids = np.arange(1, tokens + 1)
    if tokens < rows:
        with pytest.raises(IrnnError, match="do not fill"):
            TextBatches(ids, 0, rows, steps)
        return
    batches = TextBatches(ids, 0, rows, steps)
    chunks = list(batches)
    assert len(chunks) == len(batches)
    inputs = torch.cat([chunk for chunk, _ in chunks], dim=1)
    targets = torch.cat([chunk for _, chunk in chunks], dim=1)
    columns = tokens // rows
    assert inputs.shape == targets.shape == (rows, columns)
    assert np.array_equal(targets.flatten(), ids[: rows * columns])
    assert np.array_equal(inputs, targets - 1)  # every input is the token before its target; the first one is <eos>
    assert all(chunk.shape[1] == steps for chunk, _ in chunks[:-1])
    again = torch.cat([chunk for chunk, _ in batches], dim=1)
    assert torch.equal(inputs, again)


def test_quickstart_corpus_is_english_split_by_topic() -> None:
    lines = quickstart_lines()
    sizes = {split: sum(map(len, sentences)) for split, sentences in lines.items()}
    assert sizes["train"] > 25_000
    assert sizes["valid"] > 2_000
    assert sizes["test"] > 2_000
    train = {" ".join(words) for words in lines["train"]}
    assert not any(" ".join(words) in train for words in lines["test"] + lines["valid"])
    corpus = load_corpus(TextConfig("quickstart", max_vocabulary=2000))
    assert len(corpus.vocabulary) == 2000
    assert corpus.fingerprint == load_corpus(TextConfig("quickstart", max_vocabulary=2000)).fingerprint
    assert {"the", ".", "is"} <= set(corpus.vocabulary.words[:12])
    unknown = corpus.vocabulary.words.index(UNK)
    assert (corpus.train == unknown).mean() < 0.05
    assert (corpus.test == unknown).mean() < 0.12


def test_parquet_files_of_the_hub_schema(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    text = {"train": ["a b", "b c <unk>"], "validation": ["a"], "test": ["c a"]}
    for split, sentences in text.items():
        (tmp_path / split).mkdir()
        pyarrow.parquet.write_table(pyarrow.table({"sentence": sentences}), tmp_path / split / "0000.parquet")
    corpus = load_corpus(TextConfig("parquet", dir=str(tmp_path)))
    folder = write_folder(tmp_path / "txt", "a b\nb c <unk>\n", "a\n", "c a\n")
    assert corpus.fingerprint == load_corpus(folder_config(folder)).fingerprint
    with pytest.raises(IrnnError, match=r"column='text' is not in .* columns: sentence"):
        load_corpus(TextConfig("parquet", dir=str(tmp_path), column="text"))
    with pytest.raises(IrnnError, match="no parquet files"):
        load_corpus(TextConfig("parquet", dir=str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    ("name", "words", "tokens"),
    [("ptb", 10_000, (929_589, 73_760, 82_430)), ("wikitext-2", 33_278, (2_088_628, 217_646, 245_569))],
)
def test_sizes_of_the_known_corpora(name: str, words: int, tokens: tuple[int, int, int]) -> None:
    corpus = load_corpus(folder_config(needs.data(name)))
    assert len(corpus.vocabulary) == words
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == tokens
