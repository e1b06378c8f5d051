"""Real factors as the integer multipliers and shifts that ``fixed_point.rescale`` takes.  Set-up-time float code."""

from __future__ import annotations

import numpy as np

from irnn.arithmetic.fixed_point import MULTIPLIER_MAX, MULTIPLIER_MIN, SHIFT_MAX, SHIFT_MIN
from irnn.errors import IrnnError


def choose_multiplier(real: np.ndarray | float, where: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Real factors -> (multiplier, shift) with ``real ~ multiplier * 2**-shift``, both int32, elementwise.

    multiplier is in [2**30, 2**31), so the relative error is at most 2**-31; shift is in [1, 62], which allows factors
    from 2**-32 up to 2**30.  A factor outside is an :class:`IrnnError`: its scales do not belong together.  where: what
    is rescaled, for the message.
    """
    real = np.atleast_1d(np.asarray(real, dtype=np.float64))
    where = f"{where}: " if where else ""
    if not np.all(np.isfinite(real)) or np.any(real <= 0):
        bad = real[~np.isfinite(real) | (real <= 0)][0]
        raise IrnnError(f"{where}cannot rescale by {bad}: a factor must be positive and finite; check the scales")
    mantissa, exponent = np.frexp(real)  # real = mantissa * 2**exponent, mantissa in [0.5, 1)
    multiplier = np.floor(mantissa * 2.0**31 + 0.5).astype(np.int64)
    carried = multiplier > MULTIPLIER_MAX  # mantissa rounded up to 1
    multiplier = np.where(carried, MULTIPLIER_MIN, multiplier)
    shift = 31 - (exponent + carried)
    if shift.min() < SHIFT_MIN or shift.max() > SHIFT_MAX:
        worst = real.max() if shift.min() < SHIFT_MIN else real.min()
        raise IrnnError(
            f"{where}cannot rescale by {worst:.3g}: factors from 2**-32 to 2**30 fit; the scales on both sides are too "
            "far apart: calibrate with data that reach the usual size there"
        )
    return multiplier.astype(np.int32), shift.astype(np.int32)
