"""Rounding whose errors are made up for: each column of a matrix is rounded in turn, the rest moves to meet its error.

A weight that is rounded alone is off by up to half a step.  What a product W x is off by depends on x, whose elements
are not independent of each other: with H, the mean of ``x x^T``, a row's error e costs ``e H e^T``, and what rounding
one column costs is made less by the columns that are still free (Frantar et al. 2023, *GPTQ*, 2210.17323, after
Hassibi and Stork 1993).  Nothing is trained; H comes from the batches that calibrate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from irnn.calibration import evaluating, switched
from irnn.errors import IrnnError
from irnn.matrix_sensitivity import coded, difference, outputs, tensors
from irnn.models.base import RecurrentModel
from irnn.nn.linear import Weight
from irnn.nn.moments import Moments
from irnn.quant.codes.base import WeightCode
from irnn.wiring.network import wiring_of

# What is added to the diagonal of H, of its mean: few vectors span fewer directions than a matrix has columns.
DAMPING = 0.01
# Values of a row that are tried for one weight, at most: codes with more lose next to nothing by rounding.
MOST_VALUES = 16
# A row's weights are its code's own where the code gives them back as exactly as float32 has them.
AGREEMENT = 1e-5
# Batches whose outputs decide whether a matrix is better.
COMPARED = 3
# The role of matrices that nothing is multiplied by.
LOOKED_UP = "embedding"


@torch.no_grad()
def compensate(network: nn.Module, batches: Iterable[Sized]) -> None:
    """Move the weights of a network that is prepared for quantized ones to values of their codes, in place.

    batches: what :func:`irnn.qat.calibrate` takes; the network runs over them in float.  Weights of products change, an
    output layer's that is the embedding too at once; codes of more than 16 values, convolutions and matrices that are
    computed (folded norms) stay.  So does a row whose error is no less than by rounding to nearest, and a matrix with
    which what leaves the network is no nearer to that of the float weights.  A network whose weights are not quantized
    yet, no batch, or one with NaN in it is an :class:`IrnnError`, and nothing has changed.
    """
    model: RecurrentModel = wiring_of(network)
    coded_ones = [
        modules
        for modules in tensors(model).values()
        if isinstance(modules[0].weight, nn.Parameter) and any(module.quantizing for module in modules)
    ]
    if not coded_ones:
        raise IrnnError(f"stage {model.stage!r} has no quantized weights; prepare the network for a later one first")
    given = list(batches)
    if not given:
        raise IrnnError("compensation got no batch; give at least one")
    with evaluating(model), switched(model, observing=False, quantizing=set(), exact=True):
        with _moments([module for modules in coded_ones for module in modules if module.role != LOOKED_UP]):
            exact = [y for k, y in enumerate(outputs(model, given)) if k < COMPARED]
            costs = [_cost(modules) for modules in coded_ones]
        for modules, cost in zip(coded_ones, costs, strict=True):
            if cost is not None:
                _try(model, modules, cost, given[:COMPARED], exact)
    model.refresh()


@contextmanager
def _moments(modules: Sequence[Weight]) -> Iterator[None]:
    """Each is told of what it multiplies, for a while."""
    for module in modules:
        module.moments = Moments(module.weight.shape[1])
    try:
        yield
    finally:
        for module in modules:
            module.moments = None


def _try(
    model: RecurrentModel, modules: Sequence[Weight], cost: Tensor, batches: Sequence[Sized], exact: Sequence[Tensor]
) -> None:
    """Compensate one tensor, unless what leaves the network is then further from that of the float weights."""
    weight, code = modules[0].weight, modules[0].code
    given = weight.clone()
    with coded(modules, code):
        before = difference(exact, outputs(model, batches))
        weight.copy_(compensated(weight, code, cost))
        if not difference(exact, outputs(model, batches)) < before:
            weight.copy_(given)


def _cost(modules: Sequence[Weight]) -> Tensor | None:
    """H of one tensor, for all that read it; None: nothing is known, or they quantize it in several ways."""
    products = [m.moments.mean for m in modules if m.moments is not None and m.moments.count]
    if not all(bool(product.isfinite().all()) for product in products):
        raise IrnnError(
            f"{modules[0].where}: of what it multiplies some is NaN or infinite; mend the data or the weights before it"
        )
    if not products or any(module.code != modules[0].code for module in modules):
        return None
    cost = torch.stack(products).mean(0)
    if any(module.role == LOOKED_UP for module in modules):  # there each element's error counts alone
        cost = cost + cost.diagonal().mean() * torch.eye(len(cost), dtype=cost.dtype)
    return cost


def compensated(weight: Tensor, code: WeightCode, cost: Tensor) -> Tensor:
    """``weight [rows, columns]`` with the rows moved to values of their code that cost less than the nearest ones.

    cost: H ``[columns, columns]``, float64.  The scales are those that the code finds for the weights as they are.
    """
    given = weight.detach().to("cpu", torch.float64)
    values = _values(given, code)
    if values is None or not bool(cost.diagonal().sum() > 0):
        return weight
    found = _in_turn(given, values, cost)
    nearest, _ = code.seen(given)
    own, _ = code.seen(found)
    exact = ((own - found).abs() <= AGREEMENT * found.abs().amax(1, keepdim=True)).all(1)
    less = _costs(given - found, cost) < _costs(given - nearest, cost)
    return torch.where((exact & less)[:, None].to(weight.device), found.to(weight), weight)


def _costs(error: Tensor, cost: Tensor) -> Tensor:
    """``e H e^T`` of each row."""
    return ((error @ cost) * error).sum(1)


def _values(weight: Tensor, code: WeightCode) -> Tensor | None:
    """What a weight of each row may be, ``[rows, values]``; None: too many."""
    values = torch.zeros(len(weight), 1, dtype=weight.dtype)
    for integers, scale in code.terms(weight):
        alphabet = integers.unique()
        if values.shape[1] * len(alphabet) > MOST_VALUES:
            return None
        values = (values[:, :, None] + (scale * alphabet)[:, None, :]).flatten(1)
    return values


def _in_turn(weight: Tensor, values: Tensor, cost: Tensor) -> Tensor:
    """The columns rounded one after the other, the one that costs most first."""
    size = len(cost)
    order = cost.diagonal().argsort(descending=True)
    damped = cost + DAMPING * cost.diagonal().mean() * torch.eye(size, dtype=cost.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped[order][:, order]))
    factor = torch.linalg.cholesky(inverse, upper=True)
    left, rounded = weight[:, order].clone(), torch.empty_like(weight)
    for k in range(size):
        nearest = (left[:, k, None] - values).abs().argmin(1, keepdim=True)
        rounded[:, k] = values.gather(1, nearest)[:, 0]
        error = (left[:, k] - rounded[:, k]) / factor[k, k]
        left[:, k:] -= error[:, None] * factor[k, k:]
    found = torch.empty_like(rounded)
    found[:, order] = rounded
    return found
