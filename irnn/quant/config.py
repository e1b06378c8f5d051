"""Roles of tensors, the bits that each may have, and how ranges are observed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from irnn.errors import IrnnError
from irnn.quant.codes import CODES, WeightCode, weight_code

# Bits that a role may have.  Operands of a matrix product have at most 8: int16 x int8 would overflow an int32
# accumulator above 516 terms.  Gates are 8-bit by contract: their scales are fixed.
ROLE_BITS = {
    "weight": (2, 8),
    "embedding": (2, 8),
    "logits_weight": (2, 8),
    "activation": (2, 8),
    "hidden": (2, 8),
    "preactivation": (8, 16),
    "norm": (8, 16),
    "gate": (8, 8),
    "cell": (8, 16),
}
SYMMETRIC_ROLES = ("weight", "embedding", "logits_weight", "preactivation", "norm", "cell")
WEIGHT_ROLES = ("weight", "embedding", "logits_weight")
OBSERVERS = ("ema", "percentile")


@dataclass(frozen=True)
class QuantConfig:
    """Bits per role, and how ranges are observed; a weight's role may have a code by its name (``irnn.quant.codes``).

    observer: "ema" = moving average of each batch's minimum and maximum (``ema_decay`` is the weight of the past);
    "percentile" = the same average of the ``percentile``-th and its mirror image, which clips outliers; it lies between
    two of a batch's sorted values, in proportion, so that it clips in a batch of any size.
    """

    weight: int | str = 8
    embedding: int | str = 8
    logits_weight: int | str = 8
    activation: int = 8
    hidden: int = 8
    preactivation: int = 16
    norm: int = 16
    gate: int = 8
    cell: int = 16
    observer: str = "ema"
    ema_decay: float = 0.9
    percentile: float = 99.99

    def __post_init__(self) -> None:
        for role, (low, high) in ROLE_BITS.items():
            bits = getattr(self, role)
            if role in WEIGHT_ROLES and isinstance(bits, str):
                if bits not in CODES:
                    raise IrnnError(
                        f"{role}={bits!r}: unknown weight code; allowed are {', '.join(CODES)}, and for uniform "
                        f"integers their bits, {low} to {high}"
                    )
            elif not isinstance(bits, int) or not low <= bits <= high:
                raise IrnnError(f"{role}={bits!r}: bits of the role {role!r} must be a whole number {low} to {high}")
        if self.observer not in OBSERVERS:
            raise IrnnError(f"observer={self.observer!r}: allowed are {', '.join(OBSERVERS)}")
        if not 0 <= self.ema_decay < 1:
            raise IrnnError(f"ema_decay={self.ema_decay}: must lie in [0, 1)")
        if not 50 < self.percentile <= 100:
            raise IrnnError(f"percentile={self.percentile}: must lie in (50, 100]")

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> QuantConfig:
        """Build from a mapping and refuse unknown roles by name."""
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                raise IrnnError(f"{key}={values[key]!r}: unknown role or option; allowed are {', '.join(known)}")
        return cls(**values)

    def bits(self, role: str) -> int:
        """Bits of a role; an unknown role is an error that lists the known ones."""
        if role not in ROLE_BITS:
            raise IrnnError(f"unknown role {role!r}; allowed are {', '.join(ROLE_BITS)}")
        return self.weight_code(role).bits if role in WEIGHT_ROLES else getattr(self, role)

    def weight_code(self, role: str) -> WeightCode:
        """How a matrix of the role is quantized: a scale a row, but embedding and output layer have one.

        With one scale the logits can be compared, and a row of the table has the scale of all others.
        """
        return weight_code(getattr(self, role), per_row=role == "weight")


def integer_range(role: str, bits: int) -> tuple[int, int]:
    """Smallest and largest integer of a role: weights are +-(2**(b-1) - 1), so 2 bits = {-1, 0, 1}."""
    high = 2 ** (bits - 1) - 1
    return (-high if role in WEIGHT_ROLES else -high - 1), high
