"""Where the pipeline writes to."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from rich.console import Console

# Paths stay in one piece, so that they can be copied from the screen.
console = Console(soft_wrap=True, highlight=False)


class LeftOut(Protocol):
    """Something that a corpus goes on without."""

    @property
    def reason(self) -> str:
        """The line that an error would have shown."""


def show_left_out(splits: Mapping[str, Sequence[LeftOut]], what: str) -> None:
    """Say how many of `what` a run goes on without, by split, and why the first of each."""
    for name, found in splits.items():
        if found:
            console.print(f"{name}: {len(found)} {what} are left out; the first: {found[0].reason}", markup=False)
