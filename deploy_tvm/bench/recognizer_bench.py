"""Benchmark of a recognizer: its encoder over one utterance, its decoder unit by unit, and the real-time factor.

The real-time factor is the time that encoder and decoder take for an utterance, over its length: 0.1 is ten times
faster than speech.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy_tvm.artefact import artefact_set
from deploy_tvm.artefact.artefact import holds_set
from deploy_tvm.artefact.inputs import random_inputs
from deploy_tvm.bench.bench import float_folder_of
from deploy_tvm.bench.measure import FLOAT, INTEGER, PartCase, Progress, Settings, measure
from irnn.errors import IrnnError
from irnn.program import LENGTH_MAX, Program, equality
from irnn.program.sets import ProgramSet

PARTS = ("encoder", "decoder")
FRAMES_A_SECOND = 100
# The model of a random recognizer: filterbanks and SentencePiece units as in Espresso's LibriSpeech recipe.
FEATURES, VOCABULARY = 80, 5000
CALIBRATION_FRAMES = 100
# Frames of the comparison with the interpreter, which is slow.
COMPARED_FRAMES, COMPARED_UNITS = 45, 3


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


def random_programs(name: str, seed: int = 0) -> tuple[ProgramSet, ProgramSet]:
    """(integer programs, float programs) of the recognizer in ``conf/model/<name>.yaml`` with random weights."""
    import torch

    import irnn
    from irnn import qat
    from irnn.data.speech.speech_batches import collate
    from irnn.models.speech import SpeechModel

    torch.manual_seed(seed)
    model = SpeechModel(_config(name))
    qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), "all")
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((CALIBRATION_FRAMES, FEATURES)).astype(np.float32)
    qat.calibrate(model, [collate([features], [rng.integers(3, VOCABULARY, 8)], np.zeros(1, np.int64))])
    return irnn.convert(model.eval()), irnn.float_program(model)


def _config(name: str) -> Any:
    import yaml

    import conf
    from irnn.models.speech import SpeechModelConfig

    folder = Path(conf.__file__).parent / "model"
    known = sorted(path.stem for path in folder.glob("speech_*.yaml"))
    if name not in known:
        raise IrnnError(f"--recognizer {name}: unknown; allowed are {', '.join(known)}")
    return SpeechModelConfig(VOCABULARY, FEATURES, **yaml.safe_load((folder / f"{name}.yaml").read_text("utf-8")))


def bench_random(
    name: str, utterance: Utterance, settings: Settings, progress: Progress = lambda text: None
) -> dict[str, Any]:
    """:func:`bench_recognizer` of a recognizer with random weights."""
    progress("making the programs")
    integer, floating = random_programs(name)
    with tempfile.TemporaryDirectory(prefix="irnn-bench-") as scratch:
        artefacts = {}
        for key, programs in ((INTEGER, integer), (FLOAT, floating)):
            progress(f"compiling {key}")
            artefacts[key] = artefact_set.build(programs, Path(scratch) / key)
        return bench_recognizer(name, integer, floating, artefacts, utterance, settings, progress)


def bench_folders(
    folder: Path,
    float_folder: str | None,
    utterance: Utterance,
    settings: Settings,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """:func:`bench_recognizer` for sets of programs (built for this machine first) or of artefacts.

    The float programs are in ``float_folder``, or in the first of ``FLOAT_FOLDERS`` that stands beside ``folder``.
    """
    floats = float_folder_of(folder, float_folder, holds_set)
    with tempfile.TemporaryDirectory(prefix="irnn-bench-") as scratch:
        progress("compiling")
        integer, built = _opened(folder, Path(scratch) / INTEGER, "integer")
        floating, artefacts = None, {INTEGER: built}
        if floats is not None:
            floating, artefacts[FLOAT] = _opened(floats, Path(scratch) / FLOAT, "float")
        return bench_recognizer(str(folder), integer, floating, artefacts, utterance, settings, progress)


def bench_recognizer(
    name: str,
    integer: ProgramSet,
    floating: ProgramSet | None,
    artefacts: dict[str, Path],
    utterance: Utterance,
    settings: Settings,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Times of encoder and decoder step and the real-time factor, batch 1; the result is JSON-ready.

    artefacts: the sets ``tvm_integer`` and, where there is one, ``tvm_float``.  ``floating`` is needed for the other
    runtimes.
    """
    if settings.against and floating is None:
        raise IrnnError("--against needs the float programs, from which the other runtimes' models are made: --float")
    progress("comparing with the interpreter")
    mismatches = compare(integer, artefact_set.load(artefacts[INTEGER]))
    measured = {}
    sizes = _sizes(integer, utterance.frames, units=1)
    for part in PARTS:
        ours = random_inputs(integer[part], sizes[part])
        theirs = {} if floating is None else random_inputs(floating[part], sizes[part])
        case = PartCase(
            integer[part],
            None if floating is None else floating[part],
            {key: folder / part for key, folder in artefacts.items()},
            ours,
            theirs,
        )
        measured[part] = measure(case, settings, lambda text, part=part: progress(f"{part}: {text}"))
    encoder, decoder = (measured[part]["us"] for part in PARTS)
    factors = {
        key: None if None in (encoder[key], decoder[key]) else utterance.factor(encoder[key], decoder[key])
        for key in encoder
    }
    ours = factors[INTEGER]
    return {
        "kind": "recognizer",
        "name": name,
        "frames": utterance.frames,
        "seconds_of_speech": utterance.seconds,
        "units": utterance.units,
        "places": sizes["decoder"]["memory"],
        "threads": settings.threads,
        "real_time_factor": {key: None if f is None else round(f, 6) for key, f in factors.items()},
        "speed_up": {key: round(f / ours, 3) for key, f in factors.items() if f is not None and key != INTEGER},
        "encoder": {"us_per_utterance": measured["encoder"].pop("us"), **measured["encoder"]},
        "decoder": {"us_per_unit": measured["decoder"].pop("us"), **measured["decoder"]},
        "mismatches": mismatches,
        "program_bytes": {
            kind: programs.size_bytes()
            for kind, programs in (("integer", integer), ("float", floating))
            if programs is not None
        },
    }


