"""Text files as they are found: one reader for all, so that each takes the same encodings, marks and line ends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from irnn.data.folders import shown
from irnn.errors import IrnnError

_MARK = "\ufeff"
# Longer marks first: that of UTF-32 begins like that of UTF-16.
_FOREIGN_MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
# "\n", "\r\n" and the old Mac's "\r", also mixed; "\r\r\n" is what a CRLF file becomes that was written as text again.
# Not str.splitlines: it would cut at separators that are part of some corpora's words.
_LINE_END = re.compile(r"(?<!\r)\r++\n|\r|\n")


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without the byte-order mark that may stand at its beginning.

    Another encoding, a NUL character, or a path that cannot be read is an `IrnnError`.
    """
    (text,) = _texts(path, None)
    return text


def read_line_blocks(path: Path, size: int = 1 << 24) -> Iterator[list[str]]:
    """Lines of a UTF-8 file as `read_lines` has them, some at a time: those of about `size` bytes, so that the file may
    be larger than memory."""
    for text in _texts(path, size):
        lines = lines_of(text)
        yield lines if lines[-1] else lines[:-1]


def _texts(path: Path, size: int | None) -> Iterator[str]:
    """The text of a file, see `read_text`, in pieces of whole lines of about `size` bytes, or as one."""
    line = 1
    try:
        if path.exists() and not path.is_file():
            raise IrnnError(f"{shown(path)} is no file but a folder or a device, where text is wanted; remove it")
        for number, content in enumerate(_pieces(path, size)):
            text = _decoded(content, path, line, begins=number == 0)
            line += len(lines_of(text)) - 1
            yield text
    except OSError as error:
        raise IrnnError(f"{shown(path)} cannot be read ({error.strerror}); mend the file or its permissions") from None


def _pieces(path: Path, size: int | None) -> Iterator[bytes]:
    with path.open("rb") as file:
        rest = b""
        while size is not None and (read := file.read(size)):
            whole, end, rest_of = (rest + read).rpartition(b"\n")
            if end:
                yield whole + end
            rest = rest_of
        yield rest + file.read()


def _decoded(content: bytes, path: Path, first: int, *, begins: bool) -> str:
    """Text whose first line has the number `first`; begins: it is the file's beginning, where a mark may stand."""
    for mark, encoding in _FOREIGN_MARKS.items():
        if begins and content.startswith(mark):
            raise IrnnError(
                f"{shown(path)} is {encoding} (byte-order mark {mark.hex(' ')}), not UTF-8; convert it, for example "
                f"with iconv -f {encoding} -t UTF-8"
            )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = first - 1 + len(lines_of(content[: error.start].decode("utf-8")))
        raise IrnnError(
            f"{shown(path)}, line {line} is not UTF-8 (byte {content[error.start]:#04x} at position {error.start}); "
            "convert the file, for example with iconv -f LATIN1 -t UTF-8 where it is Latin-1"
        ) from None
    if "\0" in text:
        line = first - 1 + len(lines_of(text[: text.index("\0")]))
        raise IrnnError(
            f"{shown(path)}, line {line} holds a NUL character; remove it, or convert the file to UTF-8 where it is "
            "UTF-16 without a byte-order mark"
        )
    return without_mark(text) if begins else text


def without_mark(text: str) -> str:
    """`text` without byte-order marks at its beginning; anywhere else U+FEFF is a character of a word."""
    return text.lstrip(_MARK)


def lines_of(text: str) -> list[str]:
    """Lines, without their ends; what follows the last line end is a line of its own, also where it is empty."""
    return _LINE_END.split(text)


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 file, see `read_text`; the last one may lack its line end."""
    lines = lines_of(read_text(path))
    return lines if lines[-1] else lines[:-1]


def read_json(path: Path) -> Any:
    """What a JSON file in UTF-8 holds; anything else is an `IrnnError`."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise IrnnError(f"{shown(path)} is damaged JSON ({error}); export again what wrote it") from None
    except RecursionError:
        raise IrnnError(f"{shown(path)} is damaged JSON (nested too deeply); export again what wrote it") from None


class Row(NamedTuple):
    """line: number in the file, from 1 on.  cells: by column; of a row with other cells than columns those that are
    there.  fault: what is wrong with their number, or nothing."""

    line: int
    cells: dict[str, str]
    fault: str


def read_table(path: Path, columns: tuple[str, ...]) -> list[Row]:
    """Rows of a file of cells separated by tabs, whose first line names the columns; quotation marks are text.

    Empty lines are none. A column of `columns` that is missing, or a name that is there twice, is an `IrnnError`.
    """
    lines = read_lines(path)
    names = lines[0].split("\t") if lines else []
    for name in columns:
        if names.count(name) != 1:
            count = "twice the" if name in names else "no"
            raise IrnnError(
                f"{shown(path)} has {count} column {name!r}; its first line must name the columns, separated by tabs: "
                f"{', '.join(columns)}"
            )
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split("\t")
        wrong = f"{shown(path)}, line {number} has {len(cells)} cells between tabs, not {len(names)}; mend the line"
        fault = "" if len(cells) == len(names) else wrong
        if line.strip():
            rows.append(Row(number, dict(zip(names, cells, strict=False)), fault))
    return rows
