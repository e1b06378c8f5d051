"""Stages and how they are cached: a stage runs once for one set of inputs, whoever asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from irnn.arithmetic import VERSION
from irnn.errors import IrnnError
from pipelines.core.manifest import FILE as MANIFEST
from pipelines.core.manifest import digest_of, read_manifest, write_manifest
from pipelines.watch.console import console

# How often one that waits for another's stage looks whether it is sealed.
_LOOK_SECONDS = 0.5


@dataclass
class Result:
    """What a stage hands back to be sealed.

    metrics: figures for the report.  files: what it wrote into its folder, as paths relative to it.  details: more
    for the manifest.  scratch: files that only an interrupted run would need, removed once the stage is sealed.
    """

    metrics: dict[str, Any]
    files: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    scratch: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    name: unique in a run.  inputs: everything that decides on the outcome, as JSON values.  previous: the stage whose
    folder is read.  run: called with the stage; it writes its files into the stage's folder and may find there what an
    interrupted attempt has left.  root: folder in which the stage's own folder is made.
    """

    name: str
    inputs: dict[str, Any]
    previous: Stage | None
    run: Callable[[Stage], Result]
    root: Path

    @property
    def digest(self) -> str:
        """Hash of the inputs, the arithmetic's version and, through the previous stage, all that came before."""
        before = self.previous.digest if self.previous else None
        return digest_of({"stage": self.name, "arithmetic": VERSION, "inputs": self.inputs, "previous": before})

    @property
    def folder(self) -> Path:
        """`<root>/<name>-<digest>`: equal inputs share it, different inputs never meet."""
        return self.root / f"{self.name}-{self.digest}"


def run_stage(stage: Stage) -> dict[str, Any]:
    """The manifest of a stage: read where the stage is done, else the stage runs first, under a lock."""
    stage.root.mkdir(parents=True, exist_ok=True)
    with _locked(stage):
        manifest = read_manifest(stage.folder)
        if manifest is not None:
            console.print(f"{stage.name}: done before ({stage.folder})")
            return manifest
        console.print(f"{stage.name}: running ({stage.folder})")
        stage.folder.mkdir(exist_ok=True)
        started = time.monotonic()
        result = stage.run(stage)
        content = {
            "stage": stage.name,
            "digest": stage.digest,
            "inputs": stage.inputs,
            "previous": stage.previous.folder.name if stage.previous else None,
            "metrics": result.metrics,
            "wall_seconds": round(time.monotonic() - started, 2),
            **result.details,
        }
        manifest = write_manifest(stage.folder, content, result.files)
        for name in result.scratch:
            (stage.folder / name).unlink(missing_ok=True)
        return manifest


def stages_until(stages: Sequence[Stage], until: str | None) -> list[Stage]:
    """The stages up to and including `until`; all of them for None."""
    names = [stage.name for stage in stages]
    if until is None:
        return list(stages)
    if until not in names:
        raise IrnnError(f"until={until} is no stage; allowed: {', '.join(names)}, or null for all")
    return list(stages[: names.index(until) + 1])


def run_stages(
    stages: Sequence[Stage], done: Callable[[Stage, dict[str, Any]], None] = lambda stage, manifest: None
) -> dict[str, dict[str, Any]]:
    """Run the stages in order; manifests by stage name.  done: told of each, one that ran before included."""
    manifests = {}
    for stage in stages:
        manifests[stage.name] = run_stage(stage)
        done(stage, manifests[stage.name])
    return manifests


@contextmanager
def _locked(stage: Stage) -> Iterator[None]:
    """Hold the stage's lock.  Another run that holds it is waited for until it lets go or the stage is sealed,
    whichever is first: what is sealed changes no more.  The system frees the lock of a process that dies."""
    lock = FileLock(stage.folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.print(f"{stage.name}: another run is working on it; waiting for {lock.lock_file}")
        while not lock.is_locked and not (stage.folder / MANIFEST).is_file():
            with suppress(Timeout):
                lock.acquire(timeout=_LOOK_SECONDS)
    try:
        yield
    finally:
        lock.release()
