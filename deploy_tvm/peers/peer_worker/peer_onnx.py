"""Networks in ONNX, of fixed length and batch, with states in and out.

Plain layers become ONNX's LSTM, GRU or RNN.  Any other float program is translated operation by operation: its loops
become ONNX's Scan, and for a single step just the loop's body.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from peer_network import STATES, Cell, Network, Stack

OPSET, IR_VERSION = 17, 9
MICROSOFT = "com.microsoft"  # operators of ONNX Runtime's own
NBITS_BLOCK = 32
ELEMENTWISE = {"add": "Add", "multiply": "Mul", "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}
# Operator, its order of the gates, and what makes it torch's cell: the reset gate multiplies W_hn h + b_hn.
OPERATORS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lstm": ("LSTM", "iofg", {}),
    "gru": ("GRU", "zrn", {"linear_before_reset": 1}),
    "rnn": ("RNN", "h", {"activations": ["Relu"]}),  # of each direction
}


def onnx_model(network: Network, *, operators: bool = True, bits: int | None = None) -> onnx.ModelProto:
    """The network in ONNX; the data is its first input, the program's output its first output; then come states.

    operators: plain layers by ONNX's LSTM and GRU, where False operation by operation, as every other network.  bits:
    of the weights of products that stand as operations, ONNX Runtime's MatMulNBits; None: float.
    """
    if operators and network.stack is not None:
        return _stack_model(network, network.stack)
    return Translation(network, network.steps, network.batch, bits).model()


def feed(model: onnx.ModelProto, network: Network) -> dict[str, np.ndarray]:
    """Inputs by name: the data first, then states of zeros."""
    arrays = {}
    for k, value in enumerate(model.graph.input):
        shape = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        arrays[value.name] = np.zeros(shape, np.float32) if k else network.inputs.reshape(shape)
    return arrays


class Graph:
    """A graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, array: np.ndarray) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def node(self, op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op, inputs, outputs, **attributes))

    def reshape(self, x: str, shape: list[int], output: str) -> str:
        name = "shape_" + "_".join(map(str, shape))
        self.node("Reshape", [x, self.constant(name, np.array(shape, np.int64))], [output])
        return output

    def recurrent(
        self, cells: list[Cell], x: str, output: str, before: list[str], after: list[str], direction: str
    ) -> None:
        """One layer of plain cells, one a direction: x ``[steps, batch, size]`` -> ``[steps, directions, batch,
        hidden]``; the states' names before and after it, each ``[directions, batch, hidden]``."""
        operator, order, attributes = OPERATORS[cells[0].kind]
        if "activations" in attributes:
            attributes = {"activations": attributes["activations"] * len(cells)}
        w_x, w_h, b_x, b_h = (np.stack(part) for part in zip(*(cell.in_order(order) for cell in cells), strict=True))
        names = [self.constant(f"{output}.W", w_x), self.constant(f"{output}.R", w_h)]
        names.append(self.constant(f"{output}.B", np.concatenate([b_x, b_h], 1)))
        self.node(
            operator, [x, *names, "", *before], [output, *after], hidden_size=cells[0].hidden, direction=direction,
            **attributes,
        )  # fmt: skip

    def model(self, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "network", inputs, outputs, list(self.constants.values()))
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)],
            ir_version=IR_VERSION,
        )


