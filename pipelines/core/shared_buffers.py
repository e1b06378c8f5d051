"""What processes that train together share besides gradients: observed ranges and batch statistics."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from irnn.nn.convolution import Convolution
from irnn.quant.site import QuantSite


@torch.no_grad()
def join_ranges(model: nn.Module) -> None:
    """Every observing site takes the widest of the processes' ranges.

    With the minimum and maximum observed, that is bit for bit the range that one process would have from the whole
    batch: all moved the same range towards their own extremes, and the moving average is monotone.  With percentiles it
    is the widest of the parts' percentiles.
    """
    sites = [module for module in model.modules() if isinstance(module, QuantSite) and module.observing]
    if sites:
        # One reduction for all: the smallest is the largest of the negated.
        ends = [end for site in sites for end in (-site.observed_min, site.observed_max)]
        joined = _reduced(ends, dist.ReduceOp.MAX)
        for site, low, high in zip(sites, joined[::2], joined[1::2], strict=True):
            site.observed_min.copy_(-low)
            site.observed_max.copy_(high)


@torch.no_grad()
def average_statistics(model: nn.Module) -> None:
    """Running statistics of batch norm are the mean of the processes'."""
    layers = [module for module in model.modules() if isinstance(module, Convolution) and module.batch_statistics]
    if layers:
        buffers = [buffer for layer in layers for buffer in (layer.mean, layer.variance)]
        for buffer, total in zip(buffers, _reduced(buffers, dist.ReduceOp.SUM), strict=True):
            buffer.copy_(total / dist.get_world_size())


def _reduced(tensors: list[Tensor], operation: dist.ReduceOp.RedOpType) -> tuple[Tensor, ...]:
    """The tensors after one reduction over the processes."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat, operation)
    pieces = flat.split([tensor.numel() for tensor in tensors])
    return tuple(piece.view_as(tensor) for piece, tensor in zip(pieces, tensors, strict=True))
