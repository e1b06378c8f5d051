"""What both recorders say of shapes and of time: no number is computed here, so that scales and zero points stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from irnn.errors import IrnnError
from irnn.program.axes import Axis, divided
from irnn.program.windows import Window
from irnn.wiring.parts import ConvolutionPart, WeightPart
from irnn.wiring.record import Recorder, Symbol, shorten


class SequenceRecorder(Recorder):
    """The words on shapes and time, which are the same in integers and in float."""

    def split(self, x: Symbol, parts: int) -> tuple[Symbol, ...]:
        size = x.size // parts
        return tuple(self._sliced(x, k * size, (k + 1) * size, f"{x.name}.{k}") for k in range(parts))

    def slice(self, x: Symbol, start: int, stop: int) -> Symbol:
        if not 0 <= start < stop <= x.size:
            raise IrnnError(f"{x.name} has {x.size} elements, of which {start} to {stop} are no part")
        return self._sliced(x, start, stop, f"{x.name}.{start}_{stop}")

    def _sliced(self, x: Symbol, start: int, stop: int, name: str) -> Symbol:
        scale = shorten(np.broadcast_to(x.scale, (x.size,))[start:stop])
        attributes = {"start": start, "stop": stop}
        return self._emit("slice", (x,), name, x.dtype, (stop - start,), scale, x.zero_point, attributes)

    def output(self, name: str, x: Symbol) -> None:
        """Declare ``x`` an output; where its scale was multiplied the output says so."""
        if len(x.scale) == 1 and self.values[x.name].scale not in (None, float(x.scale[0])):
            x = self._sliced(x, 0, x.size, f"{x.name}.scaled")
        super().output(name, x)

    def concat(self, parts: list[Symbol]) -> Symbol:
        first = parts[0]
        if any(p.zero_point != first.zero_point or not np.array_equal(p.scale, first.scale) for p in parts):
            raise IrnnError(f"cannot concatenate {[p.name for p in parts]}: their scales differ; let them share a site")
        size = sum(p.size for p in parts)
        name = f"{self._scope}concat"
        return self._emit("concat", tuple(parts), name, first.dtype, (size,), first.scale, first.zero_point)

    def complement(self, x: Symbol) -> Symbol:
        return self._emit("complement", (x,), f"{x.name}.complement", x.dtype, x.shape, x.scale, x.zero_point)

    def minimum(self, a: Symbol, b: Symbol) -> Symbol:
        if (a.dtype, a.zero_point) != (b.dtype, b.zero_point) or not np.array_equal(a.scale, b.scale):
            raise IrnnError(f"cannot compare {a.name} and {b.name}: their formats differ; let them share a site")
        return self._emit("minimum", (a, b), f"{a.name}.minimum", a.dtype, a.shape, a.scale, a.zero_point)

    def last(self, x: Symbol) -> Symbol:
        return self._emit("last", self._valid(x), f"{x.name}.last", x.dtype, x.shape, x.scale, x.zero_point, axes=())

    def mask(self, x: Symbol) -> Symbol:
        if self._lengths is None:
            raise IrnnError(f"there is nothing to mask {x.name} by: say where sequences end (ragged) first")
        return self._emit(
            "mask", (x, self._lengths), f"{x.name}.masked", x.dtype, x.shape, x.scale, x.zero_point,
            {"fill": x.zero_point},
        )  # fmt: skip

    def shorten(self, lengths: Symbol, factor: int, offset: int | None = None) -> Symbol:
        counts = self.values[lengths.name].counts
        if counts is None:
            raise IrnnError(f"{lengths.name} holds no lengths: only such are shortened")
        attributes = {"factor": factor} | ({} if offset in (None, factor - 1) else {"offset": offset})
        name = f"{lengths.name}/{factor}"
        symbol = self._emit("shorten", (lengths,), name, "int32", (), np.ones(1), 0, attributes, axes=())
        axis = Axis.parse(counts).after(factor - 1 if offset is None else offset, factor)
        self.values[symbol.name] = replace(self.values[symbol.name], counts=axis.name)
        return symbol

    def subsample(self, x: Symbol, factor: int) -> Symbol:
        axes = (divided(x.axes[0], factor), *x.axes[1:])
        return self._emit(
            "subsample", (x,), f"{x.name}/{factor}", x.dtype, x.shape, x.scale, x.zero_point, {"factor": factor},
            axes=axes,
        )  # fmt: skip

    def convolution(self, module: ConvolutionPart, x: Symbol) -> Symbol:
        """im2col, then a matrix product with each band's neighbourhood."""
        window, channels = module.window, module.channels
        columns = window.kernel[0] * window.kernel[1] * channels
        attributes = {"channels": channels, **window.attributes(), "fill": x.zero_point}
        patches = self._emit(
            "patches", (x,), f"{self._name(module)}.patches", x.dtype, (window.bands(x.size, channels), columns),
            x.scale, x.zero_point, attributes, axes=strided(x, window),
        )  # fmt: skip
        return self.linear(module, patches)

    def max_pool(self, window: Window, channels: int, x: Symbol) -> Symbol:
        shape = (self._pooled(window, channels, x),)
        attributes = {"channels": channels, **window.attributes()}
        return self._emit(
            "max_pool", (x,), f"{x.name}.pooled", x.dtype, shape, x.scale, x.zero_point, attributes,
            axes=strided(x, window),
        )  # fmt: skip

    def _pooled(self, window: Window, channels: int, x: Symbol) -> int:
        """Elements that a pooling leaves."""
        if len(x.scale) > 1:
            raise IrnnError(f"{x.name} has several scales: only what has one is pooled over bands")
        return window.bands(x.size, channels) * channels

    def time_max(self, x: Symbol) -> Symbol:
        return self._emit("time_max", self._valid(x), f"{x.name}.max", x.dtype, x.shape, x.scale, x.zero_point, axes=())

    def step(self, x: Symbol, index: int) -> Symbol:
        name = f"{x.name}.step{index}"
        return self._emit("step", (x,), name, x.dtype, x.shape, x.scale, x.zero_point, {"index": index}, axes=())

    def repeat(self, x: Symbol, like: Symbol) -> Symbol:
        name = f"{x.name}.repeated"
        return self._emit("repeat", (x, like), name, x.dtype, x.shape, x.scale, x.zero_point, axes=like.axes[:1])

    def _valid(self, x: Symbol) -> tuple[Symbol, ...]:
        """The sequence, and where its sequences end."""
        return (x,) if self._lengths is None else (x, self._lengths)

    def flatten(self, x: Symbol) -> Symbol:
        shape = (*x.shape[:-2], x.shape[-2] * x.shape[-1])
        return self._emit("flatten", (x,), f"{x.name}.flat", x.dtype, shape, x.scale, x.zero_point)

    def _need_one_time(self, what: str, terms: tuple[Symbol, ...]) -> None:
        """A sequence and a value without time are no terms of one sum."""
        for term in terms[1:]:
            if term.axes != terms[0].axes:
                raise IrnnError(
                    f"{what} reads {[t.name for t in terms]}, which lie along {terms[0].axes} and {term.axes}: "
                    "repeat a value along time first"
                )

    def linear(self, module: WeightPart, x: Symbol) -> Symbol:
        raise NotImplementedError


def strided(x: Symbol, window: Window) -> tuple[str, ...]:
    """The axes behind a window's steps."""
    return Axis.parse(x.axes[0]).after(window.offset(0), window.strides[0]).name, *x.axes[1:]
