"""ONNX models of programs with several inputs and axes: convolutions, loops, attention; batch 1, full lengths.

A convolution becomes ONNX's Conv, a plain loop ONNX's LSTM or GRU, anything else is translated operation by operation
(``peer_onnx``).  Every sequence is ``[steps, size]``; between convolutions images ``[1, channels, steps, bands]`` stay
as they are.  Lengths are those of the arrays, so nothing is masked.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from peer_network import Cell, Network
from peer_onnx import Translation, floats

PASSED_ON = ("mask", "flatten")


def parts_model(network: Network) -> onnx.ModelProto:
    """The program's inputs (lengths left out), then states of zeros; its outputs (lengths left out), then states."""
    if network.batch > 1:
        raise NotImplementedError("its model of a network with several inputs takes one sequence a call")
    return _Parts(network).model()


def parts_feed(model: onnx.ModelProto, network: Network) -> dict[str, np.ndarray]:
    """Inputs by name: the program's own, states of zeros."""
    arrays = {}
    for value in model.graph.input:
        shape = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        given = network.inputs.get(value.name)
        if given is None:
            arrays[value.name] = np.zeros(shape, np.float32)
        else:
            integer = value.type.tensor_type.elem_type == TensorProto.INT64
            arrays[value.name] = np.ascontiguousarray(given.reshape(shape), np.int64 if integer else np.float32)
    return arrays


def axes(value: dict[str, Any]) -> list[str]:
    """A value's axes behind the batch; ``program.json`` leaves the usual one out."""
    return value.get("axes", ["time"])


