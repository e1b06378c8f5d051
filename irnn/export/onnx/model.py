"""A program as an ONNX model: its operations' own text, its scans as ``Scan``, its states as inputs and outputs."""

from __future__ import annotations

import json
from typing import Any

from onnx import ModelProto, checker, helper

from irnn.errors import IrnnError
from irnn.export.axes import Size, Steps
from irnn.export.onnx.arrays import Array
from irnn.export.onnx.ops import OnnxOps
from irnn.export.onnx.writer import BATCH, Writer, value_info
from irnn.program import Node, Program, Scan
from irnn.program.document import program_hash
from irnn.program.ops import INTEGER_OPS, OPS

OPSET, IR_VERSION = 17, 8
FORMS = frozenset(INTEGER_OPS)  # all that ``OnnxOps`` has the words for; tests/irnn/export walks them


def model(program: Program) -> ModelProto:
    """The model of an integer program.

    Inputs: the program's, ``[batch, *axes, *shape]`` in their dtypes, then ``state.NAME`` of each state; outputs: the
    program's, then ``next.NAME``.  Batch and axes are dynamic.  ``metadata_props`` hold the integers that the states
    start at (``irnn.initial``) and the program's hash.  Standard operators of opset 17 alone.
    """
    program.check()
    for node in program.walk():
        if node.op not in FORMS:
            raise IrnnError(
                f"the operation {node.op} ({node.output}) has no ONNX form; those that have one are {', '.join(FORMS)}"
            )
    return _Model(program).build()


class _Model:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.values = program.inputs | program.values
        self.work = Writer()
        self.ops = OnnxOps(self.work)
        self.environment: dict[str, Array] = {}
        self.states: dict[str, Array] = {}
        self._roles = {
            node.output: OPS[node.op].constants(
                self.ops, node, self.values, {r: program.tensors[n] for r, n in node.tensors.items()}, None
            )
            for node in program.walk()
        }

    def build(self) -> ModelProto:
        inputs, outputs = [], []
        for name, value in self.program.inputs.items():
            self.work.declare(name, value)
            self.environment[name] = Array(self.work, self._shape(name), value.dtype, name)
            inputs.append(value_info(name, value.dtype, self._shape(name)))
        for name, state in self.program.states.items():
            self.states[name] = Array(self.work, (BATCH, *state.shape), state.dtype, f"state.{name}")
            inputs.append(value_info(f"state.{name}", state.dtype, (BATCH, *state.shape)))
        for axis in sorted({axis for value in self.values.values() for axis in value.axes}):
            self.work.size(Steps.along(axis))  # once, outside of the scans
        for item in self.program.nodes:
            if isinstance(item, Scan):
                self._scan(item)
            else:
                self._node(item, self.environment)
        for name in self.program.outputs:
            public = name if name not in self.program.inputs else f"{name}.out"
            self.work.named(self.environment[name], public)
            outputs.append(value_info(public, self.values[name].dtype, self._shape(name)))
        for name, state in self.program.states.items():
            self.work.named(self.states[name], f"next.{name}")
            outputs.append(value_info(f"next.{name}", state.dtype, (BATCH, *state.shape)))
        graph = helper.make_graph(
            [*self.work.unpacking, *self.work.nodes], "irnn", inputs, outputs, self.work.constants
        )
        made = helper.make_model(
            graph, producer_name="irnn", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
        )
        initial = {f"state.{name}": state.initial for name, state in self.program.states.items()}
        helper.set_model_props(made, {"irnn.initial": json.dumps(initial), "irnn.program": program_hash(self.program)})
        checker.check_model(made)
        return made

    def _shape(self, name: str) -> tuple[Size, ...]:
        value = self.values[name]
        return (BATCH, *(Steps.along(axis) for axis in value.axes), *value.shape)

    def _node(self, node: Node, environment: dict[str, Array]) -> None:
        dtype, inputs = self.values[node.output].dtype, [environment[name] for name in node.inputs]
        try:
            result = OPS[node.op].apply(self.ops, node, inputs, self._roles[node.output], dtype)
        except (AttributeError, TypeError) as error:  # a word that OnnxOps has not, or a form that ONNX has not
            raise IrnnError(f"the operation {node.op} ({node.output}) has no ONNX form here: {error}") from error
        environment[node.output] = self.ops.to(result, dtype)

    def _scan(self, scan: Scan) -> None:
        """State variables, sequences that are walked along their second axis, and what is collected."""
        sequences = [self.environment[name] for name in scan.sequences.values()]
        valid = None
        if scan.lengths is not None and scan.states:
            valid = self.ops.valid(self.environment[scan.lengths], sequences[0].shape[1])
            sequences.append(valid)
        local = {name: self.environment[name] for name in scan.captures}
        body_inputs, body_outputs = [], []
        self.states |= {name: self.environment[start] for name, start in scan.starts.items()}
        for name, (before, _) in scan.states.items():
            state = self.states[name]
            local[before] = Array(self.work, state.shape, state.dtype, self.work.new_name(before))
            body_inputs.append(local[before])
        for inner, source in zip([*scan.sequences, "valid"], sequences, strict=False):
            local[inner] = Array(self.work, (BATCH, *source.shape[2:]), source.dtype, self.work.new_name(inner))
            body_inputs.append(local[inner])
        with self.work.body() as nodes:
            for node in scan.body:
                self._node(node, local)
            for name, (before, after) in scan.states.items():
                value = local[after]
                if valid is not None:
                    value = self.ops.where(body_inputs[-1][:, None], value, local[before])
                body_outputs.append(self._body_output(value, f"{name}.next"))
            for outer, inner in scan.outputs.items():
                body_outputs.append(self._body_output(local[inner], outer))
        infos = [[value_info(x.name, x.dtype, x.shape) for x in arrays] for arrays in (body_inputs, body_outputs)]
        body = helper.make_graph(nodes, self.work.new_name("step"), infos[0], infos[1])
        self._write(scan, sequences, body, [x.shape for x in body_outputs[len(scan.states) :]])

    def _body_output(self, value: Array, like: str) -> Array:
        named = Array(self.work, value.shape, value.dtype, self.work.new_name(like))
        self.work.named(value, named.name)
        return named

    def _write(self, scan: Scan, sequences: list[Array], body: Any, collected: list[tuple[Size, ...]]) -> None:
        after = {name: self.work.new_name(f"state.{name}") for name in scan.states}
        made = {outer: self.work.new_name(outer) for outer in scan.outputs}
        directions = [int(scan.reverse)]
        self.work.raw(
            helper.make_node(
                "Scan", [*(self.states[name].name for name in scan.states), *(x.name for x in sequences)],
                [*after.values(), *made.values()], body=body, num_scan_inputs=len(sequences),
                scan_input_axes=[1] * len(sequences), scan_input_directions=directions * len(sequences),
                scan_output_axes=[1] * len(made), scan_output_directions=directions * len(made),
            )
        )  # fmt: skip
        for name, new in after.items():
            self.states[name] = Array(self.work, self.states[name].shape, self.states[name].dtype, new)
        self.environment |= {outer: self.states[name] for outer, name in scan.finals.items()}
        steps = sequences[0].shape[1]
        for (outer, new), shape in zip(made.items(), collected, strict=True):
            self.environment[outer] = Array(self.work, (shape[0], steps, *shape[1:]), self.values[outer].dtype, new)
