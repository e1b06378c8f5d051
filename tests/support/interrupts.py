"""Ctrl-C for subprocesses of the tests."""

import signal


def heed_interrupts() -> None:
    """Run in a child before it starts: a test suite in the background ignores SIGINT, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
