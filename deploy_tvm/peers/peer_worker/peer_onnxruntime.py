"""ONNX Runtime."""

from __future__ import annotations

import numpy as np
from peer_network import Network
from peer_serving import Runtime, quicker


def load_onnxruntime(network: Network, *, int8: bool) -> Runtime:
    """ONNX Runtime, float or with dynamically quantized int8 weights; ``run`` or I/O binding, whichever is faster."""
    import onnx
    import onnxruntime as ort
    from peer_onnx import feed, onnx_model
    from peer_onnx_parts import parts_feed, parts_model

    parts = isinstance(network.inputs, dict)
    path = network.folder / f"onnxruntime_{'int8' if int8 else 'fp32'}.onnx"
    model = parts_model(network) if parts else onnx_model(network)
    onnx.save(model, path)
    if int8:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(path, path, weight_type=QuantType.QInt8)
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
    return Runtime(call, {"onnxruntime": ort.__version__, "onnx": onnx.__version__}, setting, keep=inputs)
