"""What orthogonal recurrent matrices have in common."""

from __future__ import annotations

from irnn.nn.linear import Weight


class OrthogonalWeight(Weight):
    """``W [size, size]`` with ``W W^T = I`` in real numbers, multiplied with a state; it has no bias.

    What is quantized is W; its gradient passes the rounding as it is (straight through) and then whatever makes W.
    """

    recurrent = True

    def __init__(self, size: int) -> None:
        super().__init__("weight")
        self.size = size
