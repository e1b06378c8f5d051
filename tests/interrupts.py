"""Ctrl-C for subprocesses of the tests."""

import signal


def heed_interrupts() -> None:
    """To be run in the child before it starts: a test suite started in the background ignores SIGINT, and so would it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
