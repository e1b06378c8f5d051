"""What a corpus holds and nobody can use, as every corpus reports it."""

from __future__ import annotations

from typing import NamedTuple


class LeftOut(NamedTuple):
    """An entry that cannot be used, and why: the line that an error would have shown."""

    id: str
    reason: str
