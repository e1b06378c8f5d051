"""Staged quantization-aware training: which sites are on in which stage, calibration, and the table of sites.

Usage::

    qat.prepare(model, QuantConfig(weight=4), PwlConfig(pieces=16), stage="pwl")
    qat.calibrate(model, batches)           # ranges, once
    ...train...                             # then prepare(..., "weights"), train, "activations", train, "all", train
    model.eval()                            # stage "all": the program's integers
    program = irnn.convert(model)
"""

from __future__ import annotations

from collections.abc import Iterable, Sized
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from irnn.calibration import calibrate, outside
from irnn.capture import Explanation, capture, explain
from irnn.compensation import compensate
from irnn.errors import IrnnError
from irnn.models.base import RecurrentModel, StreamModel
from irnn.names import readable_name
from irnn.nn.linear import Weight
from irnn.quant.config import QuantConfig
from irnn.quant.site import QuantSite
from irnn.stages import STAGES, PwlConfig, Settings
from irnn.wiring.network import ENGINE, wiring_of

__all__ = [
    "STAGES", "Explanation", "PwlConfig", "QuantConfig", "SiteInfo", "Sites", "calibrate", "compensate", "explain",
    "prepare", "set_stage", "simulation_mismatch", "sites",
]  # fmt: skip

AnyModule = TypeVar("AnyModule", bound=nn.Module)

_QUANT, _PWL = QuantConfig(), PwlConfig()


def prepare(
    model: AnyModule,
    quant: QuantConfig = _QUANT,
    pwl: PwlConfig = _PWL,
    stage: str = "float",
    *,
    example_inputs: Any = None,
    norm: str = "mad",
) -> AnyModule:
    """Put ``model`` into ``stage``, in place: "float", "pwl", "weights", "activations" or "all".

    Any other ``nn.Module`` than irnn's models is captured first, which takes an example of ``forward``'s arguments: a
    tuple of them, a mapping by their names, or the only one.  It stays the object that it was, with its modules,
    parameters and the names in its ``state_dict``; batch and length of the example decide nothing.  A network that has
    no integer form is an :class:`IrnnError` that lists all that stands in the way, as :func:`explain` does in a table.
    norm: what its LayerNorms become in stage "pwl": "mad", which is cheaper and wants fine-tuning, or "layer", which
    is what they are.

    Going from "float" on turns LayerNorms that are to be MadNorms into such (a forward pass changes, hence "pwl"
    fine-tunes).  Ranges move in the middle stages and are frozen in "all".  Weights that were loaded remember what they
    were trained for: settings that contradict that are an :class:`IrnnError`; stage "float" lets go of it.
    """
    settings = Settings(stage, quant, pwl)
    if not isinstance(model, RecurrentModel) and ENGINE not in model._modules:
        if example_inputs is None:
            raise IrnnError(
                f"{type(model).__name__} is a network of your own: give example_inputs=, a tuple of forward's arguments"
            )
        capture(model, example_inputs, norm)
    network = wiring_of(model)
    asked = getattr(getattr(network, "config", None), "tie_weights", False)
    if asked or network is not model:
        reason = "tie_weights=true makes" if asked else f"{type(model).__name__} makes"
        _check_tied(network, quant, reason)
    network.adopt(settings)
    return model


def set_stage(model: AnyModule, stage: str) -> AnyModule:
    """Put a prepared ``model`` into another stage of ``STAGES``, in place, with the settings that it has."""
    network = wiring_of(model)
    network.adopt(replace(network.settings, stage=stage))
    return model


def _check_tied(model: RecurrentModel, quant: QuantConfig, reason: str) -> None:
    """Matrices that are one tensor have one code; otherwise an :class:`IrnnError` names the keys."""
    first: dict[int, tuple[str, int | str]] = {}
    for name, module in model.matrices().items():
        pattern = quant.pattern_of(name)
        key = module.role if pattern is None else f"of.{pattern}"
        choice = quant.choice(module.role, name)
        other, others = first.setdefault(module.identity, (key, choice))
        if choice != others:
            raise IrnnError(
                f"{other}={others} and {key}={choice} differ, but {reason} them one tensor: set both to the same bits"
            )


