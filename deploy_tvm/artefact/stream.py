"""One step after another through a compiled program, with memory that is laid out once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from irnn.errors import IrnnError

Buffers = dict[str, np.ndarray]


@dataclass
class Stream:
    """Keeps the state from step to step: :meth:`deploy_tvm.artefact.runner.Runner.stream` makes one.

    For a small network a step takes half the time of ``Runner.step``, which takes arrays and makes new ones.  For one
    thread at a time; others take streams of their own.
    """

    checked: Callable[[np.ndarray], np.ndarray]  # an array of the input's dtype, or an error
    check_range: Callable[[np.ndarray], None]
    inputs: np.ndarray  # [batch, window, *shape], read by the calls
    outputs: list[np.ndarray]  # each [batch, 1, ...], written by them
    # One call reads the first states and writes the second; the other one goes back.
    states: tuple[Buffers, Buffers]
    calls: tuple[Callable[[], None], Callable[[], None]]
    _turn: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._row = self.inputs[:, 0] if self.inputs.shape[1] == 1 else self.inputs
        results = [output[:, 0] for output in self.outputs]
        self._result = results[0] if len(results) == 1 else results

    def step(self, inputs: np.ndarray) -> np.ndarray | list[np.ndarray]:
        """One time step: inputs ``[batch, *shape]`` -> output ``[batch, ...]``, which the next step overwrites.

        Of a program with several outputs a list of them, in its order.
        A program with windows takes ``[batch, window, *shape]``: the steps before and the newest.
        """
        given = np.asarray(inputs)
        if given.shape == self._row.shape and given.dtype == self._row.dtype:
            self.check_range(given)
        else:
            alone = self._row is not self.inputs
            given = self.checked(given[:, None])[:, 0] if alone else self.checked(given)
            if not alone and given.shape[1] != self.inputs.shape[1]:
                raise IrnnError(f"a step holds {given.shape[1]} frames; this stream takes {self.inputs.shape[1]}")
            if len(given) != len(self._row):
                raise IrnnError(f"a step holds {len(given)} sequences; this stream has {len(self._row)}")
        self._row[...] = given
        self.calls[self._turn]()
        self._turn ^= 1
        return self._result

    @property
    def state(self) -> Buffers:
        """A copy of the state after the last step: name -> array ``[batch, *shape]``."""
        return {name: array.copy() for name, array in self.states[self._turn].items()}
