"""A golden run: inputs of a program, and what the interpreter makes of them from the initial state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irnn.program import Program, equality
from irnn.program.equality import Comparison


@dataclass(frozen=True)
class Golden:
    """inputs: by name, ``[batch, ...]``.  outputs: in the program's order.  states: the last ones, by name."""

    program: Program
    inputs: dict[str, np.ndarray]
    outputs: list[np.ndarray]
    states: dict[str, np.ndarray]

    @classmethod
    def of(cls, program: Program, inputs: dict[str, np.ndarray]) -> Golden:
        """Run the interpreter."""
        return cls(program, inputs, *program.run_all(inputs))

    @property
    def steps(self) -> int:
        """Steps of the sequence."""
        return steps_of(self.program, self.inputs)

    def compare(self, who: str, outputs: Sequence[Any], states: Mapping[str, Any] | Sequence[Any]) -> Comparison:
        """What of another executor's results differs; who: that executor, in words."""
        found, expected = (
            equality.named(self.program, *results) for results in ((outputs, states), (self.outputs, self.states))
        )
        return equality.compare(who, found, expected)


def steps_of(program: Program, inputs: Mapping[str, np.ndarray]) -> int:
    """Steps of the sequence that ``inputs`` are; 1 where none is a sequence: a call is one step then."""
    return next((inputs[name].shape[1] for name, value in program.inputs.items() if "time" in value.axes), 1)
