"""Compiles programs with TVM and runs the result: ``build(program, folder)``, ``load(folder)``.

TVM is an extra (``pip install 'irnn[tvm]'``) and is imported when it is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from irnn.errors import IrnnError

__all__ = ["build", "load"]


def _need_tvm() -> None:
    try:
        import tvm  # noqa: F401
    except ImportError as error:
        raise IrnnError(f"TVM cannot be imported ({error}): install it with  pip install 'irnn[tvm]'") from None


def build(program: Any, folder: Any, target: Any = "host") -> Any:
    """Compile ``program`` for ``target`` (a name in ``conf/target`` or a ``targets.Target``) into ``folder``.

    A ``ProgramSet`` becomes a folder with an artefact for each of its programs.  Returns the folder's path; see
    :func:`deploy_tvm.artefact.build` and :func:`deploy_tvm.artefact_set.build`.
    """
    _need_tvm()
    from deploy_tvm import artefact, artefact_set
    from irnn.program_set import ProgramSet

    return (artefact_set if isinstance(program, ProgramSet) else artefact).build(program, folder, target)


def load(folder: Any) -> Any:
    """The runner of a built folder: ``run``, ``step``, ``initial_state``; see :class:`deploy_tvm.runner.Runner`.

    Of a folder that holds a set, a mapping from names to runners; see :class:`deploy_tvm.artefact_set.RunnerSet`.
    """
    _need_tvm()
    from deploy_tvm import artefact_set, runner

    return artefact_set.load(folder) if artefact_set.is_set(Path(folder)) else runner.load(folder)
