"""Runs an artefact: the same ``run`` and ``step`` as ``irnn.program.Program``, by compiled code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from deploy_tvm.artefact import PROGRAM, read_manifest
from deploy_tvm.lower import ENTRY
from irnn import storage
from irnn.errors import IrnnError
from irnn.program import Program


def load(folder: Any) -> Runner:
    """The runner of an artefact whose files are what they were when it was built."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    program = storage.load(folder / PROGRAM)
    path = folder / manifest["library"]
    try:
        library = tvm.runtime.load_module(str(path))
        machine = relax.VirtualMachine(library, tvm.cpu())
    except (RuntimeError, OSError, AttributeError) as error:
        first = str(error).strip().splitlines()[0]
        raise IrnnError(f"{path} cannot be loaded ({first}): build the artefact again") from None
    return Runner(program, machine, manifest)


class Runner:
    """A compiled program, bound to its library.

    ``run`` and ``step`` have the meaning, shapes, dtypes and errors of :class:`irnn.program.Program`'s.
    """

    def __init__(self, program: Program, machine: relax.VirtualMachine, manifest: dict[str, Any]) -> None:
        self.program, self.manifest = program, manifest
        self._call = machine[ENTRY]
        ((self._input, self._value),) = program.inputs.items()
        self._states = [(name, np.dtype(state.dtype), state.shape) for name, state in program.states.items()]

    def initial_state(self, batch: int) -> dict[str, np.ndarray]:
        """The state before the first step: name -> array ``[batch, *shape]``."""
        return self.program.initial_state(batch)

    def run(
        self, inputs: np.ndarray, state: dict[str, np.ndarray] | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Inputs ``[batch, time, *shape]`` -> (output ``[batch, time, ...]``, the state after the last step).

        Memory grows with time: stream long sequences in chunks and carry the state.
        """
        inputs = self._check_inputs(np.asarray(inputs), 2)
        states = self._check_state(state, inputs.shape[0])
        results = self._call(inputs, *states)
        output, *after = map(np.from_dlpack, results)
        return output, dict(zip(self.program.states, after, strict=True))

    def step(
        self, inputs: np.ndarray, state: dict[str, np.ndarray] | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One time step: inputs ``[batch, *shape]`` -> (output ``[batch, ...]``, next state)."""
        output, state = self.run(np.asarray(inputs)[:, None], state)
        return output[:, 0], state

    def _check_inputs(self, inputs: np.ndarray, leading: int) -> np.ndarray:
        value = self._value
        if inputs.ndim != leading + len(value.shape) or inputs.shape[leading:] != value.shape:
            wanted = "".join(f", {n}" for n in value.shape)
            raise IrnnError(f"input {self._input} has shape {inputs.shape}; it takes [batch, time{wanted}]")
        if inputs.shape[0] == 0:
            raise IrnnError(f"input {self._input} has shape {inputs.shape}: the batch is empty")
        if value.low is not None and inputs.size:
            low, high = int(inputs.min()), int(inputs.max())
            if low < value.low or high > value.high:
                worst = low if low < value.low else high
                raise IrnnError(f"input {self._input} holds {worst}; allowed are {value.low} to {value.high}")
        if inputs.dtype.kind not in ("iu" if value.low is not None else "fiu"):
            raise IrnnError(f"input {self._input} is {inputs.dtype}; it takes {value.dtype}")
        return np.ascontiguousarray(inputs, value.dtype)

    def _check_state(self, state: dict[str, np.ndarray] | None, batch: int) -> list[np.ndarray]:
        if state is None:
            state = self.initial_state(batch)
        if state.keys() != self.program.states.keys():
            raise IrnnError(f"state names {sorted(state)} do not match the program's {sorted(self.program.states)}")
        arrays = []
        for name, dtype, shape in self._states:
            array = state[name]
            if array.dtype != dtype or array.shape != (batch, *shape):
                raise IrnnError(f"state {name} is {array.dtype} {array.shape}; it takes {dtype} {(batch, *shape)}")
            arrays.append(np.ascontiguousarray(array))
        return arrays