def floats(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _stack_model(network: Network, stack: Stack) -> onnx.ModelProto:
    """Gather -> LSTM or GRU ... -> Gemm."""
    steps, batch, hidden, directions = network.steps, network.batch, stack.hidden, stack.directions
    graph, inputs, outputs = Graph(), [], []
    if stack.embedding is None:
        inputs.append(floats("x", *network.inputs.shape))
    else:
        inputs.append(helper.make_tensor_value_info("ids", TensorProto.INT64, [steps, batch]))
        graph.node("Gather", [graph.constant("table", stack.embedding), "ids"], ["x"])
    x = "x"
    for k, layer in enumerate(stack.layers):
        states = [f"{state}{k}" for state in STATES[stack.kind]]
        inputs += [floats(state, directions, batch, hidden) for state in states]
        after = [f"{state}_next" for state in states]
        outputs += [floats(state, directions, batch, hidden) for state in after]
        graph.recurrent(layer, x, f"y{k}", states, after, "bidirectional" if directions == 2 else "forward")
        last = k == len(stack.layers) - 1 and stack.logits is None
        y = f"y{k}"
        if directions == 2:  # [steps, directions, batch, hidden]: the directions of one step side by side
            graph.node("Transpose", [y], [f"t{k}"], perm=[0, 2, 1, 3])
            y = f"t{k}"
        x = graph.reshape(y, [steps, batch, directions * hidden], "output" if last else f"x{k + 1}")
    width = directions * hidden
    if stack.logits is not None:
        weight, bias = stack.logits
        features = graph.reshape(x, [steps * batch, width], "features")
        names = [graph.constant("logits.weight", weight.T), graph.constant("logits.bias", bias)]
        graph.node("Gemm", [features, *names], ["output"])
        outputs.insert(0, floats("output", steps * batch, len(weight)))
    else:
        outputs.insert(0, floats("output", steps, batch, width))
    return graph.model(inputs, outputs)


class Translation:
    """A float program, operation by operation: sequences are ``[steps * batch, size]``, values inside a loop
    ``[batch, size]``."""

    def __init__(self, network: Network, steps: int, batch: int, bits: int | None = None) -> None:
        self.network, self.program, self.steps, self.batch = network, network.graph, steps, batch
        self.bits = bits
        self.graph = Graph()

    def model(self) -> onnx.ModelProto:
        program, graph = self.program, self.graph
        ((name, value),) = program["inputs"].items()
        rows = self.steps * self.batch
        if self.network.features:
            inputs = [floats(name, rows, *value["shape"])]
        else:
            inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, [rows])]
        sizes = {state: fields["shape"][0] for state, fields in program["states"].items()}
        for item in program["nodes"]:
            if item["op"] == "scan":
                self.scan(item, sizes)
            else:
                self.operation(item, rows)
        graph.node("Identity", [program["outputs"][0]], ["output"])
        width = program["values"][program["outputs"][0]]["shape"][0]
        outputs = [floats("output", rows, width)]
        outputs += [floats(f"{state}.next", self.batch, size) for state, size in sizes.items()]
        inputs += [floats(f"{state}.first", self.batch, size) for state, size in sizes.items()]
        return graph.model(inputs, outputs)

    def scan(self, scan: dict[str, Any], sizes: dict[str, int]) -> None:
        """A loop over time; ``states`` maps a state to its values before and after a step."""
        graph, values = self.graph, self.program["values"]
        if self.steps == 1:
            for inner, outer in scan["sequences"].items():
                graph.node("Identity", [outer], [inner])
            for state, (before, _) in scan["states"].items():
                graph.node("Identity", [f"{state}.first"], [before])
            self.operations(scan["body"], self.batch)
            for outer, inner in scan["outputs"].items():
                graph.node("Identity", [inner], [outer])
            for state, (_, after) in scan["states"].items():
                graph.node("Identity", [after], [f"{state}.next"])
            return
        outer_nodes, graph.nodes = graph.nodes, []
        self.operations(scan["body"], self.batch)
        # Outputs of a loop's body are distinct values, though h is both a state and what is collected.
        carried = [(after, f"{state}.carried", sizes[state]) for state, (_, after) in scan["states"].items()]
        collected = [(inner, f"{outer}.item", values[inner]["shape"][0]) for outer, inner in scan["outputs"].items()]
        for source, target, _ in carried + collected:
            graph.node("Identity", [source], [target])
        body = helper.make_graph(
            graph.nodes, "body",
            [floats(before, self.batch, sizes[state]) for state, (before, _) in scan["states"].items()]
            + [floats(inner, self.batch, values[inner]["shape"][0]) for inner in scan["sequences"]],
            [floats(target, self.batch, size) for _, target, size in carried + collected],
        )  # fmt: skip
        graph.nodes = outer_nodes
        stacked = []
        for inner, outer in scan["sequences"].items():
            shape = [self.steps, self.batch, values[inner]["shape"][0]]
            stacked.append(graph.reshape(outer, shape, f"{inner}.stacked"))
        direction = int(scan["reverse"])
        graph.node(
            "Scan", [f"{state}.first" for state in scan["states"]] + stacked,
            [f"{state}.next" for state in scan["states"]] + [f"{outer}.stacked" for outer in scan["outputs"]],
            body=body, num_scan_inputs=len(stacked), scan_input_directions=[direction] * len(stacked),
            scan_output_directions=[direction] * len(scan["outputs"]),
        )  # fmt: skip
        for outer, inner in scan["outputs"].items():
            graph.reshape(f"{outer}.stacked", [self.steps * self.batch, values[inner]["shape"][0]], outer)

    def operations(self, nodes: list[dict[str, Any]], rows: int) -> None:
        """A loop's body; slices that make up the whole of a value become one Split, any other a Slice each."""
        parts: dict[str, list[dict[str, Any]]] = {}
        for node in nodes:
            if node["op"] == "slice":
                parts.setdefault(node["inputs"][0], []).append(node)
        for node in nodes:
            if node["op"] != "slice":
                self.operation(node, rows)
                continue
            group = parts.pop(node["inputs"][0], [])
            bounds = [(part["attributes"]["start"], part["attributes"]["stop"]) for part in group]
            if not group:
                continue
            width = self.program["values"][node["inputs"][0]]["shape"][0]
            if [start for start, _ in bounds] + [width] != [0] + [stop for _, stop in bounds]:
                for part, ends in zip(group, bounds, strict=True):
                    names = [self.number(number) for number in (*ends, 1)]
                    self.graph.node("Slice", [*part["inputs"], *names], [part["output"]])
                continue
            lengths = np.array([stop - start for start, stop in bounds], np.int64)
            split = self.graph.constant("lengths_" + "_".join(map(str, lengths)), lengths)
            self.graph.node("Split", [node["inputs"][0], split], [part["output"] for part in group], axis=1)

    def operation(self, node: dict[str, Any], rows: int) -> None:
        """One operation on ``[rows, size]``."""
        graph, op, inputs, output = self.graph, node["op"], node["inputs"], node["output"]
        names = node["tensors"]
        if op in ELEMENTWISE:
            graph.node(ELEMENTWISE[op], inputs, [output])
        elif op == "complement":
            graph.node("Sub", [graph.constant("one", np.array(1, np.float32)), *inputs], [output])
        elif op == "embedding":
            graph.node("Gather", [self.tensor(names["table"]), inputs[0]], [output])
        elif op == "linear":
            if self.bits is None:
                weight = graph.constant(names["weight"] + ".transposed", self.network.tensors[names["weight"]].T)
                # Not Gemm, which ONNX Runtime's quantizer overlooks inside of loops; in float it joins the two again.
                graph.node("MatMul", [inputs[0], weight], [f"{output}.product"])
            else:
                self.product_of_few_bits(inputs[0], names["weight"], f"{output}.product", self.bits)
            graph.node("Add", [f"{output}.product", self.tensor(names["bias"])], [output])
        elif op == "concat":
            graph.node("Concat", inputs, [output], axis=1)
        elif op in ("mad_norm", "layer_norm"):
            self.norm(node, rows)
        else:
            raise NotImplementedError(f"the operation {op} has no translation")

    def product_of_few_bits(self, x: str, name: str, output: str, bits: int) -> None:
        """MatMulNBits: a float scale for each 32 columns of a row, by which their largest weight is the lowest integer,
        as ONNX Runtime's own quantizer has it; activations are rounded to 8 bits as it runs, its fastest setting."""
        rows, columns = self.network.tensors[name].shape
        blocks = -(-columns // NBITS_BLOCK)
        weight = np.zeros((rows, blocks * NBITS_BLOCK), np.float32)
        weight[:, :columns] = self.network.tensors[name]
        weight = weight.reshape(rows, blocks, NBITS_BLOCK)
        largest = np.take_along_axis(weight, np.abs(weight).argmax(-1)[..., None], -1)
        middle = 1 << (bits - 1)
        scale = np.where(largest == 0, 1, -largest / middle).astype(np.float32)
        fields = np.clip(np.rint(weight / scale) + middle, 0, 2 * middle - 1).astype(np.uint8)
        in_a_byte = 8 // bits
        places = (bits * np.arange(in_a_byte)).astype(np.uint8)
        packed = np.bitwise_or.reduce(fields.reshape(rows, blocks, -1, in_a_byte) << places, axis=-1)
        names = [
            self.graph.constant(f"{name}.packed", packed),
            self.graph.constant(f"{name}.scales", scale.reshape(-1)),
        ]
        self.graph.node(
            "MatMulNBits", [x, *names], [output], domain=MICROSOFT, K=columns, N=rows, bits=bits,
            block_size=NBITS_BLOCK, accuracy_level=4,
        )  # fmt: skip

    def norm(self, node: dict[str, Any], rows: int) -> None:
        graph, output = self.graph, node["output"]
        groups, epsilon = node["attributes"]["groups"], node["attributes"]["epsilon"]
        size = self.program["values"][output]["shape"][0]
        length = size // groups
        x = graph.reshape(node["inputs"][0], [rows * groups, length], f"{output}.groups")
        normal = f"{output}.normal"
        if node["op"] == "layer_norm":
            ones = graph.constant(f"ones_{length}", np.ones(length, np.float32))
            graph.node("LayerNormalization", [x, ones], [normal], axis=-1, epsilon=epsilon)
        else:
            graph.node("ReduceMean", [x], [f"{output}.mean"], axes=[1])
            graph.node("Sub", [x, f"{output}.mean"], [f"{output}.centred"])
            graph.node("Abs", [f"{output}.centred"], [f"{output}.absolute"])
            graph.node("ReduceMean", [f"{output}.absolute"], [f"{output}.deviation"], axes=[1])
            least = graph.constant(f"epsilon_{epsilon}", np.array(epsilon, np.float32))
            graph.node("Add", [f"{output}.deviation", least], [f"{output}.spread"])
            graph.node("Div", [f"{output}.centred", f"{output}.spread"], [normal])
        flat = graph.reshape(normal, [rows, size], f"{output}.flat")
        graph.node("Mul", [flat, self.tensor(node["tensors"]["gamma"])], [f"{output}.scaled"])
        graph.node("Add", [f"{output}.scaled", self.tensor(node["tensors"]["beta"])], [output])

    def tensor(self, name: str) -> str:
        return self.graph.constant(name, self.network.tensors[name])

    def number(self, value: int) -> str:
        return self.graph.constant(f"number_{value}", np.array([value], np.int64))
