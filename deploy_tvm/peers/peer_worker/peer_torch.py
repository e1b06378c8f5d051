"""PyTorch."""

from __future__ import annotations

import numpy as np
from peer_network import STATES, Network
from peer_serving import Runtime


def load_torch(network: Network, *, int8: bool) -> Runtime:
    """``torch.nn.LSTM``, ``GRU`` or ``RNN`` in inference mode, float or dynamically quantized."""
    import torch

    stack = network.plain_layers()
    torch.set_num_threads(1)
    size, hidden, layers = network.inputs.shape[-1], stack.hidden, len(stack.layers)
    layer_class = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[stack.kind]
    if int8 and stack.kind == "rnn":
        raise NotImplementedError("PyTorch quantizes no RNN as it runs")
    more = {"nonlinearity": "relu"} if stack.kind == "rnn" else {}
    model = layer_class(size, hidden, layers, bidirectional=stack.directions == 2, **more).eval()
    state_dict: dict[str, torch.Tensor] = {}
    for k, layer in enumerate(stack.layers):
        for suffix, cell in zip(("", "_reverse"), layer, strict=False):
            arrays = {"weight_ih": cell.w_x, "weight_hh": cell.w_h, "bias_ih": cell.b_x, "bias_hh": cell.b_h}
            state_dict |= {f"{name}_l{k}{suffix}": torch.from_numpy(array.copy()) for name, array in arrays.items()}
    model.load_state_dict(state_dict)
    if int8:
        # quantize_dynamic replaces children, never the module that it is given.
        parent = torch.nn.Sequential(model)
        (model,) = torch.ao.quantization.quantize_dynamic(parent, {layer_class}, dtype=torch.qint8)
    zeros = np.zeros((layers * stack.directions, network.batch, hidden), np.float32)

    def call() -> list[np.ndarray]:
        with torch.inference_mode():
            x, *states = (torch.from_numpy(array) for array in (network.inputs, *[zeros] * len(STATES[stack.kind])))
            # A GRU takes and gives its one state as it is, an LSTM a tuple.
            y, after = model(x, tuple(states) if len(states) > 1 else states[0])
            return [y.numpy(), *(state.numpy() for state in (after if isinstance(after, tuple) else (after,)))]

    return Runtime(call, {"torch": torch.__version__}, compared=network.batch_first)
