"""PyTorch."""

from __future__ import annotations

import numpy as np
from peer_network import Network
from peer_serving import Runtime


def load_torch(network: Network, *, int8: bool) -> Runtime:
    """``torch.nn.LSTM`` in inference mode, float or dynamically quantized."""
    import torch

    stack = network.plain_layers()
    torch.set_num_threads(1)
    size, hidden, layers = network.inputs.shape[-1], stack.hidden, len(stack.layers)
    model = torch.nn.LSTM(size, hidden, layers, bidirectional=stack.directions == 2).eval()
    state_dict = {}
    for k, layer in enumerate(stack.layers):
        for suffix, (w_x, w_h, bias) in zip(("", "_reverse"), layer, strict=False):
            arrays = {"weight_ih": w_x, "weight_hh": w_h, "bias_ih": bias, "bias_hh": 0 * bias}
            state_dict |= {f"{name}_l{k}{suffix}": torch.from_numpy(array.copy()) for name, array in arrays.items()}
    model.load_state_dict(state_dict)
    if int8:
        # quantize_dynamic replaces children, never the module that it is given.
        parent = torch.nn.Sequential(model)
        (model,) = torch.ao.quantization.quantize_dynamic(parent, {torch.nn.LSTM}, dtype=torch.qint8)
    state = np.zeros((layers * stack.directions, 1, hidden), np.float32)

    def call() -> list[np.ndarray]:
        with torch.inference_mode():
            x, h, c = (torch.from_numpy(array) for array in (network.inputs, state, state))
            y, (h, c) = model(x, (h, c))
            return [y.numpy(), h.numpy(), c.numpy()]

    return Runtime(call, {"torch": torch.__version__})
