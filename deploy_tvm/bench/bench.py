"""Benchmarks: one layer with random weights, or a language model, against its float build and other runtimes.

Every runtime runs in a process of its own on one core, timed from Python in the same way (NumPy arrays in, outputs
readable as NumPy arrays), in interleaved rounds (``measure``, ``rounds``).  Before they are timed, ours is compared
with the interpreter integer by integer, and the float peers with our float build.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy_tvm.bench.measure import FLOAT, INTEGER, Case, Progress, Settings, measure
from irnn.errors import IrnnError
from irnn.program import Program, equality
from irnn.program.storage import PROGRAM_FILE, load

CALIBRATION_STEPS = 256
COMPARED_STEPS = 64
MAX_SIZE = 1 << 14
FLOAT_FOLDERS = ("float_artefact", "float_program")  # what a run leaves beside an artefact


@dataclass(frozen=True)
class Layer:
    """The layer benchmark's network; sizes in elements, ``norm`` None, "layer" or "mad"."""

    input: int
    hidden: int
    layers: int = 1
    bidirectional: bool = False
    norm: str | None = None
    weight_bits: int = 8
    cell: str = "lstm"

    def __post_init__(self) -> None:
        if self.cell == "gru":
            raise IrnnError("--layer gru: not yet; this version has lstm")
        if self.cell != "lstm":
            raise IrnnError(f"--layer {self.cell}: unknown; allowed is lstm")
        for name in ("input", "hidden", "layers"):
            _in_range(name, getattr(self, name))


def random_programs(layer: Layer, seed: int = 0) -> tuple[Program, Program]:
    """(integer program, float program) of one stack with random weights, calibrated on Gaussian features."""
    import torch

    import irnn
    from irnn import qat
    from irnn.models.sequence import random_layer

    model = random_layer(
        layer.input, layer.hidden, num_layers=layer.layers, bidirectional=layer.bidirectional, norm=layer.norm,
        seed=seed,
    )  # fmt: skip
    qat.prepare(model, irnn.QuantConfig(weight=layer.weight_bits), irnn.PwlConfig(), "all")
    features = np.random.default_rng(seed).standard_normal((1, CALIBRATION_STEPS, layer.input)).astype(np.float32)
    qat.calibrate(model, [torch.from_numpy(features)])
    return irnn.convert(model), irnn.float_program(model)


def bench_layer(layer: Layer, steps: int, settings: Settings, progress: Progress = lambda text: None) -> dict[str, Any]:
    """Microseconds per time step of one layer, in calls of ``steps`` steps; the result is JSON-ready."""
    _in_range("steps", steps)
    integer, floating = random_programs(layer)
    x = np.random.default_rng(1).standard_normal((1, steps, layer.input)).astype(np.float32)
    function = "step" if steps == 1 and integer.streaming else "run"
    with tempfile.TemporaryDirectory(prefix="irnn-bench-") as scratch:
        progress("compiling the integer and the float program")
        artefacts = {INTEGER: _built(integer, Path(scratch) / INTEGER), FLOAT: _built(floating, Path(scratch) / FLOAT)}
        mismatches = compare(integer, artefacts[INTEGER], steps)
        measured = measure(Case(integer, floating, artefacts, x, function), settings, progress)
    return {
        "kind": "layer",
        "layer": asdict(layer),
        "steps": steps,
        "threads": settings.threads,
        "weight_bits": layer.weight_bits,
        "us_per_step": measured.pop("us"),
        **measured,
        "mismatches": mismatches,
        **_sizes(integer, floating),
    }


