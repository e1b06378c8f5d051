"""Token files hold what memory would, whatever the size of the blocks in which the text is read."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irnn.data import TextBatches, TextConfig, load_corpus
from irnn.data.text.text_files import read_line_blocks, read_lines
from irnn.errors import IrnnError
from irnn.metrics import stream_chunks
from pipelines.run import run
from tests.support.tiny_run import stages_of, tiny_config, write_corpus


def config(folder: Path, **more: object) -> TextConfig:
    return TextConfig("folder", dir=str(folder), **more)


@given(st.text(st.sampled_from("ab \r\n\té\ufeff\x85"), max_size=30), st.integers(1, 9))
def test_blocks_hold_the_lines_of_the_file(tmp_path_factory: pytest.TempPathFactory, text: str, size: int) -> None:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_bytes(text.encode())
    assert [line for block in read_line_blocks(path, size) for line in block] == read_lines(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a\nb\nc \xff\n", r"line 3 is not UTF-8 \(byte 0xff"), (b"a\nb\nc\0\n", "line 3 holds a NUL character")],
)
def test_a_fault_in_a_later_block_has_its_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    for read in (lambda: list(read_line_blocks(path, 2)), lambda: read_lines(path)):
        with pytest.raises(IrnnError, match=message):
            read()


@pytest.mark.parametrize("limit", [None, 6])
def test_a_mapped_corpus_is_the_one_in_memory(tmp_path: Path, limit: int | None) -> None:
    folder = write_corpus(tmp_path / "text")
    expected = load_corpus(config(folder, max_vocabulary=limit))
    for _ in range(2):  # written, then found
        found = load_corpus(config(folder, max_vocabulary=limit, token_files=str(tmp_path / "tokens")))
        assert found.fingerprint == expected.fingerprint
        assert found.vocabulary.words == expected.vocabulary.words
        for split in ("train", "valid", "test"):
            stream = getattr(found, split)
            assert isinstance(stream, np.memmap)
            assert np.array_equal(stream, getattr(expected, split))
    (place,) = [path for path in (tmp_path / "tokens").iterdir() if path.is_dir()]
    for ours, theirs in zip(TextBatches(found.train, 0, 4, 7), TextBatches(expected.train, 0, 4, 7), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    for ours, theirs in zip(stream_chunks(found.valid, 1, 5), stream_chunks(expected.valid, 1, 5), strict=True):
        assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(ours, theirs, strict=True))
    (place / "valid.npy").write_bytes(b"damaged")
    with pytest.raises(IrnnError, match="are damaged; delete that folder to write them again"):
        load_corpus(config(folder, max_vocabulary=limit, token_files=str(tmp_path / "tokens")))


def test_changed_text_is_written_anew(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "text")
    tokens = str(tmp_path / "tokens")
    before = load_corpus(config(folder, token_files=tokens))
    (folder / "valid.txt").write_text("the cat\n")
    after = load_corpus(config(folder, token_files=tokens))
    assert before.fingerprint != after.fingerprint
    assert after.vocabulary.decode(after.valid.tolist()) == ["the", "cat", "<eos>"]


def test_what_cannot_be_mapped_is_one_line(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "text")
    (folder / "test.txt").write_text("")
    with pytest.raises(IrnnError, match=r"test\.txt is empty"):
        load_corpus(config(folder, token_files=str(tmp_path / "tokens")))
    assert not [path for path in (tmp_path / "tokens").iterdir() if path.is_dir()]
    (tmp_path / "file").write_text("")
    with pytest.raises(IrnnError, match=r"cannot be written .*set `token_files`"):
        load_corpus(config(write_corpus(tmp_path / "other"), token_files=str(tmp_path / "file" / "x")))
    with pytest.raises(IrnnError, match="token_files=x: only source=folder"):
        TextConfig("quickstart", token_files="x")


def test_stages_are_shared_with_the_text_in_memory(tmp_path: Path) -> None:
    more = ["until=float", "recipe.float.epochs=1"]
    memory = tiny_config(tmp_path, *more)
    mapped = tiny_config(tmp_path, *more, f"data.token_files={tmp_path / 'tokens'}")
    assert stages_of(memory)["float"].folder == stages_of(mapped)["float"].folder
    assert run(mapped)["stages"] == run(memory)["stages"]
