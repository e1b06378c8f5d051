"""A language model (or any other single program) on a device: a golden sequence, and the time of one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from deploy_tvm.artefact.artefact import open_program
from deploy_tvm.artefact.inputs import by_steps, random_inputs
from deploy_tvm.remote.bare_board import run_bundle
from deploy_tvm.remote.device import Device
from deploy_tvm.remote.library import Built, Found, Progress, Run
from deploy_tvm.targets import Target
from irnn.errors import IrnnError
from irnn.program import Program, equality

MAX_TOKENS = 1_000_000


@dataclass(frozen=True)
class LanguageModel:
    """See ``deploy_tvm.remote.bench.Model``.  tokens: length of the golden sequence."""

    tokens: int = 64
    kind: ClassVar[str] = "device"

    def __post_init__(self) -> None:
        if not 1 <= self.tokens <= MAX_TOKENS:
            raise IrnnError(f"--tokens {self.tokens}: must lie in 1 to {MAX_TOKENS}")

    @property
    def described(self) -> dict[str, Any]:
        return {"tokens": self.tokens}

    @property
    def _sizes(self) -> dict[str, int]:
        return {"time": self.tokens, "memory": self.tokens}

    def open(self, folder: Path, kind: str) -> Mapping[str, tuple[Program, Path]]:
        """See ``Model``: one program, which needs no name."""
        return {"": (open_program(folder, kind), folder)}

    def measure(
        self, run: Run, integer: Mapping[str, Built], floating: Mapping[str, Built] | None, progress: Progress
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """See ``Model``."""
        ((_, built),) = integer.items()
        given = random_inputs(built.program, self._sizes)
        progress("running the interpreter")
        expected = equality.named(built.program, *built.program.run_all(given))
        ours = run(built, given)
        found = equality.named(built.program, ours.outputs, ours.states)
        entry = {
            "mismatches": equality.compare("the device", found, expected).figures(),
            **self._figures(built, ours),
        }
        if floating is not None:
            ((_, built),) = floating.items()
            theirs = run(built, random_inputs(built.program, self._sizes))
            entry["float"] = self._figures(built, theirs)
            if not ours.emulated:
                entry["speed_up"] = round(entry["float"]["us_per_token"] / entry["us_per_token"], 3)
        return entry, ours.described

    def _figures(self, built: Built, found: Found) -> dict[str, Any]:
        steps = 1 if by_steps(built.program) else self.tokens
        return {
            **found.times("token", steps),
            # No rate or ratio under emulation: they would be the emulator's.
            "tokens_per_second": None if found.emulated else round(1e6 * steps / found.median_us, 1),
            "bytes": built.library.stat().st_size,
            "memory_peak": found.memory_peak,
            "emulated": found.emulated,
        }

    def run_bundle(self, folder: Path, target: Target, device: Device, scratch: Path) -> dict[str, Any]:
        """See ``Model``."""
        return run_bundle(folder, target, device.cpu, self.tokens, device.number * device.repeat, scratch)
