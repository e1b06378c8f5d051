"""Checkpoints inside a stage (to resume it) and the weights that a finished stage hands on."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from irnn.errors import IrnnError
from pipelines.core.manifest import write_atomically

RESUME_FILE = "resume.ckpt"
WEIGHTS_FILE = "model.safetensors"


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
    """Write the model's `state_dict` as safetensors into a stage's folder; the name of the file."""
    # Tied weights share memory, which safetensors refuses: every entry gets its own copy.
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(folder / WEIGHTS_FILE, save(state))
    return WEIGHTS_FILE


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Read what `save_weights` wrote."""
    try:
        return load_file(folder / WEIGHTS_FILE)
    except (SafetensorError, OSError) as error:
        raise IrnnError(f"{folder / WEIGHTS_FILE} cannot be read ({error}); delete {folder} to run it again") from None
