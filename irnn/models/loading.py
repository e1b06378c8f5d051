"""What is asked of a ``state_dict`` before a network takes it: finite numbers, true ranges, settings that fit."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from irnn.errors import IrnnError
from irnn.names import readable_name
from irnn.nn.linear import Weight
from irnn.nn.norm import Norm
from irnn.nn.torch_interface.parameters import TorchParameters
from irnn.nn.torch_interface.state_dicts import check_fit, saved_buffers, unwrapped
from irnn.quant.finite import not_finite
from irnn.quant.site import QuantSite
from irnn.stages import Record, Settings, read_record

RANGES = ("observed_min", "observed_max")
EXTRA_STATE = "_extra_state"  # PyTorch's name for what `get_extra_state` gives


def fitting_entries(model: nn.Module, state_dict: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
    """The entries under the model's own names; raises one line for those of another network."""
    entries = unwrapped(state_dict)
    for path, module in model.named_modules():
        if isinstance(module, TorchParameters):
            inside = {name: value for name, value in entries.items() if name.startswith(f"{path}.")}
            own_names = module.own_entries({n.removeprefix(f"{path}."): v for n, v in inside.items()}, strict=False)
            entries = {n: v for n, v in entries.items() if n not in inside}
            entries |= {f"{path}.{name}": value for name, value in own_names.items()}
    every = (*model.named_parameters(remove_duplicate=False), *saved_buffers(model))
    check_fit(
        type(model).__name__,
        {name: value.shape for name, value in every},
        {name: value for name, value in entries.items() if name != EXTRA_STATE},
        strict=strict,
        mend="build the model with the sizes and options of the one that was saved",
    )
    return entries


def tied_names(model: nn.Module) -> list[list[str]]:
    """The names of each parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def record_in(
    state_dict: Mapping[str, Any], key: str, model: nn.Module, *, prepared: Settings | None, prefix: str
) -> Record:
    """The record under ``key``; ``prepared``: the model's settings, where it has been prepared.

    A ``state_dict`` without one is from before there were records.  Without ranges it is one of stage "float"; with
    ranges it may be of any later stage, and only a model that was prepared first, as it was trained, knows of which.
    """
    if key in state_dict:
        return read_record(state_dict[key])
    norms = {name: module for name, module in model.named_modules() if isinstance(module, Norm)}
    observed = any(
        not torch.isnan(value).all() for name, value in own(state_dict, prefix).items() if name.endswith(RANGES)
    )
    if not observed:
        return Record(Settings(), dict.fromkeys(norms, "layer"))
    if prepared is None:
        raise IrnnError(
            "the state_dict has observed ranges and no record of the bits, tables and stage that it was trained for "
            "(it was saved by irnn before 0.2): prepare the model as it was trained, then load"
        )
    return Record(prepared, {name: norm.kind for name, norm in norms.items()})


def check_state_dict(
    model: nn.Module, state_dict: Mapping[str, Any], prefix: str, record: Record, prepared: Settings | None
) -> None:
    """Raise :class:`IrnnError` for what would be silently wrong in ``model``; ``prepared``: its settings, if any."""
    stage = record.settings.stage
    tensors = own(state_dict, prefix)
    for name, value in tensors.items():
        if not name.endswith(RANGES) and value.is_floating_point() and (problem := not_finite(name, value)):
            raise IrnnError(f"the state_dict (stage {stage!r}): {problem}; load intact weights")
    for name, module in model.named_modules():
        if isinstance(module, QuantSite):
            low, high = (tensors.get(f"{name}.{key}") for key in RANGES)
            if low is not None and high is not None:
                _check_range(f"{readable_name(name)} (stage {stage!r})", low, high)
    _check_tied(model, tensors)
    _check_norms(model, record)
    difference = None if prepared is None else record.settings.difference(prepared)
    if difference is not None:
        raise IrnnError(
            f"the state_dict was trained for {difference}, as this model is prepared: prepare it so, or load into a "
            "model that is not prepared, which takes the settings over"
        )


def check_weights(model: nn.Module, tensors: Mapping[str, Tensor], stage: str, *, assign: bool) -> None:
    """Raise :class:`IrnnError` where a weight that the ``tensors`` give would hold NaN or infinity.

    Entries that are finite may give one that is not: a batch norm's variance below zero, an attention vector of length
    zero, a number that float32 cannot hold.  assign: the entries keep their dtype.
    """
    for path, module in model.named_modules():
        if isinstance(module, Weight):
            prefix = f"{path}." if path else ""
            problem = not_finite(f"{readable_name(path)}.weight", _weight_with(module, tensors, prefix, assign=assign))
            if problem is not None:
                raise IrnnError(f"the state_dict (stage {stage!r}): {problem}, once loaded; load intact weights")


def _weight_with(module: Weight, tensors: Mapping[str, Tensor], prefix: str, *, assign: bool) -> Tensor:
    """The weight that the module would have; its own tensors stand for those that are missing or of another shape."""

    def incoming(name: str, present: Tensor) -> Tensor:
        given = tensors.get(prefix + name)
        if given is None or given.shape != present.shape:
            return present
        return given if assign else given.to(present)

    twin = copy.copy(module)
    parameters = {
        name: parameter if parameter is None else nn.Parameter(incoming(name, parameter.detach()), False)
        for name, parameter in module._parameters.items()
    }
    buffers = {name: buffer if buffer is None else incoming(name, buffer) for name, buffer in module._buffers.items()}
    twin.__dict__ |= {"_parameters": parameters, "_buffers": buffers}
    with torch.no_grad():
        return twin.weight


def own(state_dict: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    """The tensors of this model, by the names that it has for them."""
    return {
        name.removeprefix(prefix): value
        for name, value in state_dict.items()
        if name.startswith(prefix) and isinstance(value, Tensor)
    }


def _check_range(where: str, low: Tensor, high: Tensor) -> None:
    """A range is there, or not there (NaN in both ends of all groups), and nothing between."""
    absent = torch.isnan(low).all() and torch.isnan(high).all()
    if not absent and not bool((torch.isfinite(low) & torch.isfinite(high) & (low <= high)).all()):
        raise IrnnError(
            f"the state_dict: the observed range of {where} is {low.tolist()} to {high.tolist()}, which is none; load "
            "intact ranges or calibrate again"
        )


def _check_tied(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Entries of one shared parameter are equal; otherwise the last of them would win."""
    for names in tied_names(model):
        present = [name for name in names if name in tensors]
        for first, name in pairwise(present):
            if not torch.equal(tensors[name], tensors[first]):
                raise IrnnError(
                    f"the state_dict has different values for {first} and {name}, which this model ties to one tensor; "
                    "build the model without tied weights, or load weights that were tied"
                )


def _check_norms(model: nn.Module, record: Record) -> None:
    """From stage "pwl" on the weights of a norm are scaled for its kind."""
    norms = {name: module for name, module in model.named_modules() if isinstance(module, Norm)}
    if set(norms) != set(record.norms):
        raise IrnnError(
            f"the state_dict has {len(record.norms)} norms and this model has {len(norms)}; build the model with the "
            "same norm= and layers"
        )
    for name, norm in norms.items():
        kind = record.norms[name]
        if kind not in ("layer", norm.target_kind) or (record.settings.reaches("pwl") and kind != norm.target_kind):
            raise IrnnError(
                f"the state_dict has a {kind!r} norm at {readable_name(name)} (stage {record.settings.stage!r}), this "
                f"model is built with norm={norm.target_kind!r}; build it with norm={kind!r}"
            )
