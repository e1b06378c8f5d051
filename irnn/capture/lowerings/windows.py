"""Convolutions with the batch norm behind them folded in, pooling, and what is taken over all of time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from irnn.capture.axes import Sizes
from irnn.capture.edges import Axis, Dimension, Edge, shown
from irnn.capture.forms import Owner
from irnn.capture.lowerings.affine import folded_affine
from irnn.capture.wiring import UnsupportedError, Wiring
from irnn.nn.convolution import FoldedConvolution
from irnn.program.windows import Window


def conv(w: Wiring, input: Edge, module: Any = None, *args: Any, **kwargs: Any) -> Edge:
    """``nn.Conv1d``, ``nn.Conv2d``: accumulators, bands and filters."""
    if not isinstance(module, Owner):
        raise UnsupportedError("is called as a function", "nn.Conv1d or nn.Conv2d")
    owner: Any = w.network.get_submodule(module.path)
    place = _time_place(input)
    _check_inner(w, input)
    norm = _norm_behind(w)
    name = w.module_name(module.path)
    padding = _bordered(owner, input, place) if input.border else None
    part = w.part(name, lambda: FoldedConvolution(owner, norm, time_axis=place - 2, padding=padding))
    t = w.a.convolution(part, w.narrow(input).t)
    dims = _windowed(w, w.features(owner.out_channels))
    return replace(w.edge(t, "sum", dims), inner=_inner(dims), banded=True)


def pad(w: Wiring, input: Edge, pad: Any, mode: str = "constant", value: Any = None) -> Edge:
    """Zeros around ``[batch, channels, ...]``, which the convolution behind takes in."""
    count, given = len(input.dims) - 2, [*pad] if isinstance(pad, (tuple, list)) else [pad] * 2
    if mode != "constant" or value not in (None, 0, 0.0) or len(given) > 2 * count or min(given) < 0 or input.border:
        raise UnsupportedError(f"pads by {pad}, {mode} {value or 0}", "zeros around what a convolution reads")
    readers = {w.plan.steps[k].op for k in w.plan.direct_readers(w.index)}
    if readers != {"conv"} or w.plan.returns(w.index):
        raise UnsupportedError("pads what no convolution reads", "zeros around what a convolution reads")
    pairs = [(given[k], given[k + 1]) for k in range(0, len(given), 2)]
    border = tuple(reversed([*pairs, *[(0, 0)] * (count - len(pairs))]))
    return replace(input, border=border)


def _bordered(conv: Any, input: Edge, place: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding along time and bands: the border's and the convolution's own."""
    if isinstance(conv.padding, str) and conv.padding != "valid":
        raise UnsupportedError("has a border before it and padding='same'", "one of the two")
    own = (0,) * len(input.border) if isinstance(conv.padding, str) else conv.padding
    sides = [(a + p, b + p) for (a, b), p in zip(input.border, own, strict=True)]
    return sides[place - 2], sides[1 - (place - 2)] if len(sides) == 2 else (0, 0)


def _time_place(input: Edge) -> int:
    """Which dimension of ``[batch, channels, ...]`` is time."""
    found = [k for k, dimension in enumerate(input.dims) if input.time is not None and input.time in dimension]
    if not found or found[0] < 2 or len(input.dims[found[0]]) != 1:
        raise UnsupportedError(f"reads {shown(input.dims)}", "[batch, channels, (bands,) time]")
    return found[0]


def _check_inner(w: Wiring, input: Edge) -> None:
    if input.inner != _inner(input.dims):
        raise UnsupportedError(
            f"reads {shown(input.dims)}, whose channels lie outside its bands", "an input, or a convolution before"
        )


def _inner(dims: tuple[Dimension, ...]) -> tuple[Axis, ...]:
    """Bands, then channels: the order in which an executor has them."""
    return (*(a for d in dims[2:] for a in d if a.kind == "size"), *(a for a in dims[1] if a.kind == "size"))


def _windowed(w: Wiring, channels: Axis | None = None, kept: Dimension = ()) -> tuple[Dimension, ...]:
    """The result's dimensions: a shorter time is a time."""
    sizes: list[Sizes] = list(w.step.sizes)
    dims = [w.plan.derived(s) for s in sizes]
    dims[1] = kept if channels is None else (channels,)
    return tuple(dims)


def _norm_behind(w: Wiring) -> Any:
    """The batch norm that alone reads this convolution."""
    reading = w.plan.direct_readers(w.index)
    if len(reading) != 1 or w.plan.steps[reading[0]].op != "batch_norm" or w.plan.returns(w.index):
        return None
    return w.network.get_submodule(w.plan.steps[reading[0]].kwargs["module"].path)


def batch_norm(w: Wiring, input: Edge, module: Any = None, *args: Any, **kwargs: Any) -> Edge:
    """Folded into the convolution before; elsewhere a factor and a summand for each feature."""
    if not isinstance(module, Owner):
        raise UnsupportedError("is called as a function", "nn.BatchNorm1d or nn.BatchNorm2d")
    owner: Any = w.network.get_submodule(module.path)
    if owner.running_mean is None:
        raise UnsupportedError("has no running statistics", "track_running_stats=True")
    if input.banded and w.plan.folds(w.index):
        return input
    return folded_affine(w, input, module.path, isinstance(owner, nn.BatchNorm2d))


