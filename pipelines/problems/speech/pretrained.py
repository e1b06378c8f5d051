"""The encoder of a trained recognizer, with which the training of another one starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from irnn.data.audio.features import FeatureConfig
from irnn.errors import IrnnError
from irnn.recognition.recognizer import ModelRecognizer
from pipelines.core.manifest import WEIGHTS_FILE, read_manifest
from pipelines.problems.speech.recognizers import FLOAT_MODEL, load_recognizer


@dataclass(frozen=True)
class PretrainedEncoder:
    """tensors: the encoder's `state_dict`.  folder: the float stage they are from.  origin: sha256 of its weights, and
    how they were trained, as JSON values: equal wherever the folder lies."""

    tensors: dict[str, Tensor]
    folder: Path
    origin: dict[str, Any]

    @classmethod
    def load(cls, folder: Path, features: FeatureConfig) -> PretrainedEncoder:
        """Read a recognizer's float stage; one that is not finished, or hears other features, is an `IrnnError`."""
        manifest = read_manifest(folder)
        if manifest is None or not (folder / FLOAT_MODEL).is_file():
            raise IrnnError(
                f"{folder} holds no trained recognizer; problem.pretrained_encoder takes the folder of a finished "
                "float stage (outputs/stages/float-HASH)"
            )
        saved = load_recognizer(folder)
        assert isinstance(saved.recognizer, ModelRecognizer)  # as FLOAT_MODEL says
        if saved.features != features:
            raise IrnnError(
                f"the encoder in {folder} was trained on {saved.features}, this run has {features}; use the same"
            )
        trained = {key: manifest[key] for key in ("stage", "digest", "seed", "epochs", "commit")}
        weights = saved.recognizer.model.encoder.state_dict()
        return cls(weights, folder, {"sha256": manifest["files"][WEIGHTS_FILE], **trained})

    def into(self, encoder: nn.Module) -> None:
        """Give `encoder` these weights; an encoder of other tensors is an `IrnnError` that names one."""
        wanted = {name: tuple(x.shape) for name, x in encoder.state_dict().items()}
        found = {name: tuple(x.shape) for name, x in self.tensors.items()}
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                raise IrnnError(
                    f"the encoder in {self.folder} does not fit this model: {name} is {found.get(name, 'missing')} "
                    f"there, {wanted.get(name, 'missing')} here; give both the same model.conv_*, model.encoder_*"
                )
        encoder.load_state_dict(self.tensors)
