"""Recurrent matrices that are orthogonal, by the name of what keeps them so: a new one is a file here and an entry."""

from __future__ import annotations

from irnn.errors import IrnnError
from irnn.nn.orthogonal.base import OrthogonalWeight
from irnn.nn.orthogonal.bjorck import BjorckWeight
from irnn.nn.orthogonal.hadamard import HadamardWeight
from irnn.nn.orthogonal.projected import ProjectedWeight, TangentWeight

ORTHOGONAL: dict[str, type[OrthogonalWeight]] = {
    "bjorck": BjorckWeight,
    "projunn_d": ProjectedWeight,
    "projunn_t": TangentWeight,
    "hadamard": HadamardWeight,
}


def orthogonal_weight(name: str, size: int) -> OrthogonalWeight:
    """A matrix ``[size, size]`` of that kind; an unknown one is an :class:`IrnnError` with the list."""
    if name not in ORTHOGONAL:
        raise IrnnError(f"orthogonal={name!r} is unknown; allowed are {', '.join(ORTHOGONAL)} and null")
    return ORTHOGONAL[name](size)
