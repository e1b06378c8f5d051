"""Emulated boards for tests, which skip where the emulator or a cross compiler is absent."""

from deploy_tvm import targets
from deploy_tvm.remote import emulated
from deploy_tvm.static import bare, mca
from deploy_tvm.targets import toolchain
from irnn.errors import IrnnError
from tests.support import needs


def need(target: str, emulator: str | None = None, *, cxx: bool = False) -> None:
    """Skip, with the line that installs what is missing."""
    needs.or_skip("arm", lambda: toolchain.find(targets.find(target).mtriple, cxx=cxx), IrnnError)
    if emulator is not None:
        needs.or_skip("arm", lambda: emulated.find_qemu(emulator), IrnnError)


def need_bare(target: targets.Target) -> None:
    """Skip where this machine cannot link the target's code, or not emulate it."""
    needs.or_skip("arm", lambda: (bare.emulator(target), bare.driver(target)), IrnnError)


def need_emulator(target: str) -> None:
    """Skip unless the instructions of a program for `target` can be counted."""
    need(target)
    needs.or_skip("arm", lambda: bare.emulator(targets.find(target)), IrnnError)


def need_counter(target: str = "cortex_a76") -> None:
    """Skip unless they can be counted, and their cycles modelled."""
    need_emulator(target)
    need_model()


def need_model() -> None:
    """Skip unless cycles can be modelled."""
    needs.or_skip("mca", mca.find_tool, IrnnError)
