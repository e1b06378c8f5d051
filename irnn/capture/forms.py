"""One name for every operation, whichever of module, function and method the network calls it by.

``OPERATIONS`` in ``irnn.capture.lowerings`` says under that name what it is in an executor's words.  Arguments are
those of torch's function: a module becomes its function, with its parameters as :class:`Held`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from irnn.capture.loops import CELLS
from irnn.capture.trace import RECURRENT, Call
from irnn.nn.torch_interface.parameters import TorchParameters


@dataclass(frozen=True)
class Held:
    """A parameter or buffer of the network, by its path."""

    path: str
    turned: bool = False  # rows and columns exchanged


@dataclass(frozen=True)
class Owner:
    """A module of the network, by its path."""

    path: str


FUNCTIONS: dict[Any, str] = {
    torch.relu: "relu", F.relu: "relu", torch.relu_: "relu", F.relu_: "relu",
    torch.sigmoid: "sigmoid", F.sigmoid: "sigmoid", torch.tanh: "tanh", F.tanh: "tanh",
    F.silu: "silu", F.glu: "glu", F.hardsigmoid: "hardsigmoid", F.hardswish: "hardswish", F.leaky_relu: "leaky_relu",
    F.gelu: "gelu", F.softplus: "softplus", F.elu: "elu", F.celu: "celu", F.selu: "selu", F.mish: "mish",
    torch.celu: "celu", torch.selu: "selu", F.softsign: "softsign", F.logsigmoid: "log_sigmoid", F.prelu: "prelu",
    torch.prelu: "prelu", torch.exp: "growth", torch.abs: "abs", operator.abs: "abs", torch.square: "square",
    torch.pow: "pow", operator.pow: "pow", F.pad: "pad", F.relu6: "relu6", F.hardtanh: "hardtanh",
    torch.clamp: "clamp", torch.clip: "clamp",
    torch.add: "add", operator.add: "add", operator.iadd: "add",
    torch.sub: "sub", operator.sub: "sub", operator.isub: "sub",
    torch.mul: "mul", operator.mul: "mul", operator.imul: "mul", torch.multiply: "mul",
    torch.div: "div", operator.truediv: "div", operator.itruediv: "div",
    operator.getitem: "getitem", getattr: "getattr",
    torch.cat: "cat", torch.concat: "cat", torch.stack: "stack", torch.chunk: "chunk", torch.split: "split",
    torch.unbind: "unbind",
    torch.transpose: "transpose", torch.permute: "permute", torch.reshape: "reshape", torch.flatten: "flatten",
    torch.squeeze: "squeeze", torch.unsqueeze: "unsqueeze", torch.narrow: "narrow", torch.select: "select",
    F.dropout: "dropout", torch.dropout: "dropout", F.log_softmax: "log_softmax", F.softmax: "softmax",
    torch.log_softmax: "log_softmax", torch.softmax: "softmax",
    torch.neg: "neg", operator.neg: "neg", torch.mean: "mean", torch.max: "max", torch.amax: "amax",
    torch.sum: "sum", torch.matmul: "matmul", torch.bmm: "matmul", operator.matmul: "matmul", torch.mm: "matmul",
    torch.einsum: "einsum", torch.functional.einsum: "einsum", F.one_hot: "one_hot", torch.lt: "lt", operator.lt: "lt",
    torch.gt: "gt", operator.gt: "gt", torch.le: "le", operator.le: "le", torch.ge: "ge", operator.ge: "ge",
    torch.eq: "eq", operator.eq: "eq", operator.invert: "invert", torch.logical_not: "invert",
    torch.masked_fill: "masked_fill", torch.gather: "gather", torch.zeros_like: "zeros", F.linear: "linear",
    F.embedding: "embedding", F.layer_norm: "layer_norm",
    F.conv1d: "conv", F.conv2d: "conv", torch.conv1d: "conv", torch.conv2d: "conv",
    F.max_pool1d: "max_pool", F.max_pool2d: "max_pool", F.avg_pool1d: "mean_pool", F.avg_pool2d: "mean_pool",
    torch.max_pool1d: "max_pool", torch.max_pool2d: "max_pool", torch.avg_pool1d: "mean_pool",
    F.adaptive_avg_pool1d: "adaptive_mean", F.adaptive_max_pool1d: "adaptive_max",
    pack_padded_sequence: "pack", pad_packed_sequence: "unpack",
}  # fmt: skip

SAME_NAME = (
    "relu", "sigmoid", "tanh", "clamp", "add", "sub", "mul", "div", "chunk", "split", "unbind", "transpose", "permute",
    "reshape", "flatten", "squeeze", "unsqueeze", "narrow", "select", "log_softmax", "softmax", "mean", "max", "amax",
    "expand", "repeat", "unflatten", "neg", "abs", "square", "pow",
    "sum", "matmul", "masked_fill", "gather", "lt", "gt", "le", "ge", "eq",
)  # fmt: skip
UNCHANGED = ("contiguous", "clone", "detach", "cpu", "cuda", "to", "float", "type_as", "int", "long", "bool")
METHODS: dict[str, str] = {
    **{name: name for name in SAME_NAME},
    **dict.fromkeys(UNCHANGED, "same"),
    "relu_": "relu", "sigmoid_": "sigmoid", "tanh_": "tanh", "clip": "clamp", "view": "reshape",
    "swapaxes": "transpose", "expand_as": "expand", "view_as": "reshape", "reshape_as": "reshape",
    "bmm": "matmul", "mm": "matmul", "logical_not": "invert", "exp": "growth", "absolute": "abs",
    "__getitem__": "getitem", "add_": "add", "sub_": "sub", "mul_": "mul", "div_": "div", "t": "transpose_2",
    "new_zeros": "zeros",
}  # fmt: skip


def _dropout(m: Any) -> dict[str, Any]:
    return {"module": Owner("")}


def _none(m: Any) -> dict[str, Any]:
    return {}


def _held(*names: str) -> Callable[[Any], dict[str, Any]]:
    return lambda m: {name: Held(name) if getattr(m, name, None) is not None else None for name in names}


MODULES: dict[type[nn.Module], tuple[str, Callable[[Any], dict[str, Any]]]] = {
    nn.Linear: ("linear", _held("weight", "bias")),
    nn.Embedding: ("embedding", _held("weight")),
    nn.LayerNorm: (
        "layer_norm",
        lambda m: {"normalized_shape": m.normalized_shape, "eps": m.eps} | _held("weight", "bias")(m),
    ),
    nn.Conv1d: ("conv", lambda m: {"module": Owner("")}),
    nn.Conv2d: ("conv", lambda m: {"module": Owner("")}),
    nn.BatchNorm1d: ("batch_norm", lambda m: {"module": Owner("")}),
    nn.BatchNorm2d: ("batch_norm", lambda m: {"module": Owner("")}),
    nn.MaxPool1d: ("max_pool", lambda m: _pool(m, "dilation")),
    nn.MaxPool2d: ("max_pool", lambda m: _pool(m, "dilation")),
    nn.AvgPool1d: ("mean_pool", lambda m: _pool(m, "count_include_pad")),
    nn.AvgPool2d: ("mean_pool", lambda m: _pool(m, "count_include_pad")),
    nn.AdaptiveAvgPool1d: ("adaptive_mean", lambda m: {"output_size": m.output_size}),
    nn.AdaptiveMaxPool1d: ("adaptive_max", lambda m: {"output_size": m.output_size}),
    nn.ReLU: ("relu", _none), nn.Sigmoid: ("sigmoid", _none), nn.Tanh: ("tanh", _none), nn.ReLU6: ("relu6", _none),
    nn.SiLU: ("silu", _none), nn.GLU: ("glu", lambda m: {"dim": m.dim}), nn.Hardsigmoid: ("hardsigmoid", _none),
    nn.Hardswish: ("hardswish", _none), nn.LeakyReLU: ("leaky_relu", lambda m: {"negative_slope": m.negative_slope}),
    nn.GELU: ("gelu", lambda m: {"approximate": m.approximate}), nn.Mish: ("mish", _none),
    nn.Softplus: ("softplus", lambda m: {"beta": m.beta, "threshold": m.threshold}), nn.SELU: ("selu", _none),
    nn.ELU: ("elu", lambda m: {"alpha": m.alpha}), nn.CELU: ("celu", lambda m: {"alpha": m.alpha}),
    nn.Softsign: ("softsign", _none), nn.LogSigmoid: ("log_sigmoid", _none), nn.PReLU: ("prelu", _held("weight")),
    nn.ConstantPad1d: ("pad", lambda m: {"pad": m.padding, "value": m.value}),
    nn.ZeroPad1d: ("pad", lambda m: {"pad": m.padding}), nn.ZeroPad2d: ("pad", lambda m: {"pad": m.padding}),
    nn.Hardtanh: ("hardtanh", lambda m: {"min_val": m.min_val, "max_val": m.max_val}),
    nn.Identity: ("same", _none), nn.Dropout: ("dropout", _dropout), nn.Dropout1d: ("dropout", _dropout),
    nn.Dropout2d: ("dropout", _dropout), nn.AlphaDropout: ("dropout", _dropout),
    nn.Flatten: ("flatten", lambda m: {"start_dim": m.start_dim, "end_dim": m.end_dim}),
    nn.LogSoftmax: ("log_softmax", lambda m: {"dim": m.dim}), nn.Softmax: ("softmax", lambda m: {"dim": m.dim}),
}  # fmt: skip


def _pool(m: Any, option: str) -> dict[str, Any]:
    return {
        "kernel_size": m.kernel_size, "stride": m.stride, "padding": m.padding, "ceil_mode": m.ceil_mode,
        option: getattr(m, option),
    }  # fmt: skip


def normalize(call: Call, network: nn.Module) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """(name, args, kwargs) of a call; a name that no table has is torch's own."""
    if call.kind == "call_module":
        module = network.get_submodule(call.target)
        rolled = isinstance(module, CELLS) and call.value[0].dim() == 3
        if rolled or isinstance(module, (*RECURRENT, TorchParameters)):
            return "recurrent", call.args, call.kwargs | {"module": Owner(call.target)}
        for kind in type(module).__mro__:
            if kind in MODULES:
                name, arguments = MODULES[kind]
                return name, call.args, call.kwargs | _placed(arguments(module), call.target)
        return type(module).__name__, call.args, call.kwargs
    if call.kind == "call_method":
        return METHODS.get(call.target, call.target), call.args, call.kwargs
    if call.kind == "call_function":
        name = getattr(call.target, "__name__", str(call.target))
        return FUNCTIONS.get(call.target, name), call.args, call.kwargs
    return call.kind, (call.target,), {}


def _placed(arguments: dict[str, Any], path: str) -> dict[str, Any]:
    """The module's own names under its path."""
    found = {}
    for name, value in arguments.items():
        if isinstance(value, Held):
            value = Held(f"{path}.{value.path}")
        elif isinstance(value, Owner):
            value = Owner(path)
        found[name] = value
    return found
