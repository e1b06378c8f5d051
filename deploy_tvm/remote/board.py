"""What runs a program on a device, and what comes back of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from deploy_tvm.artefact.golden import Golden
from irnn.program.equality import Comparison


@dataclass(frozen=True)
class Found:
    """What a program did on a device.

    median_us, p95_us: of a timed call.  size: bytes of the library.  mismatches: None where nothing was compared.
    outputs: empty where the device keeps them.  emulated: its times are an emulator's.  described: what the device's
    server tells of it, None where it is TVM's own.  server: the address that a tracker gave, None without one.
    """

    median_us: float
    p95_us: float
    size: int
    memory_peak: str | None
    emulated: bool
    mismatches: Comparison | None = None
    outputs: list[np.ndarray] = field(default_factory=list)
    described: dict[str, Any] | None = None
    server: str | None = None

    def figures(self, unit: str, count: int) -> dict[str, Any]:
        """Times a ``unit`` (a word), of which a timed call makes so many, and sizes, as JSON values."""
        return {
            f"us_per_{unit}": round(self.median_us / count, 3),
            f"p95_us_per_{unit}": round(self.p95_us / count, 3),
            "bytes": self.size,
            "memory_peak": self.memory_peak,
        }


class Board(Protocol):
    """A device for one subject (``deploy_tvm.bench.subject.Subject``)."""

    def run(self, runtime: str, part: str, inputs: dict[str, np.ndarray], golden: Golden | None) -> Found:
        """Run a part's build of ``runtime`` on inputs ``[1, ...]`` from the initial state; compare it with ``golden``.

        A device that cannot be reached or fails is an ``IrnnError``.
        """
