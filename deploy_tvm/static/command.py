"""What ``bench --static`` does: programs from a layer or a folder, their figures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploy_tvm.artefact.artefact import open_program
from deploy_tvm.bench.bench import Layer, float_folder_of, random_programs
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
    floats = float_folder_of(folder, floating)
    integer = open_program(folder, "integer")
    other = None if floats is None else open_program(floats, "float")
    return static_figures(integer, other, target, steps, **others)
