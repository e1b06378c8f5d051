"""What a model is prepared for: the stage of quantization-aware training and its settings, which travel with weights.

A model's ``state_dict`` holds a record of them (:func:`write_record`), since they decide on the integers that its
weights stand for: bits by role, the tables' pieces, what its norms compute.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from irnn.errors import IrnnError
from irnn.quant.config import ROLE_BITS, QuantConfig
from irnn.quant.knots import METHODS

# iRNN trains in this order; each stage includes the former.
STAGES = ("float", "pwl", "weights", "activations", "all")
STAGE_OF_ROLE = {
    "weight": "weights",
    "embedding": "weights",
    "logits_weight": "weights",
    "activation": "activations",
    "hidden": "activations",
    "preactivation": "activations",
    "norm": "activations",
    "gate": "activations",
    "cell": "all",
}
# The tables of stage "pwl" are fitted on the grids of these roles.
TABLE_ROLES = ("preactivation", "norm")
# In format 1 uniform weights of few bits had the scale of their largest.
RECORD_FORMAT = 2


@dataclass(frozen=True)
class PwlConfig:
    """``pieces`` of each activation's table and how it is fitted ("greedy" as in iRNN, or "optimal")."""

    pieces: int = 16
    fit: str = "greedy"

    def __post_init__(self) -> None:
        if not isinstance(self.pieces, int) or self.pieces < 1:
            raise IrnnError(f"pieces={self.pieces!r}: must be a whole number, at least 1")
        if self.fit not in METHODS:
            raise IrnnError(f"fit={self.fit!r}: allowed are {', '.join(METHODS)}")


@dataclass(frozen=True)
class Settings:
    """A stage with its settings."""

    stage: str = "float"
    quant: QuantConfig = field(default_factory=QuantConfig)
    pwl: PwlConfig = field(default_factory=PwlConfig)

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise IrnnError(f"unknown stage {self.stage!r}; allowed are {', '.join(STAGES)}")

    def reaches(self, stage: str) -> bool:
        """Whether the stage, or a later one, is what the model is prepared for."""
        return STAGES.index(self.stage) >= STAGES.index(stage)

    def on(self, role: str) -> bool:
        """Whether tensors of the role are quantized."""
        return self.reaches(STAGE_OF_ROLE[role])

    def trained_for(self) -> dict[str, object]:
        """What weights of this stage have been trained for, by the names of the settings; of "float" nothing."""
        if not self.reaches("pwl"):
            return {}
        roles = [role for role in ROLE_BITS if self.on(role) or role in TABLE_ROLES]
        settings: dict[str, object] = {role: self.quant.choice(role) for role in roles}
        if self.reaches("weights"):
            settings["of"] = self.quant.of_choices
        return settings | asdict(self.pwl)

    def difference(self, other: Settings) -> str | None:
        """The first setting that weights of this stage are trained for and ``other`` has otherwise, in words."""
        theirs: dict[str, object] = {role: other.quant.choice(role) for role in ROLE_BITS}
        theirs["of"] = other.quant.of_choices
        theirs |= asdict(other.pwl)
        for key, value in self.trained_for().items():
            if theirs[key] != value:
                return f"{key}={value}, not {theirs[key]}"
        return None


@dataclass(frozen=True)
class Record:
    """What a ``state_dict`` says of itself: the settings, and the kind of each norm ("layer" or "mad") by its name."""

    settings: Settings
    norms: Mapping[str, str]


def write_record(record: Record) -> Tensor:
    """As a tensor of JSON's bytes, uint8 ``[length]``: a ``state_dict`` may be saved by what takes tensors alone."""
    text = json.dumps({"format": RECORD_FORMAT, **asdict(record.settings), "norms": dict(record.norms)})
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def read_record(content: Tensor) -> Record:
    """The reverse; what cannot be read is an :class:`IrnnError`."""
    try:
        fields = json.loads(bytes(content.cpu().tolist()).decode())
        written = fields["format"]
        if written not in range(1, RECORD_FORMAT + 1):
            raise IrnnError(
                f"the state_dict's record has the format {written}, this version of irnn reads 1 to {RECORD_FORMAT}; "
                "load it with the version that wrote it"
            )
        settings = Settings(fields["stage"], QuantConfig(**fields["quant"]), PwlConfig(**fields["pwl"]))
        few = settings.quant.few_bits()
        if written == 1 and few is not None and settings.reaches("weights"):
            raise IrnnError(
                f"the weights of the state_dict were trained for {few} at the scale of the largest weight, where this "
                "version has the scale of the least squared error for each row; train them again from the stage "
                "before, or convert them with the version that wrote them"
            )
        return Record(settings, dict(fields["norms"]))
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise IrnnError(
            f"the state_dict's record of its settings is damaged ({error!r}); save the model again"
        ) from None
