"""Networks whose wiring a test writes down, and how far their program is from their simulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import irnn
from irnn import qat
from irnn.models.base import RecurrentModel
from irnn.nn.linear import Linear
from irnn.quant.site import QuantSite
from irnn.wiring.simulate import Simulation

SIZE = 6
BATCH, STEPS = 3, 9


class Wired(RecurrentModel):
    """A network whose wiring is a function of (executor, this, x): one float input, one output.

    ``states``: what its wiring carries beside the states of ``rnn``, called "one" or "two".
    """

    def __init__(
        self, wire: Callable[[Any, Any, Any], Any], *, size: int = SIZE, states: Any = None, **parts: nn.Module
    ) -> None:
        super().__init__()
        self.input_site = QuantSite("activation", size)
        self._wire, self._states = wire, states or (lambda m: [])
        for name, part in parts.items():
            setattr(self, name, part)

    def program_wire(self, a: Any) -> None:
        a.output("y", self._wire(a, self, a.features("x", self.input_site)))

    def simulate(self, x: Tensor, state: Any = None, *, observing: bool) -> tuple[Tensor, Simulation]:
        specs = [spec for name in ("one", "two") if hasattr(self, "rnn") for spec in self.rnn.state_specs(name)]
        specs += self._states(self)
        start = {spec.name: torch.zeros(len(x), spec.size) for spec in specs}
        a = Simulation(start, training=self.training, observing=observing)
        y = self._wire(a, self, a.input(self.input_site, x.transpose(0, 1)))
        a.finish()
        return y, a


def features(size: int = SIZE) -> Tensor:
    """``[batch, time, size]``; not centred, so that zero points are none of 0."""
    return torch.randn(BATCH, STEPS, size, generator=torch.Generator().manual_seed(5)) + 0.5


def real(model: Wired, x: Tensor) -> Tensor:
    """Before anything is quantized, as [batch, ...]."""
    with torch.no_grad():
        y, _ = model.eval().simulate(x, observing=False)
    return y.transpose(0, 1) if y.dim() > 2 else y


def ready(model: Wired, x: Tensor) -> Wired:
    """Calibrated, everything quantized."""
    qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), "pwl")
    qat.calibrate(model, [x])
    qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), "all")
    return model.eval()


@torch.no_grad()
def steps_apart(model: Wired, x: Tensor) -> float:
    """How far the program's output is from the simulation's, in steps of its scale."""
    y, _ = ready(model, x).simulate(x, observing=False)
    program = irnn.convert(model)
    value = program.values[program.outputs[0]]
    got, _ = program.run(program.inputs["x"].quantize(x.numpy()))
    real = (got.astype(np.float64) - value.zero_point) * value.scale
    simulated = (y.transpose(0, 1) if value.axes else y).numpy()
    assert real.shape == simulated.shape
    return float(np.abs(real - simulated).max() / value.scale)


def linear(rows: int = SIZE, columns: int = SIZE, role: str = "weight") -> Linear:
    return Linear(nn.Parameter(torch.randn(rows, columns) / 3), (nn.Parameter(torch.randn(rows) / 5),), role)


def site(role: str, size: int = SIZE) -> QuantSite:
    return QuantSite(role, size)


def after_linear(function: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """The wiring of a function of what ``before`` holds."""
    return lambda a, m, x: function(a, m, a.requantize(m.before, a.linear(m.fc, x)))
