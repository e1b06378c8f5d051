"""Emulated boards for tests, which skip where the emulator or a cross compiler is absent."""

import pytest

from deploy_tvm import targets, toolchain
from deploy_tvm.remote import emulated
from irnn.errors import IrnnError


def need(target: str, emulator: str | None = None, *, cxx: bool = False) -> None:
    """Skip, with the line that installs what is missing."""
    try:
        toolchain.find(targets.find(target).mtriple, cxx=cxx)
        if emulator is not None:
            emulated.find_qemu(emulator)
    except IrnnError as absent:
        pytest.skip(str(absent))
