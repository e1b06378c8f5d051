"""A convolution's neighbourhoods as rows of a matrix product (im2col), read from a sequence that has a border."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, constant
from deploy_tvm.codegen.rows import Row, buffer_row, join
from irnn.program import Node


@dataclass(frozen=True)
class Border:
    """What a ``patches`` node reads beyond its input on each side: half a kernel of ``steps`` and of ``elements``."""

    steps: int
    elements: int
    fill: int | float

    @classmethod
    def of(cls, node: Node) -> Border:
        a = node.attributes
        kernel_t, kernel_f = a["kernel"]
        return cls(kernel_t // 2, kernel_f // 2 * a["channels"], a["fill"])

    def put(self, emitter: Emitter, lanes: int, buffer: tirx.Buffer, at: tuple[Expr, ...], count: int) -> None:
        """Fill ``count`` elements from the indices ``at`` on; some behind them are written too."""
        *leading, first = at
        with emitter.loop(-(-count // lanes)) as i:
            emitter.store(buffer, constant(self.fill, str(buffer.dtype), lanes), *leading, first + i * lanes)


@dataclass(frozen=True)
class Neighbourhoods:
    """The output of a ``patches`` node whose input lies in ``buffer`` ``[B, steps, elements]``, border included."""

    node: Node
    buffer: tirx.Buffer

    def row(self, batch: Expr, step: Expr, band: Expr) -> Row:
        """The neighbourhood of one (strided) step and band: time outermost, then band, then channel."""
        a = self.node.attributes
        (kernel_t, kernel_f), (stride_t, stride_f), channels = a["kernel"], a["strides"], a["channels"]
        size, first = kernel_f * channels, band * (stride_f * channels)
        dtype, top = str(self.buffer.dtype), step * stride_t
        return join([buffer_row(self.buffer, size, dtype, batch, top + d, first=first) for d in range(kernel_t)])
