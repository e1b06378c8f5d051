"""Roles of tensors, the bits that each may have, and how ranges are observed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any

from irnn.errors import IrnnError
from irnn.quant.codes import CODES, UNIFORM, WeightCode, weight_code
from irnn.quant.codes.uniform import LEAST_SQUARES_BITS

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
RUN_TIME_INPUT_BITS = 8  # of h, where codes of it are found at run time


@dataclass(frozen=True)
class QuantConfig:
    """Bits per role, and how ranges are observed; a weight's role may have a code by its name (``irnn.quant.codes``).

    code: what a number of bits means for weights, ``code="denseshift", weight=3`` being ``weight="denseshift:3"``.
    hidden: with a code that can be found at run time (``hidden="alternating:2"``; a number of bits where ``code`` is
    such) h has 8 bits, and what layers and the output layer multiply has that many codes.
    of: other bits or codes for single matrices, by their names (``lstm.0.w_h``), by the part that they belong to
    (``lstm.0``) or by a pattern (``*.w_h``); of several that match the longest counts.  Keys may be nested.

    observer: "ema" = moving average of each batch's minimum and maximum (``ema_decay`` is the weight of the past);
    "percentile" = the same average of the ``percentile``-th and its mirror image, which clips outliers; it lies between
    two of a batch's sorted values, in proportion, so that it clips in a batch of any size.
    """

    code: str = UNIFORM
    weight: int | str = 8
    embedding: int | str = 8
    logits_weight: int | str = 8
    activation: int = 8
    hidden: int | str = 8
    preactivation: int = 16
    norm: int = 16
    gate: int = 8
    cell: int = 16
    observer: str = "ema"
    ema_decay: float = 0.9
    percentile: float = 99.99
    of: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.code not in (wide := [name for name, code in CODES.items() if code.BITS]):
            raise IrnnError(
                f"code={self.code!r}: bits mean a code that has a choice of them: {', '.join(wide)}; any other "
                f"code is named in the role itself"
            )
        for role, (low, high) in ROLE_BITS.items():
            bits = self.choice(role)
            if role in WEIGHT_ROLES:
                self._found_code(role)
            elif role == "hidden" and self._hidden_code() is not None:
                continue
            elif not isinstance(bits, int) or not low <= bits <= high:
                raise IrnnError(f"{role}={bits!r}: bits of the role {role!r} must be a whole number {low} to {high}")
        object.__setattr__(self, "of", dict(_flat(self.of)))
        for pattern in self.of:
            self._found_code("weight", pattern)
        if self.observer not in OBSERVERS:
            raise IrnnError(f"observer={self.observer!r}: allowed are {', '.join(OBSERVERS)}")
        if not 0 <= self.ema_decay < 1:
            raise IrnnError(f"ema_decay={self.ema_decay}: must lie in [0, 1)")
        if not 50 < self.percentile <= 100:
            raise IrnnError(f"percentile={self.percentile}: must lie in (50, 100]")

    def _found_code(self, role: str, pattern: str | None = None) -> WeightCode:
        """The code of a role or of a pattern of ``of``; one that there is not is an error that names the key."""
        given = getattr(self, role) if pattern is None else self.of[pattern]
        try:
            return weight_code(self._named(role, given), per_row=role == "weight")
        except IrnnError as error:
            key = role if pattern is None else f"of.{pattern}"
            code = "" if self.code == UNIFORM else f" of code={self.code}"
            raise IrnnError(f"{key}={given!r}{code}: {error}") from None

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
        if role == "hidden" and self.run_time_codes is not None:
            return RUN_TIME_INPUT_BITS
        return self.weight_code(role).bits if role in WEIGHT_ROLES else int(self.choice(role))

    @property
    def run_time_codes(self) -> int | None:
        """How many binary codes what a layer reads is written in at run time; None: it is read as it is."""
        code = self._hidden_code()
        return None if code is None else code.planes

    def _hidden_code(self) -> WeightCode | None:
        """The code of ``hidden``, where that is one that is found at run time; a wrong one is an :class:`IrnnError`."""
        name, _, _ = str(self.choice("hidden")).partition(":")
        if name not in CODES or name != CODES[name].RUN_TIME:
            return None
        return self._found_code("hidden")

    def weight_code(self, role: str, name: str | None = None) -> WeightCode:
        """How a matrix of the role (of this name) is quantized: a scale a row, but embedding and output layer have one.

        With one scale the logits can be compared, and a row of the table has the scale of all others.  Codes that are
        too coarse for that have a scale a row there, too.
        """
        return weight_code(self.choice(role, name), per_row=role == "weight")

    def choice(self, role: str, name: str | None = None) -> int | str:
        """The setting of a role, or of its matrix ``name``: bits of uniform integers, or a code with its bits."""
        pattern = None if name is None else self.pattern_of(name)
        return self._named(role, getattr(self, role) if pattern is None else self.of[pattern])

    def few_bits(self) -> str | None:
        """The first setting that gives weights uniform integers of so few bits that their scale is one of least
        squares, in words."""
        settings = {role: self.choice(role) for role in WEIGHT_ROLES}
        settings |= {f"of.{pattern}": choice for pattern, choice in self.of_choices.items()}
        few = (f"{key}={choice}" for key, choice in settings.items() if choice in LEAST_SQUARES_BITS)
        return next(few, None)

    @property
    def of_choices(self) -> dict[str, int | str]:
        """``of`` as :meth:`choice` says it."""
        return {pattern: self._named("weight", given) for pattern, given in self.of.items()}

    def pattern_of(self, name: str) -> str | None:
        """The key of ``of`` that decides on the matrix ``name``."""
        return max((pattern for pattern in self.of if _fits(name, pattern)), key=len, default=None)

    def check_names(self, names: Iterable[str]) -> None:
        """A pattern of ``of`` that fits none of a network's matrices is an :class:`IrnnError` that lists these."""
        names = list(names)
        for pattern in self.of:
            if not any(_fits(name, pattern) for name in names):
                raise IrnnError(
                    f"of.{pattern}={self.of[pattern]}: no matrix of the network is called so; there are "
                    f"{', '.join(names)}"
                )

    def _named(self, role: str, given: int | str) -> int | str:
        """A role's setting with the name of its code, whatever ``code`` is."""
        code = {"hidden": CODES[self.code].RUN_TIME}.get(role, self.code if role in WEIGHT_ROLES else None)
        if isinstance(given, int) and code not in (UNIFORM, None):
            return f"{code}:{given}"
        return self._uniform(given)

    @staticmethod
    def _uniform(given: int | str) -> int | str:
        """``uniform:8`` as what it is, 8."""
        name, _, width = given.partition(":") if isinstance(given, str) else ("", "", "")
        return int(width) if name == UNIFORM and width.isdecimal() else given


def _flat(of: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, int | str]]:
    """Nested keys joined by dots: ``{"lstm": {0: {"w_h": 4}}}`` -> ``("lstm.0.w_h", 4)``."""
    if not isinstance(of, Mapping):
        raise IrnnError(f"of={of!r}: must map names of matrices to bits or codes, as in of.lstm.0.w_h=4")
    for key, value in of.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _fits(name: str, pattern: str) -> bool:
    """Whether the pattern names the matrix, or a part that it belongs to."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def integer_range(role: str, bits: int) -> tuple[int, int]:
    """Smallest and largest integer of a role: weights are +-(2**(b-1) - 1), so 2 bits = {-1, 0, 1}."""
    high = 2 ** (bits - 1) - 1
    return (-high if role in WEIGHT_ROLES else -high - 1), high
