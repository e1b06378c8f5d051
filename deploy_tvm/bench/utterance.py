"""What a recognizer is measured on: an utterance of so many frames, decoded unit by unit.

The real-time factor is the time that encoder and decoder take for an utterance, over its length: 0.1 is ten times
faster than speech.
"""

from __future__ import annotations

from dataclasses import dataclass

from irnn.errors import IrnnError
from irnn.program import LENGTH_MAX, Program
from irnn.program.axes import Axis

PARTS = ("encoder", "decoder")
FRAMES_A_SECOND = 100


@dataclass(frozen=True)
class Utterance:
    """What is timed: so many frames of 10 ms, and so many units to decode."""

    frames: int = 1000
    units: int = 40

    def __post_init__(self) -> None:
        for name, value in (("frames", self.frames), ("units", self.units)):
            if not 1 <= value <= LENGTH_MAX:
                raise IrnnError(f"--{name} {value}: must lie in 1 to {LENGTH_MAX}")

    @property
    def seconds(self) -> float:
        return self.frames / FRAMES_A_SECOND

    def factor(self, encoder_us: float, decoder_us: float) -> float:
        """The real-time factor, from microseconds of a call of each: the decoder is called once a unit."""
        return (encoder_us + self.units * decoder_us) * 1e-6 / self.seconds


def places(encoder: Program, frames: int) -> int:
    """Places of the memory that an encoder makes of so many frames."""
    return Axis.parse(encoder.values[encoder.outputs[0]].axes[0]).size(frames)


def part_sizes(encoder: Program, utterance: Utterance) -> dict[str, dict[str, int]]:
    """Sizes of the axes of encoder and decoder."""
    memory = places(encoder, utterance.frames)
    return {"encoder": {"time": utterance.frames}, "decoder": {"time": utterance.units, "memory": memory}}
