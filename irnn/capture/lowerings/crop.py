"""A stretch of time, ``x[:, a:-b]``: a convolution without a border, all of whose taps but one are 0."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from irnn.capture.borrowed import Borrowed
from irnn.capture.edges import Axis, Edge
from irnn.capture.wiring import Wiring
from irnn.nn.linear import Weight
from irnn.program.windows import Window


class Crop(Weight):
    """Filters ``[size, (before + behind + 1) * size]`` that take each step as it is and leave out the ends: exact."""

    batch_statistics = False

    def __init__(self, source: Borrowed, size: int, before: int, behind: int) -> None:
        super().__init__("weight")
        self._source, self.channels, self._before = source, size, before
        self.window = Window((before + behind + 1, 1))

    @property
    def weight(self) -> Tensor:
        """The identity among zeros."""
        like = next(self._source.network.parameters())
        taps = torch.zeros(self.channels, self.window.kernel[0], self.channels, dtype=like.dtype, device=like.device)
        taps[:, self._before] = torch.eye(self.channels, dtype=like.dtype, device=like.device)
        return taps.flatten(1)

    @property
    def identity(self) -> int:
        return id(self)


def crop(w: Wiring, x: Edge, axis: Axis, before: int, behind: int) -> Edge:
    """``x`` without its first and last steps, at the form that it has."""
    x = w.quantized(x)
    name = f"{w.step.name}.{x.producer}.crop_{before}_{behind}".replace("~", "_")
    part = w.part(name, lambda: Crop(Borrowed(w.network), x.size, before, behind))
    t = w.a.flatten(w.a.convolution(part, x.t))
    (left,) = w.plan.derived(tuple(size - before - behind for size in axis.sizes))
    dims = tuple(tuple(left if a is axis else a for a in d) for d in x.dims)
    made = replace(
        x, t=t, form="sum", site=None, dims=dims, producer=w.step.name, time=left, lengths=None, late={}, pieces=()
    )  # fmt: skip
    return w.at(made, x.form, "activation" if x.form == "int8" else "preactivation")
