"""How far the quantized recurrent matrices are from orthogonal."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from irnn.names import readable_name
from irnn.nn.orthogonal.base import OrthogonalWeight


@torch.no_grad()
def orthogonality(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Of each orthogonal matrix by its name, as the model's configuration quantizes it, Q = W + E:

    ``singular_values`` of Q from the largest on, ``spectral_radius``, the largest magnitude of its eigenvalues (in the
    long run a linear recurrence grows by it every step), ``spectral`` and ``frobenius`` norm of ``Q Q^T - I``, the same
    of W before quantization (``latent_spectral``: how well it is orthogonal itself), and ``bound``, what the grid alone
    says of the spectral norm: ``2 e + e^2`` with ``e^2 = sum E_ij^2`` at its largest, half a step for each weight and a
    whole one for those that are clipped (``full_range``).  All float64.
    """
    return {
        readable_name(name): _measured(module)
        for name, module in model.named_modules()
        if isinstance(module, OrthogonalWeight)
    }


def _measured(module: OrthogonalWeight) -> dict[str, Any]:
    weight = module.weight.detach().double()
    terms = module.code.terms(weight)
    quantized = sum((integers * scale for integers, scale in terms[1:]), terms[0].integers * terms[0].scale)
    found = {
        "singular_values": [round(value, 5) for value in torch.linalg.svdvals(quantized).tolist()],
        "spectral_radius": float(torch.linalg.eigvals(quantized).abs().max()),
        "spectral": float(torch.linalg.matrix_norm(_gap(quantized), 2)),
        "frobenius": float(torch.linalg.matrix_norm(_gap(quantized))),
        "latent_spectral": float(torch.linalg.matrix_norm(_gap(weight), 2)),
    }
    if len(terms) == 1:
        scale = terms[0].scale.expand_as(weight)
        # Half a step, and a whole one where the weight lies beyond the largest integer.
        limit = torch.where((weight - quantized).abs() > scale / 2 * (1 + 1e-9), scale, scale / 2)
        e = math.sqrt(float(limit.square().sum()))
        found["bound"] = 2 * e + e * e
    return found


def _gap(matrix: torch.Tensor) -> torch.Tensor:
    """``A A^T - I``."""
    return matrix @ matrix.T - torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
