"""Weights and activations of up to 16 bits: what their kernels have in common."""

from __future__ import annotations

import numpy as np

from deploy_tvm.codegen.emitter import cast
from deploy_tvm.codegen.kernels.base import LinearKernel
from deploy_tvm.codegen.rows import Row, combine

INT8 = np.iinfo(np.int8)


class WordKernel(LinearKernel):
    """Weights that fit a byte are stored as bytes and widened as they are read.

    Sums are int32 as far as ``check`` proves them.
    """

    form, operand_dtype, weights = "16|", "int16", (-32768, 32767)

    def as_read(self, weight: np.ndarray) -> np.ndarray:
        short = INT8.min <= int(weight.min()) and int(weight.max()) <= INT8.max
        return weight.astype(np.int8 if short else np.int16, copy=False)

    def operand_element(self, x: Row) -> Row:
        return combine("int16", lambda v: cast(v, "int16"), x)
