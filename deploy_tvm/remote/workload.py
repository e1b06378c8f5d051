"""What programs run on, on a device, and what their times are times of: tokens, steps, sequences, utterances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from deploy_tvm.artefact.inputs import by_steps, random_inputs
from deploy_tvm.bench.bench import reads_tokens
from deploy_tvm.bench.subject import Programs
from deploy_tvm.bench.utterance import PARTS, Utterance, places
from irnn.errors import IrnnError
from irnn.program import Program

STEPS = 64
# Two seconds of speech unless the user says otherwise: an emulator gets through as well.
SPEECH = {"frames": 200, "units": 10}
MAX_STEPS = 1_000_000

Inputs = dict[str, np.ndarray]


class Workload(Protocol):
    """kind: of the result.  described: the golden sequence, as JSON values."""

    kind: ClassVar[str]

    @property
    def described(self) -> dict[str, Any]: ...

    def inputs(self, part: str, programs: Programs, outputs: Mapping[str, list[np.ndarray]]) -> Inputs:
        """What a part reads, ``[1, ...]`` by name; outputs: those of the parts before it."""

    def unit(self, part: str, program: Program) -> tuple[str, int]:
        """(a word for what is timed, how many of it a timed call makes)."""

    def total(self, us: Mapping[str, float]) -> float | None:
        """Microseconds of what the parts make together, from those of a call of each; None: nothing."""

    def figure(self, us: float | None) -> dict[str, float | None]:
        """The figure by which builds are compared, from ``total``; None where it would be an emulator's."""


@dataclass(frozen=True)
class Single:
    """A program that stands alone; ``word``: what it is timed by."""

    length: int
    word: str
    count: int  # of words that a timed call makes
    kind: ClassVar[str] = "device"

    @classmethod
    def of(cls, program: Program, length: int) -> Single:
        """A step a call where a sequence may be cut, else the whole sequence; a token is a language model's step."""
        word, count = _unit(program, length)
        return cls(length, "token" if reads_tokens(program) else word, count)

    @property
    def described(self) -> dict[str, Any]:
        return {"tokens" if self.word == "token" else "steps": self.length}

    def inputs(self, part: str, programs: Programs, outputs: Mapping[str, list[np.ndarray]]) -> Inputs:
        """Random ones; so many places of a memory as steps."""
        return random_inputs(programs[part], {"time": self.length, "memory": self.length})

    def unit(self, part: str, program: Program) -> tuple[str, int]:
        return self.word, self.count

    def total(self, us: Mapping[str, float]) -> float:
        (alone,) = us.values()
        return alone

    def figure(self, us: float | None) -> dict[str, float | None]:
        return {f"{self.word}s_per_second": None if us is None else round(1e6 * self.count / us, 1)}


@dataclass(frozen=True)
class Recognizer:
    """Encoder and decoder over one utterance; they make its real-time factor together."""

    utterance: Utterance
    kind: ClassVar[str] = "device_recognizer"

    @property
    def described(self) -> dict[str, Any]:
        utterance = self.utterance
        return {"frames": utterance.frames, "seconds_of_speech": utterance.seconds, "units": utterance.units}

    def inputs(self, part: str, programs: Programs, outputs: Mapping[str, list[np.ndarray]]) -> Inputs:
        """Random features with their length; random units, with what the encoder gave as the decoder's memory."""
        frames, units = self.utterance.frames, self.utterance.units
        sizes = {"time": frames if part == "encoder" else units, "memory": places(programs["encoder"], frames)}
        given = random_inputs(programs[part], sizes)
        if part == "encoder":
            return given
        tokens, *memory = given
        return {tokens: given[tokens], **dict(zip(memory, outputs["encoder"], strict=True))}

    def unit(self, part: str, program: Program) -> tuple[str, int]:
        return {"encoder": "utterance", "decoder": "unit"}[part], 1

    def total(self, us: Mapping[str, float]) -> float:
        return us["encoder"] + self.utterance.units * us["decoder"]

    def figure(self, us: float | None) -> dict[str, float | None]:
        return {"real_time_factor": None if us is None else round(us * 1e-6 / self.utterance.seconds, 6)}


@dataclass(frozen=True)
class Several:
    """Programs that belong together in a way that is not known here: each runs on inputs of its own."""

    length: int
    kind: ClassVar[str] = "device_set"

    @property
    def described(self) -> dict[str, Any]:
        return {"steps": self.length}

    def inputs(self, part: str, programs: Programs, outputs: Mapping[str, list[np.ndarray]]) -> Inputs:
        """Random ones; so many places of a memory as steps."""
        return random_inputs(programs[part], {"time": self.length, "memory": self.length})

    def unit(self, part: str, program: Program) -> tuple[str, int]:
        return _unit(program, self.length)

    def total(self, us: Mapping[str, float]) -> None:
        return None

    def figure(self, us: float | None) -> dict[str, float | None]:
        return {}


@dataclass(frozen=True)
class Lengths:
    """How long the golden sequence is: tokens of a language model, frames (10 ms) and units of a recognizer, steps of
    anything else.  None: the default."""

    steps: int | None = None
    tokens: int | None = None
    frames: int | None = None
    units: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "tokens"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MAX_STEPS:
                raise IrnnError(f"--{name} {value}: must lie in 1 to {MAX_STEPS}")

    @property
    def given(self) -> dict[str, int]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    def workload(self, folder: Path, programs: Programs) -> Workload:
        """That of the programs in ``folder``; a length that is another kind's is an ``IrnnError``."""
        if set(programs) == set(PARTS):
            return Recognizer(Utterance(**{**SPEECH, **self._only(folder, "a recognizer", *SPEECH)}))
        if set(programs) != {""}:
            return Several(self._only(folder, "programs that are no recognizer's", "steps").get("steps", STEPS))
        (program,) = programs.values()
        name, what = ("tokens", "a language model") if reads_tokens(program) else ("steps", "no language model")
        return Single.of(program, self._only(folder, what, name).get(name, STEPS))

    def _only(self, folder: Path, what: str, *own: str) -> dict[str, int]:
        """What is given."""
        foreign = next((name for name in self.given if name not in own), None)
        if foreign is not None:
            allowed = " and ".join(f"--{name}" for name in own)
            raise IrnnError(f"--{foreign}: {folder} holds {what}, whose length is {allowed}")
        return self.given


def _unit(program: Program, steps: int) -> tuple[str, int]:
    if by_steps(program):
        return "step", 1
    along = any("time" in axis for name in program.outputs for axis in program.values[name].axes)
    return ("step", steps) if along else ("sequence", 1)
