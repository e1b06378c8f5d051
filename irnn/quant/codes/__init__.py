"""Weight codes, by name: a new one is a file here and an entry below."""

from __future__ import annotations

from irnn.errors import IrnnError
from irnn.quant.codes.base import Plane, WeightCode
from irnn.quant.codes.ternary import LeastSquaresTernary, MeanTernary
from irnn.quant.codes.uniform import Uniform

__all__ = ["CODES", "UNIFORM_BITS", "Plane", "WeightCode", "weight_code"]

CODES: dict[str, type[WeightCode]] = {"ternary": MeanTernary, "ternary_least_squares": LeastSquaresTernary}
UNIFORM_BITS = (2, 8)


def weight_code(choice: int | str, *, per_row: bool) -> WeightCode:
    """The code of a name, or of a number of bits: uniform integers.

    An unknown one is an :class:`IrnnError` that lists what there is.
    """
    low, high = UNIFORM_BITS
    if isinstance(choice, int) and not isinstance(choice, bool) and low <= choice <= high:
        return Uniform(per_row, choice)
    if not isinstance(choice, str) or choice not in CODES:
        raise IrnnError(
            f"{choice!r} is no weight code: allowed are a whole number {low} to {high} (bits of uniform integers) and "
            f"{', '.join(CODES)}"
        )
    return CODES[choice](per_row)
