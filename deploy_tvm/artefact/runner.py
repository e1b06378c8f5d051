"""Runs an artefact: the same ``run`` and ``step`` as ``irnn.program.Program``, by compiled code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm_ffi import from_dlpack

from deploy_tvm.artefact.artefact import PROGRAM, read_manifest
from deploy_tvm.artefact.inputs import stepwise
from deploy_tvm.artefact.stream import Stream
from deploy_tvm.codegen.interface import CONSTANTS, KERNEL
from irnn.errors import IrnnError
from irnn.program import Inputs, Program, States, Value, storage
from irnn.program.axes import Axis
from irnn.program.graph import too_short


def load(folder: Any) -> Runner:
    """The runner of an artefact whose files are what they were when it was built."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    program = storage.load(folder / PROGRAM)
    assert isinstance(program, Program)  # an artefact holds one
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

    ``run``, ``step``, ``run_all`` and ``step_all`` have the meaning, shapes, dtypes and errors of
    :class:`irnn.program.Program`'s.
    """

    def __init__(
        self, program: Program, kernel: Callable[..., None], constants: list[Any], manifest: dict[str, Any]
    ) -> None:
        self.program, self.manifest = program, manifest
        self._kernel, self._constants = kernel, constants
        self._inputs = [_Input(name, value) for name, value in program.inputs.items()]
        self._fewest = program.fewest
        self._states = [(name, np.dtype(state.dtype), state.shape) for name, state in program.states.items()]
        values = [program.values[name] for name in program.outputs]
        self._outputs = [(np.dtype(v.dtype), [Axis.parse(axis) for axis in v.axes], v.shape) for v in values]

    @property
    def program_hash(self) -> str:
        """The hash of the program that was compiled (``irnn.program.storage.program_hash``)."""
        return self.manifest["program_hash"]

    @property
    def metadata(self) -> dict[str, Any]:
        """The program's free JSON: vocabulary, origin."""
        return self.program.metadata

    @property
    def output_scale(self) -> float:
        """Real value of one step of the (first) output; 1 for a float program."""
        return 1.0 if self.program.kind == "float" else self.program.logits_scale

    @property
    def token_count(self) -> int:
        """Token ids run from 0 to this number, exclusive."""
        first = self._inputs[0]
        if first.value.shape or first.value.high is None:
            raise IrnnError(f"input {first.name} takes features, not token ids")
        return first.value.high + 1

    def initial_state(self, batch: int) -> States:
        """The state before the first step: name -> array ``[batch, *shape]``."""
        return self.program.initial_state(batch)

    def run(self, inputs: Inputs, state: States | None = None) -> tuple[np.ndarray, States]:
        """Inputs ``[batch, time, *shape]`` -> (first output ``[batch, time, ...]``, the state after the last step).

        Memory grows with time: stream long sequences in chunks and carry the state.
        """
        outputs, state = self.run_all(inputs, state)
        return outputs[0], state

    def run_all(self, inputs: Inputs, state: States | None = None) -> tuple[list[np.ndarray], States]:
        """As :meth:`run`, with every output, in the order of the program's."""
        arrays, sizes = self._checked_inputs(inputs)
        batch = sizes["batch"]
        before = self._checked_state(state, batch)
        outputs = [
            np.empty((batch, *(axis.size(sizes[axis.root]) for axis in axes), *shape), dtype)
            for dtype, axes, shape in self._outputs
        ]
        after = {name: np.empty((batch, *shape), dtype) for name, dtype, shape in self._states}
        self._kernel(*arrays, *before, *self._constants, *outputs, *after.values())
        return outputs, after

    def step(self, inputs: Inputs, state: States | None = None) -> tuple[np.ndarray, States]:
        """One time step: sequences without their time axis -> (first output ``[batch, ...]``, next state)."""
        outputs, state = self.step_all(inputs, state)
        return outputs[0], state

    def step_all(self, inputs: Inputs, state: States | None = None) -> tuple[list[np.ndarray], States]:
        """As :meth:`step`, with every output."""
        if isinstance(inputs, Mapping):
            walked = {i.name for i in self._inputs if "time" in i.value.axes}
            inputs = {name: np.asarray(x)[:, None] if name in walked else x for name, x in inputs.items()}
        else:
            inputs = np.asarray(inputs)[:, None]
        outputs, state = self.run_all(inputs, state)
        axes = [self.program.values[name].axes for name in self.program.outputs]
        return [output[:, 0] if of else output for output, of in zip(outputs, axes, strict=True)], state

    def stream(self, batch: int = 1, state: States | None = None) -> Stream:
        """Steps of ``batch`` sequences that carry their state along, from ``state`` or the start, in fixed memory.

        A program with convolutions over time in front takes the last steps that one step of its output is made of
        (``irnn.program.Program.window``).
        """
        window = self.program.window
        if window is None or not stepwise(self.program):
            raise IrnnError("only a program with one input, all outputs along time as it is, runs as a stream")
        before = dict(zip(self.program.states, self._checked_state(state, batch), strict=True))
        first_states, second_states = ({name: array.copy() for name, array in before.items()} for _ in range(2))
        states = (first_states, second_states)
        first = self._inputs[0]
        inputs = np.zeros((batch, window, *first.value.shape), first.value.dtype)
        outputs = [np.empty((batch, 1, *shape), dtype) for dtype, _, shape in self._outputs]

        def call(turn: int) -> Callable[[], None]:
            read = [inputs, *states[turn].values()]
            written = [*outputs, *states[1 - turn].values()]
            return partial(self._kernel, *map(from_dlpack, read), *self._constants, *map(from_dlpack, written))

        return Stream(first.checked, first.check_range, inputs, outputs, states, (call(0), call(1)))

    def _checked_inputs(self, inputs: Inputs) -> tuple[list[np.ndarray], dict[str, int]]:
        """(arrays for the kernel, the sizes of the batch and of the axes)."""
        if not isinstance(inputs, Mapping):
            inputs = {self._inputs[0].name: inputs}
        if inputs.keys() != self.program.inputs.keys():
            raise IrnnError(f"inputs {sorted(inputs)} do not match the program's {sorted(self.program.inputs)}")
        arrays: list[np.ndarray] = []
        sizes: dict[str, int] = {}
        for expected in self._inputs:
            array = expected.checked(inputs[expected.name])
            arrays.append(array)
            for axis, size in zip(expected.axes, array.shape, strict=False):
                if sizes.setdefault(axis, size) != size:
                    raise IrnnError(f"input {expected.name} has {size} along {axis}, another input has {sizes[axis]}")
        if problem := too_short(self._fewest, sizes):
            raise IrnnError(problem)
        for expected, array in zip(self._inputs, arrays, strict=True):
            counted = expected.value.counts
            if counted is not None and int(array.max()) > sizes[counted]:
                raise IrnnError(
                    f"input {expected.name} holds {int(array.max())}; there are only {sizes[counted]} along {counted}"
                )
        return arrays, sizes

    def _checked_state(self, state: States | None, batch: int) -> list[np.ndarray]:
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