def places(encoder: Program, frames: int) -> int:
    """Places of the memory that an encoder makes of so many frames."""
    _, _, factor = encoder.values[encoder.outputs[0]].axes[0].partition("/")
    return -(-frames // int(factor or 1))


def compare(programs: ProgramSet, runners: artefact_set.RunnerSet) -> dict[str, int]:
    """Integers (outputs and states) in which the built programs differ from the interpreter."""
    counts, sizes = [], _sizes(programs, COMPARED_FRAMES, COMPARED_UNITS)
    for part in PARTS:
        inputs = random_inputs(programs[part], sizes[part])
        found, expected = (
            equality.named(programs[part], *executors[part].run_all(inputs)) for executors in (runners, programs)
        )
        counts.append(equality.compare(f"the built {part}", found, expected))
    return equality.total(counts).figures()


def _sizes(programs: ProgramSet, frames: int, units: int) -> dict[str, dict[str, int]]:
    """Sizes of the axes of encoder and decoder."""
    return {"encoder": {"time": frames}, "decoder": {"time": units, "memory": places(programs["encoder"], frames)}}


def open_recognizer(folder: Path, kind: str) -> ProgramSet:
    """The programs of a recognizer in a folder with a set of them, or of artefacts for whatever target."""
    programs = artefact_set.open_programs(folder, kind)
    if set(programs) != set(PARTS):
        raise IrnnError(f"{folder} holds no recognizer: wanted are the programs {' and '.join(PARTS)}")
    return programs


def _opened(folder: Path, scratch: Path, kind: str) -> tuple[ProgramSet, Path]:
    """(programs, set of artefacts for this machine) of a folder that holds either."""
    programs = open_recognizer(folder, kind)
    if not artefact_set.is_set(folder):
        return programs, artefact_set.build(programs, scratch)
    artefact_set.load(folder)  # It may have been built for another machine.
    return programs, folder
