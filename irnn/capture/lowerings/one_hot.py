"""``F.one_hot``: a table that is the identity."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from irnn.capture.borrowed import Borrowed
from irnn.capture.edges import Edge
from irnn.capture.wiring import UnsupportedError, Wiring
from irnn.nn.linear import Weight


class Identity(Weight):
    """The rows of ``F.one_hot``, exact at any bits."""

    def __init__(self, source: Borrowed, size: int) -> None:
        super().__init__("embedding")
        self._source, self._size = source, size

    @property
    def weight(self) -> Tensor:
        """``[size, size]``."""
        return torch.eye(self._size, device=next(self._source.network.parameters()).device)

    @property
    def identity(self) -> int:
        return id(self)


def one_hot(w: Wiring, input: Edge, num_classes: int = -1) -> Edge:
    """Rows of the identity."""
    if input.form != "ids" or input.inner:
        raise UnsupportedError("is taken of something else than ids [batch, time]", "ids as an argument of forward")
    size = w.step.sizes[-1][0]
    part = w.part(f"{w.step.name}.rows", lambda: Identity(Borrowed(w.network), size))
    return w.edge(w.a.embedding(part, input.t), "int8", (*input.dims, (w.features(size),)))


OPERATIONS: dict[str, Any] = {"one_hot": one_hot}