def _window(input: Edge, kernel: Any, stride: Any, padding: Any) -> Window:
    """Of a pooling over ``[batch, channels, (bands,) time]``."""
    place, count = _time_place(input) - 2, len(input.dims) - 2
    if count > 2:
        raise UnsupportedError(f"reads {shown(input.dims)}", "[batch, channels, (bands,) time]")

    def pair(value: Any) -> tuple[int, int]:
        values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * count
        return values[place], values[1 - place] if count == 2 else 1

    t, f = pair(padding)
    f = f if count == 2 else 0
    strides = pair(kernel if stride is None else stride)
    return Window(pair(kernel), strides, ((t, t), (f, f)))


def max_pool(
    w: Wiring, input: Edge, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Edge:  # fmt: skip
    """The largest of each window."""
    _check_pool(w, input, ceil_mode)
    if dilation not in (1, (1, 1), (1,)):
        raise UnsupportedError("pools with a dilation", "dilation=1")
    x = w.quantized(input)
    t = w.a.max_pool(_window(x, kernel_size, stride, padding), _channels(x), x.t)
    dims = _windowed(w, kept=x.dims[1])
    return replace(x, t=t, dims=dims, inner=_inner(dims), producer=w.step.name, late={}, time=_time(dims))


def mean_pool(
    w: Wiring, input: Edge, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: Any = None,
) -> Edge:  # fmt: skip
    """The mean of each window: accumulators."""
    _check_pool(w, input, ceil_mode)
    if divisor_override is not None or (not count_include_pad and padding not in (0, (0, 0), (0,))):
        raise UnsupportedError("leaves the border out of its mean", "padding=0")
    x = w.quantized(input)
    t = w.a.mean_pool(_window(x, kernel_size, stride, padding), _channels(x), x.t)
    dims = _windowed(w, kept=x.dims[1])
    return replace(
        x, t=t, form="sum", site=None, dims=dims, inner=_inner(dims), producer=w.step.name, late={}, time=_time(dims)
    )


def _check_pool(w: Wiring, input: Edge, ceil_mode: bool) -> None:
    if ceil_mode:
        raise UnsupportedError("rounds the number of windows up", "ceil_mode=False")
    _check_inner(w, input)


def _channels(x: Edge) -> int:
    count = 1
    for axis in x.dims[1]:
        count *= axis.sizes[0]
    return count


def _time(dims: tuple[Dimension, ...]) -> Axis | None:
    return next((axis for dimension in dims for axis in dimension if axis.kind == "time"), None)


def mean(w: Wiring, input: Edge, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Edge:
    """Over time: accumulators."""
    return _over_time(w, input, dim, keepdim, "time_mean")


def amax(w: Wiring, input: Edge, dim: Any = None, keepdim: bool = False) -> Edge:
    """Over time."""
    return _over_time(w, input, dim, keepdim, "time_max")


def maximum(w: Wiring, input: Edge, dim: Any = None, keepdim: bool = False) -> tuple[Edge, None]:
    """``torch.max`` over time; where it was is not known."""
    return amax(w, input, dim, keepdim), None


def _over_time(w: Wiring, input: Edge, dim: Any, keepdim: bool, word: str) -> Edge:
    chosen = dim[0] if isinstance(dim, (tuple, list)) and len(dim) == 1 else dim
    if not isinstance(chosen, int) or input.dims[chosen] != (input.time,) or input.time is None:
        what = "everything" if dim is None else shown([input.dims[chosen]]) if isinstance(chosen, int) else str(dim)
        raise UnsupportedError(f"is taken over {what}", "over time alone")
    x = w.quantized(input)
    t = getattr(w.a, word)(x.t)
    dims = list(x.dims)
    dims[chosen : chosen % len(dims) + 1] = [()] if keepdim else []
    y = replace(x, t=t, dims=tuple(dims), producer=w.step.name, late={}, time=None, lengths=None)
    return replace(y, form="sum", site=None) if word == "time_mean" else y


def adaptive(word: str) -> Callable[..., Edge]:
    """Pooling to one step: over all of time."""

    def pool(w: Wiring, input: Edge, output_size: Any) -> Edge:
        if output_size not in (1, (1,)) or len(input.dims) != 3:
            raise UnsupportedError(f"pools to {output_size} steps", "one step, or windows of a fixed size")
        return _over_time(w, input, 2, True, word)

    return pool


OPERATIONS: dict[str, Callable[..., Any]] = {
    "conv": conv, "pad": pad, "batch_norm": batch_norm, "max_pool": max_pool, "mean_pool": mean_pool,
    "mean": mean, "amax": amax, "max": maximum, "adaptive_mean": adaptive("time_mean"),
    "adaptive_max": adaptive("time_max"),
}  # fmt: skip
