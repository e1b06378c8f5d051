"""Where the pipeline writes to."""

from collections.abc import Mapping, Sequence

from rich.console import Console

from irnn.data.speech.utterances import LeftOut

# Paths stay in one piece, so that they can be copied from the screen.
console = Console(soft_wrap=True, highlight=False)


def show_left_out(splits: Mapping[str, Sequence[LeftOut]]) -> None:
    """Say how many utterances a run goes on without, by split, and why the first of each."""
    for name, found in splits.items():
        if found:
            console.print(f"{name}: {len(found)} utterances are left out; the first: {found[0].reason}", markup=False)
