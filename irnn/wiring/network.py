"""What stands for a network in this library: itself, or the part that a network of one's own got by ``prepare``."""

from __future__ import annotations

from typing import Any

from torch import nn

from irnn.errors import IrnnError

ENGINE = "_irnn"  # the part's name


def wiring_of(model: Any) -> Any:
    """Whom to ask for programs, sites and stages; a network that is none and has none is an :class:`IrnnError`."""
    if isinstance(model, nn.Module):
        held = model._modules.get(ENGINE)
        if held is not None:
            return held
        if not hasattr(model, "program_wires"):
            raise IrnnError(
                f"{type(model).__name__} has not been prepared: call irnn.prepare(network, quant, pwl, "
                "example_inputs=...) first, and give the network itself, not what wraps it"
            )
    return model