class _Input:
    """One input: what it takes, and the check that an array is that."""

    def __init__(self, name: str, value: Value) -> None:
        self.name, self.value = name, value
        self.axes = ("batch", *value.axes)
        self._dtype = np.dtype(value.dtype)
        limits = None if self._dtype.kind == "f" else np.iinfo(self._dtype)
        self._any_value_is_allowed = limits is None or (value.low, value.high) == (limits.min, limits.max)

    def checked(self, given: Any) -> np.ndarray:
        """``given`` as an array of the input's dtype, without gaps; an ``IrnnError`` where it is none."""
        value, array = self.value, np.asarray(given)
        leading = len(self.axes)
        if array.ndim != leading + len(value.shape) or array.shape[leading:] != value.shape or array.shape[0] == 0:
            wanted = ", ".join([*self.axes, *map(str, value.shape)])
            raise IrnnError(f"input {self.name} has shape {array.shape}; it takes [{wanted}], batch 1 or more")
        if array.dtype == self._dtype and self._any_value_is_allowed:
            return np.ascontiguousarray(array)
        if array.dtype.kind not in ("iu" if self._dtype.kind in "iu" else "fiu"):
            raise IrnnError(f"input {self.name} is {array.dtype}; it takes {value.dtype}")
        self.check_range(array)
        return np.ascontiguousarray(array, self._dtype)

    def check_range(self, array: np.ndarray) -> None:
        """An ``IrnnError`` where an element is not allowed."""
        value = self.value
        every_one_fits = self._any_value_is_allowed and array.dtype == self._dtype
        if every_one_fits or value.low is None or value.high is None or not array.size:
            return
        low, high = (array.item(),) * 2 if array.size == 1 else (int(array.min()), int(array.max()))
        if low < value.low or high > value.high:
            worst = low if low < value.low else high
            raise IrnnError(f"input {self.name} holds {worst}; allowed are {value.low} to {value.high}")
