"""Emulated boards for tests, which skip where the emulator or a cross compiler is absent."""

from deploy_tvm import targets, toolchain
from deploy_tvm.remote import emulated
from deploy_tvm.static import bare
from irnn.errors import IrnnError
from tests import needs


def need(target: str, emulator: str | None = None, *, cxx: bool = False) -> None:
    """Skip, with the line that installs what is missing."""
    needs.or_skip("arm", lambda: toolchain.find(targets.find(target).mtriple, cxx=cxx), IrnnError)
    if emulator is not None:
        needs.or_skip("arm", lambda: emulated.find_qemu(emulator), IrnnError)


def need_bare(target: targets.Target) -> None:
    """Skip where this machine cannot link the target's code, or not emulate it."""
    needs.or_skip("arm", lambda: (bare.emulator(target), bare.driver(target)), IrnnError)
