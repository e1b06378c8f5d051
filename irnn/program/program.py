"""The program as its users hold it: the plain graph with its proofs, its execution and its storage as methods.

This class stands on top of the floors that it calls.  The graph at the ground knows none of them, so that no import
runs in a circle; they take any :class:`Graph`, and only what makes programs (``irnn.convert``, ``storage.load``)
names this class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from irnn.program import real
from irnn.program.check import check
from irnn.program.document import save
from irnn.program.graph import Graph, Inputs, States
from irnn.program.interpreter import Interpreter
from irnn.program.listing import listing
from irnn.program.top import with_top


class Program(Graph):
    """A recurrent network as a short list of operations; see :class:`Graph` for its fields."""

    def run(self, inputs: Inputs, state: States | None = None) -> tuple[np.ndarray, States]:
        """A whole sequence: inputs ``[batch, time, *shape]`` -> (first output ``[batch, time, ...]``, last state).

        A program with several inputs takes a dict of them by name.
        """
        outputs, state = self.run_all(inputs, state)
        return outputs[0], state

    def run_all(self, inputs: Inputs, state: States | None = None) -> tuple[list[np.ndarray], States]:
        """As :meth:`run`, with every output, in the order of ``outputs``."""
        return self._interpreter.run_all(inputs, state)

    def step(self, inputs: Inputs, state: States | None = None) -> tuple[np.ndarray, States]:
        """One time step: sequences without their time axis -> (first output ``[batch, ...]``, next state).

        An output that has no time axis (a ``last``) is as it is.
        """
        outputs, state = self.step_all(inputs, state)
        return outputs[0], state

    def step_all(self, inputs: Inputs, state: States | None = None) -> tuple[list[np.ndarray], States]:
        """As :meth:`step`, with every output."""
        if isinstance(inputs, Mapping):
            walked = {name for name, value in self.inputs.items() if "time" in value.axes}
            inputs = {name: np.asarray(x)[:, None] if name in walked else x for name, x in inputs.items()}
        else:
            inputs = np.asarray(inputs)[:, None]
        outputs, state = self.run_all(inputs, state)
        over_time = ["time" in self.values[name].axes for name in self.outputs]
        return [y[:, 0] if along else y for y, along in zip(outputs, over_time, strict=True)], state

    @cached_property
    def _interpreter(self) -> Interpreter:
        return Interpreter(self)

    def quantize(self, x: Any) -> np.ndarray | dict[str, np.ndarray]:
        """Real inputs or a state -> the integers that ``run`` takes; see :func:`irnn.program.real.quantize`."""
        return real.quantize(self, x)

    def dequantize(self, y: Any) -> np.ndarray | dict[str, np.ndarray]:
        """Integers of outputs or of a state -> real numbers; see :func:`irnn.program.real.dequantize`."""
        return real.dequantize(self, y)

    def check(self) -> None:
        """Prove that the program is integer-only and cannot overflow; see :func:`irnn.program.check.check`."""
        check(self)

    def top(self, count: int) -> Program:
        """The same program that gives only the ``count`` best logits and their ids, in this order, int32 ``[count]``.

        The best comes first, of equal ones that of the lower id.  A count that is no number of logits, or a program
        whose only output is no row of logits, is an :class:`IrnnError`.
        """
        outputs, values, nodes = with_top(self, count)
        return replace(self, outputs=outputs, values=values, nodes=nodes)

    def save(self, folder: str | Path) -> None:
        """Write ``program.json`` and ``tensors.safetensors``; see :func:`irnn.program.document.save`."""
        save(self, folder)

    def describe(self) -> str:
        """A readable listing: inputs, states, every operation with its formats, every constant with its size."""
        return listing(self)
