"""A recognizer on a device: encoder and decoder over one golden utterance, their times, the real-time factor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from deploy_tvm.artefact.artefact_set import open_parts
from deploy_tvm.artefact.inputs import random_inputs
from deploy_tvm.bench.utterance import PARTS, Utterance, places
from deploy_tvm.remote.device import Device
from deploy_tvm.remote.library import Built, Found, Progress, Run
from deploy_tvm.targets import Target
from irnn.errors import IrnnError
from irnn.program import Program, equality

# Two seconds of speech unless the user says otherwise: an emulator gets through as well.
LENGTHS = {"frames": 200, "units": 10}
# What a timed call of a part makes.
MADE = {"encoder": "utterance", "decoder": "unit"}


@dataclass(frozen=True)
class Recognizer:
    """See ``deploy_tvm.remote.bench.Model``."""

    utterance: Utterance
    kind: ClassVar[str] = "device_recognizer"

    @property
    def described(self) -> dict[str, Any]:
        utterance = self.utterance
        return {"frames": utterance.frames, "seconds_of_speech": utterance.seconds, "units": utterance.units}

    def open(self, folder: Path, kind: str) -> Mapping[str, tuple[Program, Path]]:
        """See ``Model``."""
        programs = open_parts(folder, kind)
        if set(programs) != set(PARTS):
            raise IrnnError(f"{folder} holds no recognizer: wanted are the programs {' and '.join(PARTS)}")
        return {part: (programs[part], folder / part) for part in PARTS}

    def measure(
        self, run: Run, integer: Mapping[str, Built], floating: Mapping[str, Built] | None, progress: Progress
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """See ``Model``.  The decoder attends to what the interpreter's encoder gives, whatever the device's gave."""
        features, tokens = self._inputs(integer)
        progress("running the interpreter")
        memory, last = integer["encoder"].program.run_all(features)
        inputs = {"encoder": features, "decoder": _attending(tokens, memory)}
        outputs, state = integer["decoder"].program.run_all(inputs["decoder"])
        expected = {
            "encoder": equality.named(integer["encoder"].program, memory, last),
            "decoder": equality.named(integer["decoder"].program, outputs, state),
        }
        ours = {part: run(integer[part], inputs[part]) for part in PARTS}
        counts = {
            part: equality.compare(
                f"the device's {part}",
                equality.named(integer[part].program, found.outputs, found.states),
                expected[part],
            )
            for part, found in ours.items()
        }
        entry = {"mismatches": equality.total(counts.values()).figures(), **self._figures(integer, ours)}
        for part, count in counts.items():
            entry[part]["mismatches"] = count.figures()
        if floating is not None:
            features, tokens = self._inputs(floating)
            encoded = run(floating["encoder"], features)
            theirs = {"encoder": encoded, "decoder": run(floating["decoder"], _attending(tokens, encoded.outputs))}
            entry["float"] = self._figures(floating, theirs)
            if not entry["emulated"]:
                entry["speed_up"] = round(self._factor(theirs) / self._factor(ours), 3)
        return entry, ours["encoder"].described

    def _inputs(self, built: Mapping[str, Built]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """(random features with their length, random units with a random memory)."""
        frames, units = self.utterance.frames, self.utterance.units
        encoder, decoder = (built[part].program for part in PARTS)
        sizes = {"time": units, "memory": places(encoder, frames)}
        return random_inputs(encoder, {"time": frames}), random_inputs(decoder, sizes)

    def _factor(self, found: Mapping[str, Found]) -> float:
        return self.utterance.factor(*(found[part].median_us for part in PARTS))

    def _figures(self, built: Mapping[str, Built], found: Mapping[str, Found]) -> dict[str, Any]:
        sizes = {part: library.library.stat().st_size for part, library in built.items()}
        emulated = any(part.emulated for part in found.values())
        figures: dict[str, Any] = {
            part: {**found[part].times(MADE[part]), "bytes": sizes[part], "memory_peak": found[part].memory_peak}
            for part in PARTS
        }
        # No rate or ratio under emulation: they would be the emulator's.
        factor = None if emulated else round(self._factor(found), 6)
        return {**figures, "real_time_factor": factor, "bytes": sum(sizes.values()), "emulated": emulated}

    def run_bundle(self, folder: Path, target: Target, device: Device, scratch: Path) -> dict[str, Any]:
        """See ``Model``."""
        raise IrnnError(f"{device.name} takes bundles alone, which do not time an utterance; choose a 64-bit device")


def _attending(decoder_inputs: dict[str, np.ndarray], memory: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The decoder's inputs with an encoder's outputs as its memory."""
    tokens, *others = decoder_inputs
    return {tokens: decoder_inputs[tokens], **dict(zip(others, memory, strict=True))}