def bench_model(
    integer: Program,
    floating: Program | None,
    artefacts: dict[str, Path],
    steps: int,
    settings: Settings,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Microseconds per token of a language model, token by token and in calls of ``steps`` tokens.

    artefacts: ``tvm_integer`` and, where there is one, ``tvm_float``.  ``floating`` is needed for the other runtimes.
    """
    _in_range("steps", steps)
    ((_, ids),) = integer.inputs.items()
    if ids.shape or not integer.streaming:
        raise IrnnError("this program does not read token ids one by one; `bench --layer` measures layers")
    if settings.against and floating is None:
        raise IrnnError("--against needs the float program, from which the other runtimes' models are made: --float")
    mismatches = compare(integer, artefacts[INTEGER], steps)
    results = {}
    for function, length in (("step", 1), ("run", steps)):
        x = np.random.default_rng(1).integers(0, ids.high, (1, length), endpoint=True)
        results[function] = measure(Case(integer, floating, artefacts, x, function), settings, progress)
    step, sequence = results["step"], results["run"]
    return {
        "kind": "language_model",
        "steps": steps,
        "threads": settings.threads,
        "us_per_token": step.pop("us"),
        **step,
        "sequence": {"us_per_token": sequence.pop("us"), **sequence},
        "mismatches": mismatches,
        **_sizes(integer, floating),
    }


def float_folder_of(folder: Path, given: str | None, holds_model: Callable[[Path], bool] = Path.is_dir) -> Path | None:
    """Where the float model is: ``given``, or the first of ``FLOAT_FOLDERS`` that stands beside ``folder``."""
    if given is not None:
        return Path(given)
    beside = (folder.resolve().parent / name for name in FLOAT_FOLDERS)
    return next((path for path in beside if holds_model(path)), None)


def bench_folders(
    folder: Path, float_folder: str | None, steps: int, settings: Settings, progress: Progress = lambda text: None
) -> dict[str, Any]:
    """:func:`bench_model` for folders, artefacts or programs (which are built for this machine first).

    The float model is ``float_folder``, or the first of ``FLOAT_FOLDERS`` that stands beside ``folder``.
    """
    floats = float_folder_of(folder, float_folder)
    with tempfile.TemporaryDirectory(prefix="irnn-bench-") as scratch:
        progress("compiling")
        integer, artefact = _opened(folder, Path(scratch) / INTEGER, "integer")
        floating, artefacts = None, {INTEGER: artefact}
        if floats is not None:
            floating, artefacts[FLOAT] = _opened(floats, Path(scratch) / FLOAT, "float")
        return bench_model(integer, floating, artefacts, steps, settings, progress)


def _opened(folder: Path, scratch: Path, kind: str) -> tuple[Program, Path]:
    """(program, artefact) of a folder that is either."""
    import deploy_tvm

    is_program = (folder / PROGRAM_FILE).exists()
    program = load(folder) if is_program else deploy_tvm.load(folder).program
    if program.kind != kind:
        raise IrnnError(f"{folder} holds a program of kind {program.kind!r}; the {kind} one is wanted here")
    return program, _built(program, scratch) if is_program else folder


def compare(program: Program, artefact: Path, steps: int) -> dict[str, int]:
    """Integers (outputs and states) in which the built program differs from the interpreter.

    Over at least ``COMPARED_STEPS`` random steps, in one call and (where the program can) step by step.
    """
    import deploy_tvm

    ((_, value),) = program.inputs.items()
    shape = (1, max(steps, COMPARED_STEPS), *value.shape)
    inputs = np.random.default_rng(2).integers(value.low, value.high, shape, endpoint=True).astype(value.dtype)
    runner = deploy_tvm.load(artefact)
    expected = program.run(inputs)
    compared = [_compared(program, runner.run(inputs, runner.initial_state(1)), expected)]
    if program.streaming:
        state, outputs = runner.initial_state(1), []
        for t in range(inputs.shape[1]):
            output, state = runner.step(inputs[:, t], state)
            outputs.append(np.array(output))
        compared.append(_compared(program, (np.stack(outputs, 1), state), expected))
    return equality.total(compared).figures()


def weight_bytes(program: Program) -> int:
    """Bytes of the weight matrices as stored: 4-bit ones packed, tables and biases left out."""
    names = {name for node in program.walk() for role, name in node.tensors.items() if role in ("weight", "table")}
    return sum((program.tensors[n].data.size * program.tensors[n].storage_bits + 7) // 8 for n in names)


def _built(program: Program, folder: Path) -> Path:
    import deploy_tvm

    deploy_tvm.build(program, folder, target="host")
    return folder


def _sizes(integer: Program, floating: Program | None) -> dict[str, dict[str, int]]:
    programs = {"integer": integer} | ({} if floating is None else {"float": floating})
    return {
        "weight_bytes": {kind: weight_bytes(program) for kind, program in programs.items()},
        "program_bytes": {kind: program.size_bytes() for kind, program in programs.items()},
    }


def _compared(program: Program, ours: tuple[Any, Any], theirs: tuple[Any, Any]) -> equality.Comparison:
    found, expected = (equality.named(program, [output], state) for output, state in (ours, theirs))
    return equality.compare("the built program", found, expected)


def _in_range(name: str, value: int) -> None:
    if not 1 <= value <= MAX_SIZE:
        raise IrnnError(f"--{name} {value}: must lie in 1 to {MAX_SIZE}")
