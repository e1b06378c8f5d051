"""The real functions of one number that tables are fitted to, in NumPy, and their exact forms in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


# Softmax subtracts the maximum first, so its table "exp" takes the distance below the maximum: x >= 0, exp(-x) in
# (0, 1].  sigmoid by tanh: no overflow at either end.  GELU: Hendrycks and Gimpel 2016, both of its forms.
FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sigmoid": lambda x: 0.5 + 0.5 * np.tanh(0.5 * x),
    "tanh": np.tanh,
    "exp": lambda x: np.exp(-x),
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": _gelu_tanh,
    "silu": lambda x: x * (0.5 + 0.5 * np.tanh(0.5 * x)),
    "softplus": lambda x: np.logaddexp(0.0, x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))),
    "mish": lambda x: x * np.tanh(np.logaddexp(0.0, x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0.0, 1.0),
    "log_sigmoid": lambda x: -np.logaddexp(0.0, -x),
    "growth": np.exp,
    "abs": np.abs,
}
EXACT: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "softplus": F.softplus,
    "elu": F.elu,
    "mish": F.mish,
    "softsign": F.softsign,
    "hardswish": F.hardswish,
    "log_sigmoid": F.logsigmoid,
    "growth": torch.exp,
    "abs": torch.abs,
}
