"""Where the pipeline writes to."""

from rich.console import Console

# Paths stay in one piece, so that they can be copied from the screen.
console = Console(soft_wrap=True, highlight=False)
