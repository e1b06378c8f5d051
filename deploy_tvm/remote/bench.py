"""A model on a device: the same integers as the interpreter's, and how long they take beside the float build."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deploy_tvm.artefact.artefact import holds_set
from deploy_tvm.bench.rounds import now
from deploy_tvm.bench.subject import float_folder_of
from deploy_tvm.bench.utterance import Utterance
from deploy_tvm.remote import emulated
from deploy_tvm.remote.device import Device
from deploy_tvm.remote.language_model import LanguageModel
from deploy_tvm.remote.library import Built, Found, Progress, Run, build_for, run_library
from deploy_tvm.remote.recognizer import LENGTHS, Recognizer
from deploy_tvm.remote.serve import reachable
from deploy_tvm.targets import Target, machine
from irnn.errors import IrnnError
from irnn.program import Program

SETTINGS = ("number", "repeat", "warmup", "cooldown", "core")


@dataclass(frozen=True)
class Golden:
    """What is compared: tokens of a language model; frames (10 ms) and units of a recognizer.  None: the default."""

    tokens: int | None = None
    frames: int | None = None
    units: int | None = None

    @property
    def given(self) -> dict[str, int]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    def model(self, folder: Path) -> Model:
        """How the model in ``folder`` is measured; a length that is the other kind's is an ``IrnnError``."""
        recognizer = holds_set(folder)
        given = self.given
        foreign = next((name for name in given if (name in LENGTHS) != recognizer), None)
        if foreign is not None:
            owner = "a language model" if recognizer else "a recognizer"
            raise IrnnError(f"--{foreign} belongs to {owner}; {folder} holds none")
        return Recognizer(Utterance(**{**LENGTHS, **given})) if recognizer else LanguageModel(**given)


class Model(Protocol):
    """What is measured of a kind of model.  kind: of the result.  described: the golden sequence, as JSON values."""

    kind: str

    @property
    def described(self) -> dict[str, Any]: ...

    def open(self, folder: Path, kind: str) -> Mapping[str, tuple[Program, Path]]:
        """The programs of ``kind`` ("integer", "float") and their own folders, by name."""

    def measure(
        self, run: Run, integer: Mapping[str, Built], floating: Mapping[str, Built] | None, progress: Progress
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """(mismatches, times and sizes as JSON values, what the device's server tells of it)."""

    def run_bundle(self, folder: Path, target: Target, device: Device, scratch: Path) -> dict[str, Any]:
        """The same on an emulated board that takes bundles alone."""


def bench_device(
    folder: Path, float_folder: str | None, target: Target, device: Device, golden: Golden, progress: Progress
) -> dict[str, Any]:
    """Measure programs or artefacts (``folder``) on ``device``; the result is JSON-ready.

    ``device.servers``: the addresses that a tracker gave, one session after the other.  Artefacts for another target
    are built anew; a 32-bit board runs a bundle, without a float program beside it.  The float model is in
    ``float_folder``, or in the first of ``FLOAT_FOLDERS`` that stands beside ``folder``.
    """
    model = golden.model(folder)
    described = None
    servers: list[str] = []
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="irnn-bench-")))
        progress(f"compiling for {target.name}")
        if device.cpu == emulated.CPU32:
            entry = model.run_bundle(folder, target, device, scratch)
        else:
            floats = float_folder_of(folder, float_folder)
            integer = _built(model, folder, "integer", target, scratch)
            floating = None if floats is None else _built(model, floats, "float", target, scratch)
            progress(f"starting {device.name}" if device.emulated else f"connecting to {device.name}")
            board = stack.enter_context(reachable(device))

            def run(built: Built, inputs: dict[str, np.ndarray]) -> Found:
                found = run_library(board, built, inputs, scratch, progress)
                if found.server is not None and found.server not in servers:
                    servers.append(found.server)
                return found

            entry, described = model.measure(run, integer, floating, progress)
    return {
        "kind": model.kind,
        "device": {
            "kind": device.kind,
            "name": device.name,
            "emulated": entry["emulated"],
            "described": described,
            "servers": servers,
        },
        **model.described,
        "settings": {name: getattr(device, name) for name in SETTINGS},
        "targets": {target.name: entry},
        "mismatches": entry["mismatches"],
        "versions": machine.versions(),
        "measured": now(),
    }


def _built(model: Model, folder: Path, kind: str, target: Target, scratch: Path) -> dict[str, Built]:
    return {
        name: build_for(target, f"{kind} {name}".strip(), program, own, scratch / kind / name)
        for name, (program, own) in model.open(folder, kind).items()
    }
