"""Compiles programs with TVM and runs the result: ``build(program, folder)``, ``load(folder)``.

TVM is an extra (``pip install 'irnn[tvm]'``) and is imported when it is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from irnn.errors import IrnnError
from irnn.extras import extra

__all__ = ["build", "load", "need_tvm"]


def need_tvm() -> None:
    """An ``IrnnError`` unless TVM can be imported: it is not installed, or it is and does not load."""
    try:
        with extra("tvm"):
            import tvm  # noqa: F401
    except (ImportError, OSError, AttributeError, RuntimeError) as error:  # what a half-installed or mixed one raises
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise IrnnError(
            f"TVM is installed but cannot be imported ({reason}): pip install --force-reinstall 'irnn[tvm]'"
        ) from None


def build(program: Any, folder: Any, target: Any = "host", units: Any = None) -> Any:
    """Compile ``program`` for ``target`` (a name in ``conf/target`` or a ``targets.Target``) into ``folder``.

    A ``ProgramSet`` becomes a folder with an artefact for each of its programs, and the recognizer's ``units``
    (``irnn.data.speech.units.Units``) where they are given.  Returns the folder's path; see
    :func:`deploy_tvm.artefact.build` and :func:`deploy_tvm.artefact.artefact_set.build`.
    """
    need_tvm()
    from deploy_tvm.artefact import artefact, artefact_set
    from irnn.program.sets import ProgramSet

    if isinstance(program, ProgramSet):
        return artefact_set.build(program, folder, target, units)
    return artefact.build(program, folder, target)


def load(folder: Any) -> Any:
    """The runner of a built folder: ``run``, ``step``, ``initial_state``; see :class:`runner.Runner`.

    Of a folder that holds a set, a mapping from names to runners; see :class:`artefact_set.RunnerSet`.
    """
    need_tvm()
    from deploy_tvm.artefact import artefact_set, runner

    return artefact_set.load(folder) if artefact_set.is_set(Path(folder)) else runner.load(folder)
