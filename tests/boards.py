"""Emulated boards for tests, which skip where the emulator or a cross compiler is absent."""

import pytest

from deploy_tvm import targets, toolchain
from deploy_tvm.remote import emulated
from deploy_tvm.static import bare, mca
from irnn.errors import IrnnError


def need(target: str, emulator: str | None = None, *, cxx: bool = False) -> None:
    """Skip, with the line that installs what is missing."""
    try:
        toolchain.find(targets.find(target).mtriple, cxx=cxx)
        if emulator is not None:
            emulated.find_qemu(emulator)
    except IrnnError as absent:
        pytest.skip(str(absent))


def need_emulator(target: str) -> None:
    """Skip unless the instructions of a program for `target` can be counted."""
    need(target)
    try:
        bare.emulator(targets.find(target))
    except IrnnError as absent:
        pytest.skip(str(absent))


def need_counter(target: str = "cortex_a76") -> None:
    """Skip unless they can be counted, and their cycles modelled."""
    need_emulator(target)
    need_model()


def need_model() -> None:
    """Skip unless cycles can be modelled."""
    try:
        mca.find_tool()
    except IrnnError as absent:
        pytest.skip(str(absent))
