"""A language model (or any program with one input) on a device: a golden sequence, and the time of one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from deploy_tvm.artefact.artefact import open_program
from deploy_tvm.artefact.inputs import random_input
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

    def open(self, folder: Path, kind: str) -> Mapping[str, tuple[Program, Path]]:
        """See ``Model``: one program, which needs no name."""
        return {"": (open_program(folder, kind), folder)}

    def measure(
        self, run: Run, integer: Mapping[str, Built], floating: Mapping[str, Built] | None, progress: Progress
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """See ``Model``."""
        ((_, built),) = integer.items()
        x = random_input(built.program, self.tokens)
        progress("running the interpreter")
        output, states = built.program.run(x)
        ours = run(built, _named(built.program, x))
        found = equality.named(built.program, ours.outputs, ours.states)
        entry = {
            "mismatches": equality.compare(
                "the device", found, equality.named(built.program, [output], states)
            ).figures(),
            **self._figures(built, ours),
        }
        if floating is not None:
            ((_, built),) = floating.items()
            theirs = run(built, _named(built.program, random_input(built.program, self.tokens)))
            entry["float"] = self._figures(built, theirs)
            if not ours.emulated:
                entry["speed_up"] = round(entry["float"]["us_per_token"] / entry["us_per_token"], 3)
        return entry, ours.described

    def _figures(self, built: Built, found: Found) -> dict[str, Any]:
        steps = 1 if built.program.streaming else self.tokens
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


def _named(program: Program, x: Any) -> dict[str, Any]:
    (name,) = program.inputs
    return {name: x}
