"""W = diag(sgn s) H / sqrt(size): a vector of signs times a Hadamard matrix (HadamRNN, Foucault et al., ICLR 2025).

W is orthogonal exactly, and so is its quantization by the code ``binary``, of which all magnitudes are 1 / sqrt(size).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from irnn.errors import IrnnError
from irnn.nn.orthogonal.base import OrthogonalWeight
from irnn.quant.codes.base import signs


class _StraightSigns(torch.autograd.Function):
    """-1 or 1, exactly; the gradient as it is."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        return signs(u)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class HadamardWeight(OrthogonalWeight):
    """``sign [size]``, of which the signs count; their gradient passes as it is.

    What was trained when powers of two had Paley's matrices has its signs under another name, ``u``, and does not load.
    """

    hadamard: Tensor

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.sign = nn.Parameter(torch.empty(size).uniform_(-1, 1))
        # Not in a state_dict: its size says it all.
        self.register_buffer("hadamard", hadamard_matrix(size) / math.sqrt(size), persistent=False)

    @property
    def weight(self) -> Tensor:
        """Rows of the Hadamard matrix with their signs."""
        return _StraightSigns.apply(self.sign)[:, None] * self.hadamard

    @property
    def identity(self) -> int:
        return id(self.sign)


def hadamard_matrix(size: int) -> Tensor:
    """float32 ``[size, size]`` of -1 and 1 with orthogonal rows: Sylvester's doubling of 1 or of one of Paley's.

    Powers of two are Sylvester's, as HadamRNN has them.  Paley's first construction gives q + 1 for primes q of the
    form 4 n + 3: 12, 20, 24, 44 and so on.  Sizes that neither gives, nor doubling, are an :class:`IrnnError`.
    """
    core, doublings = (size, 0) if size & (size - 1) else (1, size.bit_length() - 1)
    while not (core == 1 or _paley_prime(core - 1)):
        if core % 2:
            near = sorted((n for n in range(max(1, size // 2), 2 * size) if _reachable(n)), key=lambda n: abs(n - size))
            raise IrnnError(
                f"hidden_size={size}: no Hadamard matrix of that size can be made here (2**k, or 2**k (q + 1) of a "
                f"prime q = 4 n + 3); near it are {', '.join(map(str, sorted(near[:2])))}"
            )
        core, doublings = core // 2, doublings + 1
    matrix = _paley(core - 1) if core > 1 else torch.ones(1, 1)
    for _ in range(doublings):
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


def _reachable(size: int) -> bool:
    """Whether :func:`hadamard_matrix` has the size."""
    while not (size == 1 or _paley_prime(size - 1)):
        if size % 2:
            return False
        size //= 2
    return True


def _paley_prime(q: int) -> bool:
    return q % 4 == 3 and all(q % divisor for divisor in range(2, math.isqrt(q) + 1))


def _paley(q: int) -> Tensor:
    """``I + S``, S skew: a border of ones around the Jacobsthal matrix of quadratic residues modulo ``q``."""
    residues = {k * k % q for k in range(1, q)}
    chi = torch.tensor([0.0, *(1.0 if k in residues else -1.0 for k in range(1, q))])
    places = torch.arange(q)
    jacobsthal = chi[(places[:, None] - places) % q]
    skew = torch.zeros(q + 1, q + 1)
    skew[0, 1:], skew[1:, 0], skew[1:, 1:] = 1, -1, jacobsthal
    return skew + torch.eye(q + 1)
