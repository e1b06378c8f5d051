"""A factor and a summand for each feature: trained gains, batch norms that no convolution takes in, numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from irnn.capture.borrowed import Borrowed
from irnn.capture.edges import Edge
from irnn.capture.forms import Held
from irnn.capture.wiring import UnsupportedError, Wiring
from irnn.nn.batch_norm import folded, need_statistics


class BorrowedAffine(nn.Module):
    """``gain x + shift`` with a number a feature: paths of the network's parameters, or numbers."""

    def __init__(self, source: Borrowed, size: int, gain: str | float, shift: str | float) -> None:
        super().__init__()
        self.where = "an affine map"  # what messages call it
        self._source, self.size, self._gain, self._shift = source, size, gain, shift

    def _vector(self, given: str | float) -> Tensor:
        if isinstance(given, str):
            return self._source.find(given).reshape(-1).expand(self.size)
        return next(self._source.network.parameters()).new_full((self.size,), given)

    @property
    def gain(self) -> Tensor:
        """``[size]``."""
        return self._vector(self._gain)

    @property
    def shift(self) -> Tensor:
        """``[size]``."""
        return self._vector(self._shift)


class BorrowedBatchNorm(nn.Module):
    """The same of a batch norm's running statistics; its channels are the inner axis of the bands, if there are any."""

    def __init__(self, source: Borrowed, size: int, path: str) -> None:
        super().__init__()
        norm: Any = source.network.get_submodule(path)
        need_statistics(norm)
        self.where = "a batch norm"  # what messages call it
        self._source, self.size, self._path = source, size, path

    def _folded(self, part: int) -> Tensor:
        norm: Any = self._source.network.get_submodule(self._path)
        vector = folded(norm)[part]
        return vector.repeat(self.size // len(vector))

    @property
    def gain(self) -> Tensor:
        """``[size]``."""
        return self._folded(0)

    @property
    def shift(self) -> Tensor:
        """``[size]``."""
        return self._folded(1)


def folded_affine(w: Wiring, x: Edge, path: str, bands: bool) -> Edge:
    """A batch norm by itself; its channels are the second dimension."""
    channels = x.dims[1]
    if tuple(channels) != x.inner[len(x.inner) - len(channels) :] or (not bands and set(channels) != set(x.inner)):
        raise UnsupportedError("normalizes channels that lie outside other features", "a norm behind a convolution")
    part = w.part(w.module_name(path), lambda: BorrowedBatchNorm(Borrowed(w.network), x.size, path))
    return affine_edge(w, x, part)


def affine(w: Wiring, x: Edge, gain: Any, shift: Any) -> Edge:
    """``gain * x + shift`` with parameters (by :class:`Held`) or numbers."""
    paths = []
    for given in (gain, shift):
        if isinstance(given, Held):
            count = Borrowed(w.network).find(given.path).numel()
            if count not in (1, x.size) or len(x.inner) != 1 or set(x.dims[-1]) != set(x.inner):
                raise UnsupportedError(
                    f"takes {given.path} of {count} numbers for {x.size} features",
                    "one number a feature, in the last axis",
                )
        paths.append(given.path if isinstance(given, Held) else float(given))
    part = w.part(f"{w.step.name}.affine", lambda: BorrowedAffine(Borrowed(w.network), x.size, *paths))
    return affine_edge(w, x, part)


def affine_edge(w: Wiring, x: Edge, part: BorrowedAffine | BorrowedBatchNorm) -> Edge:
    """The map of ``x``, with its axes: accumulators."""
    x = w.quantized(x)
    return Edge(w.a.affine(part, x.t), "sum", x.dims, x.inner, w.step.name, x.time)


class BorrowedConstant(nn.Module):
    """Row ``k`` of a parameter of ``rows`` rows, whatever it is applied to."""

    def __init__(self, source: Borrowed, path: str, rows: int, k: int) -> None:
        super().__init__()
        self.where = path  # what messages call it
        self._source, self._path, self._rows, self._k = source, path, rows, k

    @property
    def gain(self) -> Tensor:
        """Zeros ``[size]``."""
        return torch.zeros_like(self.shift)

    @property
    def shift(self) -> Tensor:
        """``[size]``."""
        return self._source.find(self._path).reshape(self._rows, -1)[self._k]


def constant(w: Wiring, held: Held, rows: int, k: int, size: int, like: Edge, name: str) -> Edge:
    """A parameter's row ``[size]`` as a value without time: zero times the first step of ``like``, and the row."""
    count = Borrowed(w.network).find(held.path).numel()
    if count != rows * size:
        raise UnsupportedError(
            f"starts from {held.path} of {count} numbers for {rows} states of {size}", "one for each"
        )
    first = w.a.step(w.narrow(like).t, 0)
    wide = first if like.size >= size else w.a.concat([first] * -(-size // like.size))
    x = wide if like.size == size else w.a.slice(wide, 0, size)
    part = w.part(name, lambda: BorrowedConstant(Borrowed(w.network), held.path, rows, k))
    axis = w.features(size)
    return Edge(w.a.affine(part, x), "sum", ((w.plan.batch,), (axis,)), (axis,), name)
