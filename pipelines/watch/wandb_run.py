"""A pipeline as one run of Weights & Biases: curves of all stages, results as its summary, files as artefacts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from irnn.errors import IrnnError
from irnn.extras import extra
from pipelines.watch.history import Identity

PROJECT = "irnn"
# What of a complete run's folder is attached, and as which type of artefact.
_ATTACHED = {"program": "program", "artefact": "library", "report.html": "report"}


class WandbRun:
    """Its id is the run's digest: the same command goes on in the same run, on any machine.

    Offline, each attempt leaves a folder that holds the whole history, `<folder>/wandb/offline-run-<time>-<digest>`,
    and `wandb sync` of the last one uploads it.
    """

    def __init__(self, mode: str, run: Identity, folder: Path) -> None:
        with extra("wandb"):
            import wandb
        os.environ.setdefault("WANDB_SILENT", "true")
        self._wandb, self._name = wandb, run.name
        self._finished = False
        try:
            self._run = wandb.init(
                project=PROJECT,
                id=run.digest,
                name=run.name,
                group=run.sweep,
                dir=folder,
                mode=mode,  # type: ignore[arg-type]  # one of its literals, see LoggerConfig
                config=dict(run.composed),
                # Offline there is nobody to ask how far the run came: the whole history is written again.
                resume="allow" if mode == "online" else None,
                settings=wandb.Settings(console="off"),
            )
        except wandb.Error as error:
            reason = str(error).splitlines()[0]
            raise IrnnError(
                f"logger.wandb={mode} cannot begin ({reason}); log in with `wandb login`, or set logger.wandb=offline"
            ) from None
        # The steps that the server has; 0 for a new run.
        self._logged = self._run.step

    def point(self, epoch: int, values: Mapping[str, float]) -> None:
        """See `Sink`."""
        if epoch >= self._logged:
            self._run.log(dict(values), step=epoch)

    def finish(self, results: Mapping[str, Any], folder: Path | None) -> None:
        """The results become the summary; the files are referred to where they lie, not copied."""
        rest = {key: value for key, value in results.items() if key not in ("config", "stages")}
        self._run.summary.update(dict(_flat({**results["stages"], **rest})))
        for file, kind in _ATTACHED.items() if folder is not None else ():
            path = (folder / file).absolute()  # type: ignore[operator]  # the loop is empty otherwise
            if not path.exists():
                continue
            artefact = self._wandb.Artifact(f"{self._name}-{kind}", type=kind)
            add = artefact.add_dir if path.is_dir() else artefact.add_file
            add(str(path), policy="immutable")
            self._run.log_artifact(artefact)
        self._finished = True

    def close(self) -> None:
        """See `Sink`."""
        self._run.finish(exit_code=0 if self._finished else 1)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Figures and texts by "outer/inner" names; what is null is left out."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        elif value is not None:
            yield prefix + key, value