@dataclass(frozen=True)
class SiteInfo:
    """One quantized tensor: where, what, how.  Ranges and scales are lists: one entry a group (gate) or tensor."""

    name: str
    role: str
    bits: int
    scale: list[float]
    zero_point: list[int]
    observed: list[tuple[float, float]]
    clipped_share: float | None


class Sites(list[SiteInfo]):
    """The rows, which print as a table (also with Rich)."""

    def __rich__(self) -> Table:
        """A weight with one scale a row shows the smallest and the largest."""
        table = Table("site", "role", "bits", "scale", "zero point", "range", "clipped", title="quantization sites")
        for row in self:
            table.add_row(
                row.name,
                row.role,
                str(row.bits),
                "\n".join(f"{s:.3g}" for s in row.scale),
                "\n".join(map(str, row.zero_point)),
                "\n".join(f"{low:.3g} .. {high:.3g}" for low, high in row.observed),
                "" if row.clipped_share is None else f"{row.clipped_share:.2%}",
            )
        return table

    def __str__(self) -> str:
        console = Console(width=140)
        with console.capture() as capture:
            console.print(self)
        return capture.get()


@torch.no_grad()
def sites(network: nn.Module, batches: Iterable[Sized] | None = None) -> Sites:
    """Every quantization site of a calibrated model; ``print(sites(model))`` shows the table.

    With ``batches`` the share of elements that the present range clips is measured on them; without, it is None.
    """
    model: RecurrentModel = wiring_of(network)
    clipped = _clipped_shares(model, batches) if batches is not None else {}
    rows, seen = Sites(), set()
    for name, module in model.named_modules():
        name = readable_name(name)
        if isinstance(module, QuantSite):
            scale, zero_point = (v.tolist() for v in module.qparams())
            observed = list(zip(module.observed_min.tolist(), module.observed_max.tolist(), strict=True))
            rows.append(SiteInfo(name, module.role, module.bits, scale, zero_point, observed, clipped.get(module)))
        elif isinstance(module, Weight) and module.key not in seen:
            seen.add(module.key)
            scale = torch.cat([term.scale for term in module.code.terms(module.weight)])
            scales = [float(scale.min()), float(scale.max())] if len(scale) > 1 else [float(scale)]
            span = (float(module.weight.min()), float(module.weight.max()))
            rows.append(SiteInfo(name, module.role, module.bits, scales, [0], [span], 0.0))
    return rows


def _clipped_shares(model: RecurrentModel, batches: Iterable[Sized]) -> dict[QuantSite, float]:
    """Share of elements outside each site's range, in the float simulation of the present stage."""
    counts: dict[QuantSite, list[int]] = {}
    training = model.training
    model.eval()
    for batch in batches:
        _, simulation = model.simulate(batch, None, observing=True)
        for site, x in simulation.recorded():
            total = counts.setdefault(site, [0, 0])
            total[0] += int(outside(site, x).sum())
            total[1] += x.numel()
    model.train(training)
    return {site: clipped / total for site, (clipped, total) in counts.items()}


@torch.no_grad()
def simulation_mismatch(model: StreamModel, batch: Tensor) -> dict[str, dict[str, float]]:
    """How far the float simulation that trains is from the integers that run, in the states after ``batch``.

    Per role ("hidden", "cell"): ``{"share": of integers that differ, "max_steps": largest difference}``.  The model
    must be in stage "all".  Differences feed back through the recurrence, so a longer batch shows more of them.
    """
    if model.stage != "all":
        raise IrnnError(f"stage {model.stage!r} has no integers to compare with; prepare(..., stage='all') first")
    training = model.training
    model.eval()
    _, simulation = model.simulate(batch, None, observing=False)
    _, integers = model.frozen().run(model.integer_input(batch), None)
    steps: dict[str, list[Tensor]] = {}
    for name, _, site in model.state_specs():
        scale, zero_point = site.simulation_parameters(simulation.state[name])
        simulated = torch.floor(simulation.state[name] / scale + zero_point + 0.5)
        steps.setdefault(site.role, []).append((simulated - integers[name]).abs().flatten())
    model.train(training)
    joined = {role: torch.cat(parts) for role, parts in steps.items()}
    return {role: {"share": float((d > 0).double().mean()), "max_steps": int(d.max())} for role, d in joined.items()}
