"""Runs a network once on shapes alone and writes down its operations: torch.fx with proxies that know their values.

Nothing is computed: a copy of the network has meta tensors for parameters, so that networks of any size are traced in
an instant and the network itself is never touched.  Questions that Python asks about shapes (``len``,
``range(x.size(1))``, ``if x.dim() == 2``) have their answers; questions about numbers have none.
"""

from __future__ import annotations

import copy
import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree as pytree

from irnn.errors import IrnnError
from irnn.nn.torch_interface.parameters import TorchParameters

PACKING = (pack_padded_sequence, pad_packed_sequence)
RECURRENT = (nn.LSTM, nn.GRU, nn.RNN)
OWN_FOLDERS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
PROBLEMS_MAX = 20  # of one trace
MOVES = ("cpu", "cuda", "detach")  # methods that leave values and shapes as they are


class NumbersAskedError(Exception):
    """The trace cannot go on: the network asks for numbers; the message says where."""


class Packed:
    """What ``pack_padded_sequence`` gives, for shapes: the padded sequence ``x`` and whether the batch comes first."""

    def __init__(self, x: Tensor, *, batch_first: bool) -> None:
        self.x, self.batch_first = x, batch_first


class Fields:
    """A dataclass that a network returns, as its fields by their names."""

    def __init__(self, kind: type, values: dict[str, Any]) -> None:
        self.kind, self.values = kind, values


@dataclass(frozen=True)
class Reference:
    """The value of an earlier call, by its place in the list of calls."""

    index: int


@dataclass
class Call:
    """One operation.  ``kind`` and ``target`` are those of a ``torch.fx.Node``; arguments hold :class:`Reference`."""

    kind: str
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    name: str
    path: str  # of the module in whose forward it stands, or of the module itself
    where: str  # file:line
    value: Any = None  # meta tensors in the structure of the result


@dataclass
class Example:
    """Arguments of ``forward`` as one flat list of leaves, of which the tensors are inputs."""

    leaves: list[Any]
    structure: pytree.TreeSpec
    names: list[str]

    @property
    def tensors(self) -> list[int]:
        """Places of the leaves that are tensors."""
        return [k for k, leaf in enumerate(self.leaves) if isinstance(leaf, Tensor)]

    def with_sizes(self, changes: Mapping[tuple[int, int], int]) -> Example:
        """The same with other sizes, ``(leaf, dimension) -> size``, as meta tensors."""
        leaves = []
        for k, leaf in enumerate(self.leaves):
            if isinstance(leaf, Tensor):
                shape = [changes.get((k, d), size) for d, size in enumerate(leaf.shape)]
                leaf = torch.empty(shape, dtype=leaf.dtype, device="meta")
            leaves.append(leaf)
        return Example(leaves, self.structure, self.names)


@dataclass
class Trace:
    """What one run has done: its calls, the constants that it made, the structure of what it returned."""

    calls: list[Call]
    constants: dict[str, Tensor] = field(default_factory=dict)
    output: Any = None  # leaves are Reference or constants
    problems: list[tuple[str, str, str]] = field(default_factory=list)  # (path, where, reason)

    @property
    def signature(self) -> list[tuple[str, str]]:
        """Equal for runs that did the same."""
        return [(call.kind, str(call.target)) for call in self.calls]


class ShapeProxy(fx.Proxy):
    """Stands for a tensor (or a tuple of them): everything about its shape is known, and is a plain Python value."""

    tracer: ShapeTracer

    @property
    def _value(self) -> Any:
        return self.tracer.values[self.node]

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._value, name)
        if name == "device":
            return torch.device("cpu")
        if callable(attribute):
            return fx.proxy.Attribute(self, name)
        if _holds_tensor(attribute):
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        return attribute

    def __len__(self) -> int:
        return len(self._value)

    def __iter__(self) -> Any:
        return iter(
            [self.tracer.create_proxy("call_function", operator.getitem, (self, k), {}) for k in range(len(self))]
        )

    def __index__(self) -> int:
        self.tracer.note("asks for the number in a tensor")
        return 1

    __int__ = __float__ = __index__


