"""Where the pipeline writes to."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

# Paths stay in one piece, so that they can be copied from the screen.
console = Console(soft_wrap=True, highlight=False)


def print_whole(table: Table) -> None:
    """A table in its full width, also where the screen has less: no cell is cut off."""
    wanted = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    Console(file=console.file, width=max(wanted, console.width), highlight=False).print(table)


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
