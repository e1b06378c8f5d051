"""What ``bench --static`` does: programs from a layer or a folder, their figures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploy_tvm.artefact import open_program
from deploy_tvm.bench import FLOAT_FOLDERS, Layer, random_programs
from deploy_tvm.static.figures import static_figures
from deploy_tvm.targets import Target


def bench_static(
    layer: Layer | None, folder: Path | None, floating: str | None, target: Target, steps: int, **others: Any
) -> dict[str, Any]:
    """The static figures of a layer with random weights, or of the program or artefact in ``folder``.

    others: ``against``, ``peers_python``, ``progress`` of :func:`static_figures`.
    """
    if layer is not None:
        integer, other = random_programs(layer)
        return {**static_figures(integer, other, target, steps, **others), "layer": asdict(layer)}
    assert folder is not None
    if floating is None:
        beside = (folder.resolve().parent / name for name in FLOAT_FOLDERS)
        floating = next((str(path) for path in beside if path.is_dir()), None)
    integer = open_program(folder, "integer")
    other = None if floating is None else open_program(Path(floating), "float")
    return static_figures(integer, other, target, steps, **others)
