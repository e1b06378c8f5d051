"""What each operation is in an executor's words: a new one is a function in this folder and an entry in a table.

A lowering is called with the wiring, the operation's arguments as torch's function of that name has them, tensors as
:class:`irnn.capture.edges.Edge`, and gives edges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from irnn.capture.lowerings import dense, elementwise, glue, lengths, one_hot, pooling, products, recurrent, windows

OPERATIONS: dict[str, Callable[..., Any]] = {
    **glue.OPERATIONS,
    **dense.OPERATIONS,
    **elementwise.OPERATIONS,
    **lengths.OPERATIONS,
    **one_hot.OPERATIONS,
    **pooling.OPERATIONS,
    **products.OPERATIONS,
    **recurrent.OPERATIONS,
    **windows.OPERATIONS,
}
