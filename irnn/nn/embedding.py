"""The look-up table of token ids."""

from __future__ import annotations

from torch import nn

from irnn.nn.linear import Weight


class Embedding(Weight):
    """A table ``[vocabulary, size]`` whose rows are looked up."""

    weight: nn.Parameter

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__("embedding")
        self.weight = weight
