"""Parquet files, of a folder or of a hub, and their columns of text."""

from __future__ import annotations

import glob
from typing import Any

from irnn.data.text.text_files import without_mark
from irnn.errors import IrnnError
from irnn.extras import extra

_TEXT = ("string", "large_string", "string_view")


def open_parquet(files: str) -> Any:
    """The `datasets.Dataset` of the parquet files that the pattern `files` names, local ones or of a hub.

    None there, or one that cannot be read, is an `IrnnError`.
    """
    # Imported here: it takes a second, and text files do not need it.
    with extra("train"):
        from datasets import disable_progress_bars, load_dataset
        from datasets.exceptions import DatasetsError

    local = "://" not in files
    if local and not glob.glob(files):
        raise IrnnError(f"no parquet files at {files}; mend `dir`, or add the folder that is missing")
    disable_progress_bars()
    try:
        return load_dataset("parquet", data_files={"rows": files}, split="rows")
    except (OSError, ValueError, DatasetsError) as error:
        # What `datasets` says about a file that it cannot turn into rows stands in the cause alone.
        damaged = "replace the file, which is damaged, or holds no rows, or other columns than the files beside it"
        mend = damaged if local else "mend `dir`, or see whether the hub can be reached"
        raise IrnnError(f"{files} cannot be read as parquet ({_line(error.__cause__ or error)}); {mend}") from None


def text_column(table: Any, column: str, files: str) -> list[str | None]:
    """Texts of a column, None where the row has none; `files` is what messages call the table.

    A column that is missing or of another type, a text that is no UTF-8 or holds NUL is an `IrnnError`.
    """
    if column not in table.column_names:
        raise IrnnError(f"column={column!r} is not in {files}; columns: {', '.join(table.column_names)}")
    kind = getattr(table.features[column], "dtype", "list")
    if kind not in _TEXT:
        raise IrnnError(f"{files}: the column {column!r} is of type {kind}, where text (string) is wanted; convert it")
    texts: list[str | None] = []
    for number, scalar in enumerate(table.data.column(column), start=1):
        try:
            text = scalar.as_py()
        except UnicodeDecodeError:
            raise IrnnError(f"{files}: row {number} of the column {column!r} is not UTF-8; convert it") from None
        if text is not None and "\0" in text:
            raise IrnnError(f"{files}: row {number} of the column {column!r} holds a NUL character; remove it")
        texts.append(text)
    if texts and texts[0] is not None:
        texts[0] = without_mark(texts[0])
    return texts


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
