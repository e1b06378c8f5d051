"""What a lowered program looks like from outside: its arguments, their shapes, and the Relax functions around it."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax, tirx

from deploy_tvm.codegen.emitter import Expr
from irnn.program import Program, Value
from irnn.program.axes import Axis

ENTRY = "run"
KERNEL = "kernel"
CONSTANTS = "constants"


class Axes:
    """Sizes that only a call knows: the batch, and the axes of values by name."""

    def __init__(self) -> None:
        self.batch = tirx.Var("B", "int64")
        self._roots: dict[str, tirx.Var] = {}

    def size(self, axis: str) -> Expr:
        """ "time" is a variable, "time/4" is ceil(time / 4)."""
        parsed = Axis.parse(axis)
        if parsed.root not in self._roots:
            self._roots[parsed.root] = tirx.Var(parsed.root[0].upper(), "int64")
        size = self._roots[parsed.root]
        if parsed.offset:
            size = size + parsed.offset
        return tirx.floordiv(size, parsed.factor) if parsed.factor > 1 else size

    def shape(self, value: Value) -> tuple[Expr, ...]:
        """``[batch, *axes, *shape]``."""
        return (self.batch, *(self.size(axis) for axis in value.axes), *value.shape)


class Interface:
    """The buffers of a program's callers: inputs and outputs by name, states before and after."""

    def __init__(self, program: Program) -> None:
        self.program, self.axes = program, Axes()
        self.inputs = {name: self._buffer(name, value) for name, value in program.inputs.items()}
        self.outputs = {name: self._buffer(f"{name}_out", program.values[name]) for name in program.outputs}
        self.before, self.after = (
            {
                name: _foreign((self.axes.batch, *state.shape), state.dtype, name + stem)
                for name, state in program.states.items()
            }
            for stem in ("", "_next")
        )

    def parameters(self, constants: list[tirx.Buffer]) -> list[tirx.Buffer]:
        """Everything that the TIR function takes, in order."""
        return [*self.inputs.values(), *self.before.values(), *constants, *self.outputs.values(), *self.after.values()]

    def wrap(self, function: tirx.PrimFunc, constants: list[np.ndarray]) -> tvm.IRModule:
        """The module of the TIR function and the Relax functions: one calls it, one gives its constants."""
        builder, axes = relax.BlockBuilder(), Axes()
        states = [relax.TensorType((axes.batch, *s.shape), s.dtype) for s in self.program.states.values()]

        def kinds(values: list[Value]) -> list[relax.TensorType]:
            return [*(relax.TensorType(axes.shape(value), value.dtype) for value in values), *states]

        given = [*self.inputs.values(), *self.before.values()]
        kinds_given = kinds(list(self.program.inputs.values()))
        parameters = [relax.Var(buffer.name, kind) for buffer, kind in zip(given, kinds_given, strict=True)]
        known = [relax.const(array, str(array.dtype)) for array in constants]
        with builder.function(CONSTANTS, []):
            builder.emit_func_output(relax.Tuple(known))
        with builder.function(ENTRY, parameters):
            with builder.dataflow():
                target = builder.add_func(function, KERNEL)
                results = kinds([self.program.values[name] for name in self.program.outputs])
                output = builder.emit_output(relax.call_tir(target, [*parameters, *known], results))
            builder.emit_func_output(output)
        return builder.finalize()

    def _buffer(self, name: str, value: Value) -> tirx.Buffer:
        return _foreign(self.axes.shape(value), value.dtype, name)


def identifier(name: str) -> str:
    """A name in which only letters, digits and underscores are left."""
    return "".join(c if c.isalnum() else "_" for c in name)


def _foreign(shape: tuple, dtype: str, name: str) -> tirx.Buffer:
    """Memory of the caller: NumPy aligns it to elements, not to registers, and aligned loads would fault."""
    return tirx.decl_buffer(shape, dtype, identifier(name), data_alignment=np.dtype(dtype).itemsize)
