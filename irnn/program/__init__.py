"""Programs as data: the graph, its proofs, the reference interpreter, storage, the listing.  Needs no PyTorch."""

from irnn.program.graph import LENGTH_MAX, Inputs, Node, Scan, State, States, Tensor, Value
from irnn.program.program import Program

__all__ = ["LENGTH_MAX", "Inputs", "Node", "Program", "Scan", "State", "States", "Tensor", "Value"]