class ShapeTracer(fx.Tracer):
    """Traces ``root``, a :func:`shadow`; modules of torch and of irnn are one call each."""

    proxy_buffer_attributes = True

    def __init__(self, example: Example) -> None:
        super().__init__(autowrap_functions=PACKING)
        self._autowrap_search.append(torch.nn.utils.rnn)
        self.example = example
        self.values: dict[fx.Node, Any] = {}
        self.constants: dict[str, Tensor] = {}
        self.places: dict[fx.Node, tuple[str, str]] = {}
        self.problems: list[tuple[str, str, str]] = []  # (path, where, reason)
        self._inside = False  # a leaf is being evaluated

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            return False
        return isinstance(m, TorchParameters) or type(m).forward.__module__.startswith("torch.nn.")

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        leaves = [
            self.create_proxy("placeholder", name, (), {}) if isinstance(leaf, Tensor) else leaf
            for leaf, name in zip(self.example.leaves, self.example.names, strict=True)
        ]
        args, kwargs = pytree.tree_unflatten(leaves, self.example.structure)
        return (lambda root: root_fn(root, *args, **kwargs)), [self.root]

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return ShapeProxy(node, self)

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, name: Any = None, type_expr: Any = None, *rest: Any
    ) -> Any:
        """A plain value where no tensor is in it: sizes are none of the network's operations."""
        value = self._evaluate(kind, target, args, kwargs)
        if kind in ("call_function", "call_method") and not _holds_tensor(value):
            return value
        proxy = super().create_proxy(kind, target, args, kwargs, name, type_expr, *rest)
        self.values[proxy.node] = value
        return proxy

    def create_node(self, kind: str, target: Any, *rest: Any, **more: Any) -> fx.Node:
        node = super().create_node(kind, target, *rest, **more)
        self.places[node] = (self.scope.module_path, self.where())
        return node

    def create_arg(self, a: Any) -> Any:
        """A tensor that is neither an input nor a parameter becomes a constant of the trace."""
        if isinstance(a, tuple) and hasattr(a, "_fields"):
            return type(a)(*[self.create_arg(part) for part in a])
        if is_dataclass(a) and not isinstance(a, type):
            values = {f.name: self.create_arg(getattr(a, f.name)) for f in fields(a)}
            return Fields(type(a), values)
        if isinstance(a, Tensor):
            held = [*self.root.named_parameters(), *self.root.named_buffers()]
            named = next((name for name, tensor in held if tensor is a), None)
            name = f"constant_{len(self.constants)}" if named is None else named
            node = self.create_node("get_attr", name, (), {})
            if named is None:
                self.constants[name] = a
            self.values[node] = a.to("meta")
            return node
        return super().create_arg(a)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._inside else super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self._inside else super().call_module(m, forward, args, kwargs)

    def to_bool(self, obj: fx.Proxy) -> bool:
        self.note("decides on the numbers in a tensor; no one program holds both cases")
        return False

    def note(self, reason: str) -> None:
        """A problem that the trace can go on behind, as if there were none, to find the others."""
        self.problems.append((self.scope.module_path, self.where(), reason))
        if len(self.problems) > PROBLEMS_MAX:
            raise NumbersAskedError(f"{self.where()}: {reason}, again and again")

    def keys(self, obj: fx.Proxy) -> Any:
        return self.values[obj.node].keys()

    def where(self) -> str:
        """file:line of the user's statement that is being executed."""
        frame = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.startswith(OWN_FOLDERS):
            frame = frame.f_back  # type: ignore[assignment]
        return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"

    def _evaluate(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "placeholder":
            leaf = self.example.leaves[self.example.names.index(target)]
            return torch.empty_like(leaf, device="meta")
        if kind == "get_attr":
            return self._held(target)
        args, kwargs = mapped(
            (tuple(args), dict(kwargs)), lambda a: self.values[a.node] if isinstance(a, fx.Proxy) else _to_meta(a)
        )
        self._inside = True
        try:
            with torch.no_grad():
                value = self._result(kind, target, args, kwargs)
                return mapped(value, _to_meta) if type(value) in (tuple, list, dict, torch.Tensor) else value
        except (NotImplementedError, RuntimeError) as error:
            if "meta" not in str(error):
                raise
            raise NumbersAskedError(f"{self.where()}: {_called(target)} asks for the numbers in a tensor") from None
        finally:
            self._inside = False

    def _held(self, path: str) -> Tensor:
        """A parameter or buffer, on meta."""
        owner, _, name = path.rpartition(".")
        before, self._inside = self._inside, True
        try:
            found: Tensor = getattr(self.root.get_submodule(owner), name)
            return found.detach()
        finally:
            self._inside = before

    def _result(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "call_module":
            module = self.root.get_submodule(target)
            if isinstance(module, (*RECURRENT, TorchParameters)):
                return _recurrent_shapes(module, *args, **kwargs)
            return module.forward(*args, **kwargs)
        if kind == "call_method":
            if target in MOVES:
                return args[0]
            if target == "to":
                types = [a for a in (*args[1:], *kwargs.values()) if isinstance(a, torch.dtype)]
                return args[0].to(types[0]) if types else args[0]
            return getattr(args[0], target)(*args[1:], **kwargs)
        if target is pack_padded_sequence:
            return Packed(args[0], batch_first=kwargs.get("batch_first", False))
        if target is pad_packed_sequence:
            return _unpacked(*args, **kwargs)
        return target(*args, **kwargs)


def mapped(structure: Any, function: Callable[[Any], Any]) -> Any:
    """The structure (tuples, lists, dicts, slices, :class:`Fields`) with the function's value in place of each leaf."""

    def leaf(value: Any) -> Any:
        if isinstance(value, Fields):
            return Fields(value.kind, {name: mapped(part, function) for name, part in value.values.items()})
        return function(value)

    return fx.node.map_aggregate(structure, leaf)


def returned(structure: Any) -> Any:
    """What a network returns: its own dataclasses, and dicts and lists that can be changed (not those of torch.fx)."""
    if isinstance(structure, Fields):
        return structure.kind(**{name: returned(part) for name, part in structure.values.items()})
    if isinstance(structure, dict):
        return {name: returned(part) for name, part in structure.items()}
    if isinstance(structure, list):
        return [returned(part) for part in structure]
    if isinstance(structure, tuple):
        parts = [returned(part) for part in structure]
        return type(structure)(*parts) if hasattr(structure, "_fields") else tuple(parts)
    return structure


def shadow(network: nn.Module, *, training: bool = False) -> nn.Module:
    """A copy, in evaluation mode or for training, whose parameters and buffers are meta tensors: it takes no memory."""
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    for buffer in network.buffers():
        memo[id(buffer)] = buffer.detach().to("meta")
    try:
        return copy.deepcopy(network, memo).train(training)
    except Exception as error:
        raise IrnnError(
            f"{type(network).__name__} cannot be copied ({error}); keep only parameters and numbers in it"
        ) from error


def trace(network: nn.Module, example: Example, *, training: bool = False) -> Trace:
    """The calls of one forward pass; :class:`NumbersAskedError` where it asks for numbers."""
    tracer = ShapeTracer(example)
    root = shadow(network, training=training)
    graph = tracer.trace(root)
    places: dict[fx.Node, int] = {}
    calls: list[Call] = []
    output = None
    for node in graph.nodes:
        args, kwargs = mapped((node.args, node.kwargs), lambda n: Reference(places[n]) if isinstance(n, fx.Node) else n)
        if node.op == "output":
            output = args[0]
            continue
        path, where = tracer.places[node]
        if node.op == "call_module":
            path = str(node.target)
        places[node] = len(calls)
        calls.append(Call(node.op, node.target, args, dict(kwargs), node.name, path, where, tracer.values[node]))
    return Trace(calls, tracer.constants, output, tracer.problems)


def _recurrent_shapes(module: Any, x: Any, hx: Any = None) -> Any:
    """Shapes of what a recurrent module of torch or irnn gives, without its loop over time."""
    packed = x if isinstance(x, Packed) else None
    given = x if packed is None else packed.x
    if given.shape[-1] != module.input_size:
        raise RuntimeError(f"input has the size {given.shape[-1]}, not {module.input_size}")
    batch_first = packed.batch_first if packed is not None else module.batch_first
    directions = 2 if module.bidirectional else 1
    size = getattr(module, "proj_size", 0) or module.hidden_size
    batch = () if given.dim() == 2 else (given.shape[0 if batch_first else 1],)
    y = given.new_empty(*given.shape[:-1], directions * size)
    h = given.new_empty(module.num_layers * directions, *batch, size)
    c = given.new_empty(module.num_layers * directions, *batch, module.hidden_size)
    state = (h, c) if module.mode == "LSTM" else h
    parts = hx if isinstance(hx, tuple) else () if hx is None else (hx,)
    for part, wanted in zip(parts, (h, c), strict=False):
        if tuple(part.shape) != tuple(wanted.shape):
            raise RuntimeError(f"a state has the shape {tuple(part.shape)}, not {tuple(wanted.shape)}")
    return (y if packed is None else Packed(y, batch_first=batch_first)), state


def _unpacked(packed: Packed, batch_first: bool = False, padding_value: float = 0.0, total_length: Any = None) -> Any:
    x = packed.x if batch_first == packed.batch_first else packed.x.transpose(0, 1)
    return x, torch.empty(x.shape[0 if batch_first else 1], dtype=torch.int64, device="meta")


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_holds_tensor, value))
    if isinstance(value, dict):
        return any(map(_holds_tensor, value.values()))
    return isinstance(value, (Tensor, Packed))


def _to_meta(value: Any) -> Any:
    return value.detach().to("meta") if isinstance(value, Tensor) else value


def _called(target: Any) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))
