"""ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from peer_network import Network
from peer_serving import Runtime, quicker

# What the quantizer must leave nothing of where a constant is multiplied.
PRODUCTS = ("MatMul", "Gemm", "Conv", "LSTM", "GRU", "RNN")


def load_onnxruntime(network: Network, *, int8: bool = False, bits: int | None = None) -> Runtime:
    """ONNX Runtime in float, with dynamically quantized int8 weights, or with weights of 4 or 2 ``bits`` in its
    MatMulNBits; ``run`` or I/O binding, whichever is faster.

    The quantizer of int8 knows products and the LSTM, but no GRU or RNN, MatMulNBits is a product: they are written
    operation by operation.
    """
    import onnx
    import onnxruntime as ort
    from peer_onnx import feed, onnx_model
    from peer_onnx_parts import parts_feed, parts_model

    parts = isinstance(network.inputs, dict)
    if parts and bits is not None:
        raise NotImplementedError("its model with weights of few bits is set up for networks with one input")
    layers = network.stack is not None
    by_operations = layers and (bits is not None or (int8 and network.stack.kind != "lstm"))
    path = network.folder / f"onnxruntime_{bits or ('int8' if int8 else 'fp32')}.onnx"
    model = parts_model(network) if parts else onnx_model(network, operators=not by_operations, bits=bits)
    onnx.save(model, path)
    if int8:
        _quantize(path)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = (parts_feed if parts else feed)(model, network)
    outputs = [np.zeros(o.shape, np.float32) for o in session.get_outputs()]
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    for description, array in zip(session.get_outputs(), outputs, strict=True):
        binding.bind_output(description.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def bound() -> list[np.ndarray]:
        session.run_with_iobinding(binding)
        return outputs

    setting, call = quicker({"run": lambda: session.run(None, inputs), "I/O binding": bound})
    if by_operations:
        setting += f", {network.stack.kind.upper()} by its operations"
    compared = (lambda output: output) if parts else network.batch_first
    return Runtime(
        call, {"onnxruntime": ort.__version__, "onnx": onnx.__version__}, setting, keep=inputs, compared=compared
    )


def _quantize(path: Path) -> None:
    """The model with int8 weights, activations quantized as it runs; refused where a product stays in float."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(path, path, weight_type=QuantType.QInt8, extra_options={"EnableSubgraph": True})
    graph = onnx.load(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    left = sorted(
        {node.op_type for node in _nodes(graph) if node.op_type in PRODUCTS and constants & set(node.input[1:])}
    )
    if left:
        raise NotImplementedError(f"its quantizer leaves {', '.join(left)} in float")


def _nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of its loops' bodies."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)
