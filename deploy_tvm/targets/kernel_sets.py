"""This machine with a set of kernels that its CPU can execute though it has better ones, as a CPU without them would.

Features are taken away from the target, so that LLVM emits no instruction either that such a CPU lacks.
"""

from __future__ import annotations

from dataclasses import replace

from deploy_tvm.codegen.kernels import X86_SETS
from deploy_tvm.targets import Target, cpu_flags, find
from irnn.errors import IrnnError

# What a CPU whose best set it is has not: LLVM takes away with a feature whatever builds on it.  Of the features that
# no kernel asks for, these are the ones by which LLVM multiplies and shifts bytes of its own accord.
_ABSENT = {
    "avx512vnni": ("-amx-tile",),
    "avxvnni": ("-avx512f", "-amx-tile"),
    "avx2": ("-avx512f", "-avxvnni", "-avxvnniint8", "-avxvnniint16", "-avxifma", "-gfni", "-amx-tile"),
    "portable": ("-sse3", "-gfni", "-amx-tile"),
}


def runnable() -> tuple[str, ...]:
    """The sets that this CPU can execute, the fastest first."""
    flags = cpu_flags()
    return tuple(name for name, needed in X86_SETS.items() if needed <= flags)


def host(kernels: str | None = None) -> Target:
    """This machine, resolved; ``kernels``: with that set and no better one, None: with the best.

    Raises ``IrnnError`` for an unknown set, and for one whose instructions the CPU lacks.
    """
    own = find("host").resolve()
    if kernels is None or kernels == own.kernels().name:
        return own
    can = f"it can run {', '.join(runnable())}"
    if kernels not in X86_SETS:
        raise IrnnError(f"kernels={kernels}: this machine knows no such set; {can}")
    missing = sorted(X86_SETS[kernels] - cpu_flags())
    if missing:
        raise IrnnError(f"kernels={kernels}: this CPU lacks {', '.join(missing)}; {can}")
    return replace(own, mattr=(*own.mattr, *_ABSENT[kernels]))
