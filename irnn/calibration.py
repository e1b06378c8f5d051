"""Calibration: the first range of every site, and a warning about sites that their bits do not serve."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from irnn.errors import IrnnError
from irnn.models.base import RecurrentModel
from irnn.nn.activation import Activation
from irnn.nn.attention import Exponential
from irnn.nn.linear import Weight
from irnn.quant.site import QuantSite
from irnn.wiring.network import wiring_of

# A site is named where the quantized network keeps less of its signal, or clips more of its values.  A site of 8 bits
# that serves keeps 20 to 40 dB; a normalized network with random weights is chaotic and may keep 5.
WORST_DECIBELS = 3.0
WORST_CLIPPED = 0.05


def calibrate(network: nn.Module, batches: Iterable[Sized], *, quantized_weights: bool = False) -> None:
    """Give every site its range: run the float network (exact activations, no dropout) over input batches.

    Each batch is what ``model.simulate`` takes: token ids ``[batch, time]`` or features ``[batch, time, size]``, of a
    network of one's own a tuple of ``forward``'s arguments, a mapping by their names, or the only one.  A stream's
    state is carried from one batch to the next while the batch size stays the same.

    Ranges of before are forgotten.  A value that is NaN or infinite is an :class:`IrnnError` that names the site and
    the batch, and the ranges of before stay.  Sites that clip or lose most of their signal, as the model is configured,
    are named in one warning.

    quantized_weights: weights that were trained quantized are so here, too; else they are those in float.
    """
    model: RecurrentModel = wiring_of(network)
    state: dict[str, Tensor] | None = None
    start: dict[str, Tensor] | None = None
    size, count = 0, 0
    with (
        torch.no_grad(),
        evaluating(model),
        switched(model, observing=True, quantizing=set(), exact=True, weights=quantized_weights),
        _forgotten_ranges(model),
        _widening(model),
    ):
        for batch in batches:
            start = state if batch_size(batch) == size else None
            try:
                _, simulation = model.simulate(batch, start, observing=True)
            except IrnnError as error:
                raise IrnnError(f"calibration, batch {count + 1}: {error}") from None
            state, size, count = simulation.state, batch_size(batch), count + 1
        if not count:
            raise IrnnError("calibration got no batch; give at least one")
    model.refresh()
    found = poor_sites(model, batch, start)
    if found:
        warnings.warn(
            "after calibration these sites are served badly by their bits or range: " + "; ".join(found), stacklevel=2
        )


def batch_size(batch: Any) -> int:
    """Sequences of a batch: of a tuple or a mapping of arguments, those of its first tensor."""
    first = next((leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)), batch)
    return len(first)


def poor_sites(model: RecurrentModel, batch: Any, state: dict[str, Tensor] | None) -> list[str]:
    """The sites that clip or lose most of their signal when all are quantized (weights apart), in words.

    The float network and the quantized one run over the same batch; a site's signal is what reaches it in the former,
    its noise the difference.  Where noise is found, each role is quantized alone, and only the sites of roles that do
    it by themselves are named: an error spreads along the recurrence to all the others.
    """
    sites = {module: name for name, module in model.named_modules() if isinstance(module, QuantSite)}
    with torch.no_grad(), evaluating(model):
        with switched(model, observing=False, quantizing=set(), exact=True):
            exact = _recorded(model, batch, state)
        with switched(model, observing=False, quantizing=set(sites), exact=False):
            joint = _judged(sites, exact, _recorded(model, batch, state))
        if not joint:
            return []
        alone: dict[QuantSite, str] = {}
        for role in dict.fromkeys(site.role for site in sites):
            chosen = {site for site in sites if site.role == role}
            with switched(model, observing=False, quantizing=chosen, exact=True):
                verdicts = _judged(chosen, exact, _recorded(model, batch, state))
            alone |= verdicts
    return list((alone or joint).values())


def _recorded(model: RecurrentModel, batch: Any, state: dict[str, Tensor] | None) -> dict[QuantSite, Tensor]:
    """What reaches each site before it is quantized, in float32 ``[rows, size]``."""
    _, simulation = model.simulate(batch, state, observing=True)
    return {site: x.float() for site, x in simulation.recorded()}


def _judged(
    sites: Iterable[QuantSite], exact: dict[QuantSite, Tensor], found: dict[QuantSite, Tensor]
) -> dict[QuantSite, str]:
    """What is wrong with each of ``sites``, in words."""
    verdicts = {}
    for site in sites:
        if site not in found:
            continue
        x, y = exact[site], found[site]
        clipped = float(outside(site, y).double().mean())
        noise, signal = float((y - x).double().square().mean()), float(x.double().square().mean())
        decibels = math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal > 0 else -math.inf
        if clipped > WORST_CLIPPED:
            verdicts[site] = f"{site.where}, {site.role}={site.bits}, clips {clipped:.0%} of its values"
        elif decibels < WORST_DECIBELS:
            verdicts[site] = f"{site.where}, {site.role}={site.bits}, keeps {decibels:.1f} dB of its signal"
    return verdicts


def outside(site: QuantSite, x: Tensor) -> Tensor:
    """bool, the shape of ``x [..., size]``: what the site's present range clips."""
    low_q, high_q = site.range()
    scale, zero_point = site.simulation_parameters(x)
    return (x < (low_q - zero_point - 0.5) * scale) | (x >= (high_q - zero_point + 0.5) * scale)


@contextmanager
def _forgotten_ranges(model: RecurrentModel) -> Iterator[None]:
    """No site has a range; where what follows fails, they all have those of before again."""
    ranges = [r for m in model.modules() if isinstance(m, QuantSite) for r in (m.observed_min, m.observed_max)]
    before = [r.clone() for r in ranges]
    for r in ranges:
        r.fill_(math.nan)
    try:
        yield
    except BaseException:
        for r, values in zip(ranges, before, strict=True):
            r.copy_(values)
        raise


@contextmanager
def _widening(model: RecurrentModel) -> Iterator[None]:
    """Ranges hold all that is seen, where the model asks for that."""
    sites = [m for m in model.modules() if isinstance(m, QuantSite)]
    for site in sites:
        site.widening = model.CALIBRATION_WIDENS
    try:
        yield
    finally:
        for site in sites:
            site.widening = False


@contextmanager
def evaluating(model: RecurrentModel) -> Iterator[None]:
    """Without dropout; the mode comes back."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def switched(
    model: RecurrentModel, *, observing: bool, quantizing: set[QuantSite], exact: bool, weights: bool = False
) -> Iterator[None]:
    """Other switches for a while: what observes, which sites quantize, exact functions or tables.

    weights: they stay as the model is configured; else they are in float.
    """
    values: list[tuple[Any, str, Any]] = []
    for module in model.modules():
        if isinstance(module, QuantSite):
            values += [(module, "observing", observing), (module, "quantizing", module in quantizing)]
        elif isinstance(module, Activation):
            values.append((module, "quantizing", not exact))
        elif isinstance(module, Weight) and not weights:
            values.append((module, "quantizing", False))
        if isinstance(module, Weight):
            values.append((module, "operand_codes", None))
        if isinstance(module, (Activation, Exponential)) and exact:
            values.append((module, "pieces", None))
    saved = [(module, name, getattr(module, name)) for module, name, _ in values]
    try:
        for module, name, value in values:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in saved:
            setattr(module, name, value)
