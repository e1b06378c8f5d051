"""Which kernel a product of a program takes: by its weights, and by what is known of its operand."""

from __future__ import annotations

from functools import cached_property

from deploy_tvm.codegen.kernels import Kernels, LinearKernel
from irnn.program import Node, Program
from irnn.program.check import ranges
from irnn.program.ops.base import Range


class Choice:
    """The kernels of a program's ``linear``; ``ranges``: smallest and largest integer of each value, proved."""

    def __init__(self, program: Program, kernels: Kernels) -> None:
        self.program, self.kernels = program, kernels
        self._codes = run_time_codes(program)

    @cached_property
    def ranges(self) -> dict[str, Range]:
        """Proved where something asks for them."""
        return ranges(self.program) if self.program.kind == "integer" else {}

    def kernel(self, node: Node) -> LinearKernel:
        """For one ``linear``."""
        (source,) = node.inputs
        weight, dtype = self.program.tensors[node.tensors["weight"]], self.program.values[source].dtype
        return self.kernels.linear(weight, dtype, self._codes.get(source))


def run_time_codes(program: Program) -> dict[str, int]:
    """The values whose binary codes are found as the program runs -> how many codes each has."""
    return {node.output: int(node.attributes["codes"]) for node in program.walk() if node.op == "multibit"}
