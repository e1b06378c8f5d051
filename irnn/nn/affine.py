"""A factor and a summand for each element: constants of a network, or a batch norm that stands alone."""

from __future__ import annotations

from torch import Tensor, nn

from irnn.nn.batch_norm import folded, need_statistics


class Affine(nn.Module):
    """``gain x + shift`` with tensors ``[size]``, which may be parameters that are registered elsewhere."""

    def __init__(self, gain: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.where = "an affine map"  # what messages call it
        self._tensors = (gain, shift)  # a tuple: they are registered where the user has them

    @property
    def gain(self) -> Tensor:
        """``[size]``."""
        return self._tensors[0]

    @property
    def shift(self) -> Tensor:
        """``[size]``."""
        return self._tensors[1]


class FoldedNorm(nn.Module):
    """An ``nn.BatchNorm1d`` over the elements of a sequence, with its running statistics; scale and shift train on."""

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        need_statistics(norm)
        self.where = "a batch norm"  # what messages call it
        self._norm = (norm,)  # a tuple: it is registered where the user has it

    @property
    def gain(self) -> Tensor:
        """``[size]``."""
        return folded(self._norm[0])[0]

    @property
    def shift(self) -> Tensor:
        """``[size]``."""
        return folded(self._norm[0])[1]
