"""Weight codes, by name: a new one is a file here and an entry below."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from irnn.errors import IrnnError
from irnn.quant.codes.base import Plane, WeightCode
from irnn.quant.codes.binary import Binary
from irnn.quant.codes.denseshift import DenseShift
from irnn.quant.codes.full_range import FullRange
from irnn.quant.codes.midrise import Midrise
from irnn.quant.codes.multibit import Alternating, Greedy, Refined
from irnn.quant.codes.ternary import LeastSquaresTernary, MeanTernary
from irnn.quant.codes.uniform import Uniform

__all__ = ["CODES", "UNIFORM", "Plane", "WeightCode", "choices", "weight_code"]

UNIFORM = "uniform"
# Made with `per_row`, and with their bits where they have a choice of them.
CODES: dict[str, Any] = {
    UNIFORM: Uniform,
    "ternary": MeanTernary,
    "ternary_least_squares": LeastSquaresTernary,
    "binary": Binary,
    "midrise": Midrise,
    "denseshift": DenseShift,
    "alternating": Alternating,
    "refined": Refined,
    "greedy": Greedy,
    "full_range": FullRange,
}


def choices() -> Iterator[str]:
    """Every code in the form in which a configuration names it: ``ternary``, or with its bits, ``denseshift:3``."""
    for name, code in CODES.items():
        yield from (f"{name}:{bits}" for bits in code.BITS) if code.BITS else (name,)


def weight_code(choice: int | str, *, per_row: bool) -> WeightCode:
    """The code that is called ``choice``: ``NAME``, ``NAME:BITS``, or a number of bits, which means uniform integers.

    per_row: a scale a row, which codes that would not do without have in any case.  An unknown code, or bits that it
    does not have, is an :class:`IrnnError` that lists what there is.
    """
    name, colon, width = choice.partition(":") if isinstance(choice, str) else (UNIFORM, ":", str(choice))
    if name not in CODES or not isinstance(choice, int | str):
        raise IrnnError(f"{choice!r} is no weight code; allowed are {_allowed()}")
    code = CODES[name]
    if not code.BITS and not colon:
        return code(per_row or code.rows_everywhere(None))
    if width not in map(str, code.BITS):
        has = f"has {', '.join(map(str, code.BITS))}" if code.BITS else "has none to choose"
        raise IrnnError(f"{width!r} is no number of bits of the weight code {name}, which {has}")
    return code(per_row or code.rows_everywhere(int(width)), int(width))


def _allowed() -> str:
    """What a configuration may say, codes with their bits as in ``denseshift:2-4``."""
    low, *_, high = CODES[UNIFORM].BITS
    named = (f"{name}:{c.BITS[0]}-{c.BITS[-1]}" if c.BITS else name for name, c in CODES.items() if name != UNIFORM)
    return f"a whole number {low} to {high} (bits of uniform integers) and {', '.join(named)}"