class _Parts(Translation):
    def __init__(self, network: Network) -> None:
        super().__init__(network, steps=1, batch=1)  # of a loop that is no plain one
        self.producers = {node["output"]: node for node in self.program["nodes"] if node["op"] != "scan"}
        self.sizes = {
            axis: size
            for name, value in self.program["inputs"].items()
            for axis, size in zip(axes(value), network.inputs[name].shape[1:], strict=False)
        }
        self.images: dict[str, str] = {}  # values that (also) exist as an image, and its name
        self.flat: set[str] = set()  # images that exist as sequences too

    def model(self) -> onnx.ModelProto:
        graph, program, values = self.graph, self.program, self.program["values"]
        inputs, outputs = [], []
        for name, value in program["inputs"].items():
            if "counts" in value:
                continue
            steps = self.sizes[axes(value)[0]]
            if value["shape"]:
                inputs.append(floats(name, steps, *value["shape"]))
            else:
                inputs.append(helper.make_tensor_value_info(name, TensorProto.INT64, [steps]))
        states = {state: fields["shape"][0] for state, fields in program["states"].items()}
        kept = set()
        for k, item in enumerate(program["nodes"]):
            if item["op"] != "scan":
                self.part(item)
            elif k in self.network.loops:
                kept |= self.loop(item, self.network.loops[k])
            else:
                self.scan(item, states)
        for name in program["outputs"]:
            if "counts" not in values[name]:
                output = f"{name}.given"
                graph.node("Identity", [self.sequence(name)], [output])
                outputs.append(floats(output, *self.shape(name)))
        for state, size in states.items():
            shape = (1, 1, size) if state in kept else (1, size)
            inputs.append(floats(f"{state}.first", *shape))
            outputs.append(floats(f"{state}.next", *shape))
        return graph.model(inputs, outputs)

    def extent(self, axis: str) -> int:
        """Size of an axis: "time/4" is a quarter of "time", rounded up."""
        name, _, factor = axis.partition("/")
        return -(-self.sizes[name] // int(factor or 1))

    def shape(self, name: str) -> list[int]:
        """``[steps, size]`` of a value outside of loops; one step of what has no axis, a sequence's last."""
        value = self.program["values"][name]
        first, second = [*map(self.extent, axes(value)), None, None][:2]
        return [first or 1, second or math.prod(value["shape"])]

    def sequence(self, name: str) -> str:
        """The value as ``[steps, size]``."""
        if name in self.images and name not in self.flat:
            self.flat.add(name)
            self.graph.node("Transpose", [self.images[name]], [f"{name}.last"], perm=[0, 2, 3, 1])
            self.graph.reshape(f"{name}.last", self.shape(name), name)
        return name

    def part(self, node: dict[str, Any]) -> None:
        """An operation outside of loops."""
        op, output, source = node["op"], node["output"], node["inputs"][0]
        if op in ("shorten", "patches"):
            return  # nothing needs a length; neighbourhoods belong to the product that reads them
        if op in PASSED_ON and source in self.images:
            self.images[output] = self.images[source]
        elif op in PASSED_ON:
            self.graph.node("Identity", [source], [output])
        elif op == "relu":
            self.relu(source, output)
        elif op == "linear" and self.producers.get(source, {"op": ""})["op"] == "patches":
            self.convolution(node, self.producers[source])
        elif op == "subsample":
            factor = node["attributes"]["factor"]
            names = [self.number(n) for n in (0, np.iinfo(np.int64).max, 0, factor)]
            self.graph.node("Slice", [self.sequence(source), *names], [output])
        elif op == "last":
            names = [self.number(n) for n in (-1, np.iinfo(np.int64).max, 0)]
            self.graph.node("Slice", [self.sequence(source), *names], [output])
        elif op == "linear" and self.feeds_loop(output):
            return  # the loop's operator does it
        else:
            for name in node["inputs"]:
                self.sequence(name)
            self.operation(node, self.shape(output)[0])

    def feeds_loop(self, name: str) -> bool:
        """Whether a product belongs to a plain loop."""
        nodes = self.program["nodes"]
        return any(name in nodes[k]["sequences"].values() for k in self.network.loops)

    def relu(self, source: str, output: str) -> None:
        if source in self.images:
            self.images[output] = f"{output}.image"
            self.graph.node("Relu", [self.images[source]], [self.images[output]])
        else:
            self.graph.node("Relu", [source], [output])

    def convolution(self, node: dict[str, Any], patches: dict[str, Any]) -> None:
        """``patches`` and the product with them, as one Conv."""
        graph, output, (source,) = self.graph, node["output"], patches["inputs"]
        a = patches["attributes"]
        channels, kernel = a["channels"], a["kernel"]
        if source not in self.images:
            steps, size = self.shape(source)
            graph.reshape(source, [1, steps, size // channels, channels], f"{source}.bands")
            graph.node("Transpose", [f"{source}.bands"], [f"{source}.image"], perm=[0, 3, 1, 2])
            self.images[source] = f"{source}.image"
            self.flat.add(source)
        weight = self.network.tensors[node["tensors"]["weight"]]
        kernels = weight.reshape(len(weight), *kernel, channels).transpose(0, 3, 1, 2)
        names = [graph.constant(f"{output}.kernels", kernels), self.tensor(node["tensors"]["bias"])]
        before = [size // 2 for size in kernel]
        graph.node(
            "Conv", [self.images[source], *names], [f"{output}.image"], kernel_shape=kernel, strides=a["strides"],
            pads=[*before, *before],
        )  # fmt: skip
        self.images[output] = f"{output}.image"

    def loop(self, scan: dict[str, Any], cell: Cell) -> set[str]:
        """A plain loop; returns the states that it keeps as ``[1, 1, size]``."""
        graph = self.graph
        (product,) = scan["sequences"].values()
        source = self.sequence(self.producers[product]["inputs"][0])
        ((output, collected),) = scan["outputs"].items()
        # The hidden state is what is collected and comes first; an LSTM's cell is the other one.
        kept = sorted(scan["states"], key=lambda state: scan["states"][state][1] != collected)
        steps, size = self.shape(self.producers[product]["inputs"][0])
        x = graph.reshape(source, [steps, 1, size], f"{output}.x")
        before, after = ([f"{state}.{end}" for state in kept] for end in ("first", "next"))
        graph.recurrent([cell], x, f"{output}.y", before, after, "reverse" if scan["reverse"] else "forward")
        graph.reshape(f"{output}.y", [steps, cell.hidden], output)
        return set(kept)

    def operation(self, node: dict[str, Any], rows: int) -> None:
        graph, output, inputs = self.graph, node["output"], node["inputs"]
        if node["op"] == "attention_weights":
            query, keys, _ = inputs
            graph.node("Add", [keys, query], [f"{output}.sum"])
            graph.node("Tanh", [f"{output}.sum"], [f"{output}.tanh"])
            v = graph.constant(f"{output}.v", self.network.tensors[node["tensors"]["weight"]].T)
            graph.node("MatMul", [f"{output}.tanh", v], [f"{output}.column"])
            graph.reshape(f"{output}.column", [1, self.sizes["memory"]], f"{output}.score")
            graph.node("Softmax", [f"{output}.score"], [output], axis=1)
        elif node["op"] == "attention_context":
            graph.node("MatMul", inputs, [output])
        else:
            super().operation(node, rows)
