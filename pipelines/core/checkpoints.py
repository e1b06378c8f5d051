"""Checkpoints inside a stage (to resume it) and the weights that a finished stage hands on."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from irnn.errors import IrnnError
from irnn.models.loading import tied_names
from pipelines.core.manifest import WEIGHTS_FILE, write_atomically

RESUME_FILE = "resume.ckpt"


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's checkpoints, written in one step and read without running code from the file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(Path(path), buffer.getvalue())

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        try:
            # torch.load does not compare the checksums that torch.save has written.
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile
            return torch.load(path, map_location=map_location, weights_only=True)
        except (zipfile.BadZipFile, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError, OSError):
            raise IrnnError(
                f"{path} is not a readable checkpoint (truncated, edited or from another version); "
                "delete it to start this stage again"
            ) from None

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def save_weights(model: nn.Module, folder: Path) -> str:
    """Write the model's `state_dict` as safetensors into a stage's folder; the name of the file.

    A tied weight is stored once, under its first name; the file's metadata say, as safetensors' own `save_model` does,
    which name stands for which.
    """
    stored_as = {name: first for first, *others in tied_names(model) for name in others}
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items() if name not in stored_as
    }
    write_atomically(folder / WEIGHTS_FILE, save(state, stored_as))
    return WEIGHTS_FILE


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Read what `save_weights` wrote, every entry of the `state_dict`; files of before hold tied weights twice."""
    path = folder / WEIGHTS_FILE
    if not path.exists():
        raise IrnnError(
            f"{path} was removed, and what is to run starts from it; put it back, or delete {folder} to run it again"
        )
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            return weights | {name: weights[first] for name, first in (file.metadata() or {}).items()}
    except (SafetensorError, OSError, KeyError) as error:
        raise IrnnError(f"{path} cannot be read ({error}); delete {folder} to run it again") from None
