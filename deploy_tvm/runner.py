"""Runs an artefact: the same ``run`` and ``step`` as ``irnn.program.Program``, by compiled code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from deploy_tvm.artefact import PROGRAM, read_manifest
from deploy_tvm.lower import CONSTANTS, KERNEL
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
        # The kernel itself, with memory of ours for the results: half the time of a call through the virtual machine.
        kernel = library.get_function(KERNEL, query_imports=True)
        constants = list(relax.VirtualMachine(library, tvm.cpu())[CONSTANTS]())
    except (RuntimeError, OSError, AttributeError) as error:
        first = str(error).strip().splitlines()[0]
        raise IrnnError(f"{path} cannot be loaded ({first}): build the artefact again") from None
    return Runner(program, kernel, constants, manifest)


class Runner:
    """A compiled program, bound to its library.

    ``run`` and ``step`` have the meaning, shapes, dtypes and errors of :class:`irnn.program.Program`'s.
    """

    def __init__(
        self, program: Program, kernel: Callable[..., None], constants: list[Any], manifest: dict[str, Any]
    ) -> None:
        self.program, self.manifest = program, manifest
        self._kernel, self._constants = kernel, constants
        ((self._input, self._value),) = program.inputs.items()
        self._dtype = np.dtype(self._value.dtype)
        limits = None if self._dtype.kind == "f" else np.iinfo(self._dtype)
        self._any_value_is_allowed = limits is None or (self._value.low, self._value.high) == (limits.min, limits.max)
        self._states = [(name, np.dtype(state.dtype), state.shape) for name, state in program.states.items()]
        output = program.values[program.outputs[0]]
        self._output = (output.shape, np.dtype(output.dtype))

    @property
    def program_hash(self) -> str:
        """The hash of the program that was compiled (``irnn.storage.program_hash``)."""
        return self.manifest["program_hash"]

    @property
    def metadata(self) -> dict[str, Any]:
        """The program's free JSON: vocabulary, origin."""
        return self.program.metadata

    @property
    def output_scale(self) -> float:
        """Real value of one step of the output; 1 for a float program."""
        return 1.0 if self.program.kind == "float" else self.program.logits_scale

    @property
    def token_count(self) -> int:
        """Token ids run from 0 to this number, exclusive."""
        if self._value.shape or self._value.high is None:
            raise IrnnError(f"input {self._input} takes features, not token ids")
        return self._value.high + 1

    def initial_state(self, batch: int) -> dict[str, np.ndarray]:
        """The state before the first step: name -> array ``[batch, *shape]``."""
        return self.program.initial_state(batch)

    def run(
        self, inputs: np.ndarray, state: dict[str, np.ndarray] | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Inputs ``[batch, time, *shape]`` -> (output ``[batch, time, ...]``, the state after the last step).

        Memory grows with time: stream long sequences in chunks and carry the state.
        """
        inputs = self._check_inputs(inputs)
        batch, time = inputs.shape[:2]
        before = self._check_state(state, batch)
        shape, dtype = self._output
        output = np.empty((batch, time, *shape), dtype)
        after = {name: np.empty((batch, *shape), dtype) for name, dtype, shape in self._states}
        self._kernel(inputs, *before, *self._constants, output, *after.values())
        return output, after

    def step(
        self, inputs: np.ndarray, state: dict[str, np.ndarray] | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One time step: inputs ``[batch, *shape]`` -> (output ``[batch, ...]``, next state)."""
        output, state = self.run(np.asarray(inputs)[:, None], state)
        return output[:, 0], state

    def _check_inputs(self, inputs: np.ndarray) -> np.ndarray:
        value = self._value
        inputs = np.asarray(inputs)
        if inputs.ndim < 2 or inputs.shape[2:] != value.shape or inputs.shape[0] == 0:
            wanted = "".join(f", {n}" for n in value.shape)
            raise IrnnError(
                f"input {self._input} has shape {inputs.shape}; it takes [batch, time{wanted}], batch 1 or more"
            )
        if inputs.dtype == self._dtype and self._any_value_is_allowed:
            return np.ascontiguousarray(inputs)
        if inputs.dtype.kind not in ("iu" if self._dtype.kind in "iu" else "fiu"):
            raise IrnnError(f"input {self._input} is {inputs.dtype}; it takes {value.dtype}")
        if value.low is not None and inputs.size:
            low, high = (inputs.item(),) * 2 if inputs.size == 1 else (int(inputs.min()), int(inputs.max()))
            if low < value.low or high > value.high:
                worst = low if low < value.low else high
                raise IrnnError(f"input {self._input} holds {worst}; allowed are {value.low} to {value.high}")
        return np.ascontiguousarray(inputs, self._dtype)

    def _check_state(self, state: dict[str, np.ndarray] | None, batch: int) -> list[Any]:
        if state is None:
            state = self.initial_state(batch)
        if state.keys() != self.program.states.keys():
            raise IrnnError(f"state names {sorted(state)} do not match the program's {sorted(self.program.states)}")
        arguments = []
        for name, dtype, shape in self._states:
            array = np.asarray(state[name])
            if array.dtype != dtype or array.shape != (batch, *shape):
                raise IrnnError(f"state {name} is {array.dtype} {array.shape}; it takes {dtype} {(batch, *shape)}")
            arguments.append(np.ascontiguousarray(array))
        return arguments
