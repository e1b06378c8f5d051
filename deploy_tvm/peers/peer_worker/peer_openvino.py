"""OpenVINO."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
from peer_network import Network
from peer_serving import Runtime


def load_openvino(network: Network, *, kind: str) -> Runtime:
    """OpenVINO with float32 or bfloat16 arithmetic, or after NNCF's int8 post-training quantization."""
    import onnx
    import openvino as ov
    from peer_onnx import feed, onnx_model

    path = network.folder / f"openvino_{kind}.onnx"
    exported = onnx_model(network)
    onnx.save(exported, path)
    core = ov.Core()
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": 1})
    model, versions = core.read_model(path), {"openvino": version("openvino")}
    hint = {"INFERENCE_PRECISION_HINT": "bf16" if kind == "bf16" else "f32"}
    inputs = feed(exported, network)
    if kind == "nncf_int8":
        import nncf

        rng = np.random.default_rng(1)
        noise = [{n: rng.standard_normal(a.shape).astype(np.float32) for n, a in inputs.items()} for _ in range(20)]
        model, versions["nncf"] = nncf.quantize(model, nncf.Dataset(noise), subset_size=20), nncf.__version__
        _refuse_float_layers(model)
    request = core.compile_model(model, "CPU", hint).create_infer_request()
    tensors = {name: ov.Tensor(array, shared_memory=True) for name, array in inputs.items()}
    for name, tensor in tensors.items():
        request.set_tensor(name, tensor)

    def call() -> list[np.ndarray]:
        request.infer(share_inputs=True)
        return [request.get_output_tensor(k).data for k in range(len(request.model_outputs))]

    return Runtime(call, versions, "shared memory", keep=(inputs, tensors), compared=network.batch_first)


def _refuse_float_layers(model: Any) -> None:
    """NNCF passes over a GRU whose reset gate multiplies ``W_hn h + b_hn``: its weights are bare constants still."""
    for operator in model.get_ops():
        kind = operator.get_type_name()
        if kind.endswith("Sequence"):
            weight = operator.input_value(operator.get_input_size() - 3).get_node()  # W, R, B come last
            if weight.get_type_name() == "Constant":
                raise NotImplementedError(f"NNCF leaves the layer ({kind}, with torch's reset gate) in float")
