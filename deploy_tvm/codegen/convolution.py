"""Windows over time and bands, read from a sequence that has a border: a convolution's rows (im2col), pooled taps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, constant
from deploy_tvm.codegen.rows import Row, buffer_row, join
from irnn.program import Node
from irnn.program.windows import Pair, Window


@dataclass(frozen=True)
class Border:
    """What a window reads beyond its input, before and behind: ``steps`` and ``elements``, and what they hold."""

    steps: Pair
    elements: Pair
    fill: int | float

    @classmethod
    def of(cls, node: Node, dtype: str) -> Border:
        """Of a convolution its zeros, of a mean its zeros, of a maximum what is never larger than another value."""
        a, (steps, (before, behind)) = node.attributes, Window.of(node.attributes).padding
        limits = np.finfo(dtype) if dtype.startswith("float") else np.iinfo(dtype)
        fill = limits.min.item() if isinstance(limits, np.finfo) else limits.min
        if node.op != "max_pool":
            fill = a["fill"] if node.op == "patches" else a.get("zero_point", 0)
        return cls(steps, (before * a["channels"], behind * a["channels"]), fill)

    def put(self, emitter: Emitter, lanes: int, buffer: tirx.Buffer, at: tuple[Expr, ...], count: int) -> None:
        """Fill ``count`` elements from the indices ``at`` on; some behind them are written too."""
        *leading, first = at
        if not count:
            return
        with emitter.loop(-(-count // lanes)) as i:
            emitter.store(buffer, constant(self.fill, str(buffer.dtype), lanes), *leading, first + i * lanes)


@dataclass(frozen=True)
class Neighbourhoods:
    """The windows of a node whose input lies in ``buffer`` ``[B, steps, elements]``, border included."""

    node: Node
    buffer: tirx.Buffer

    def taps(self, batch: Expr, step: Expr, band: Expr, channels: int) -> list[Row]:
        """What each tap of a window reads at one (strided) step and band, ``channels`` long; time outermost."""
        a = self.node.attributes
        (kernel_t, kernel_f), (stride_t, stride_f), _, (dilation_t, dilation_f) = Window.of(a)
        first, top, dtype = band * (stride_f * a["channels"]), step * stride_t, str(self.buffer.dtype)

        def tap(dt: int, df: int) -> Row:
            start = first + df * dilation_f * a["channels"]
            return buffer_row(self.buffer, channels, dtype, batch, top + dt * dilation_t, first=start)

        return [tap(dt, df) for dt in range(kernel_t) for df in range(kernel_f)]

    def row(self, batch: Expr, step: Expr, band: Expr) -> Row:
        """The neighbourhood of one (strided) step and band: time outermost, then band, then channel."""
        a, window = self.node.attributes, Window.of(self.node.attributes)
        if window.dilation[1] > 1:
            return join(self.taps(batch, step, band, a["channels"]))
        # Bands side by side are one stretch.
        stretches = self.taps(batch, step, band, window.kernel[1] * a["channels"])
        return join(stretches[:: window.kernel[1]])
