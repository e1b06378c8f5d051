"""Optimizers that keep the matrices of STE-projUNN orthogonal: everything else is updated as always."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from irnn.nn.orthogonal.projected import ProjectedWeight

# As projUNN trains the copy task: a rate of 1/32 of the others', gradients over their running root mean square.
RATE_SHARE = 1 / 32
DECAY, EPSILON = 0.99, 1e-8


def projected_weights(model: nn.Module) -> list[ProjectedWeight]:
    """The matrices that such an optimizer has to move."""
    return [module for module in model.modules() if isinstance(module, ProjectedWeight)]


class ProjectedSteps(torch.optim.Optimizer):
    """What stands before an optimizer of torch: ``class ProjectedAdam(ProjectedSteps, torch.optim.Adam)``.

    The first group holds what the optimizer updates; each further one is a :class:`ProjectedWeight`.  All read ``lr``.
    """

    def __init__(self, model: nn.Module, **defaults: Any) -> None:
        self.moved = projected_weights(model)
        apart = {id(module.weight) for module in self.moved}
        others = [p for p in model.parameters() if p.requires_grad and id(p) not in apart]
        groups = [{"params": others}, *({"params": [module.weight]} for module in self.moved)]
        super().__init__(groups, **defaults)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of everything; ``closure`` makes the gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for module, group in zip(self.moved, self.param_groups[1:], strict=True):
            gradient = module.weight.grad
            if gradient is None:
                continue
            # `step` is what torch's optimizers expect of a state that they read from a checkpoint.
            state = self.state[module.weight]
            if not state:
                state |= {"step": torch.zeros(()), "square": torch.zeros_like(gradient)}
            state["step"] += 1
            square = state["square"].mul_(DECAY).addcmul_(gradient, gradient, value=1 - DECAY)
            module.move(-group["lr"] * RATE_SHARE * gradient / (square.sqrt() + EPSILON))
            module.weight.grad = None  # the optimizer passes over it
        super().step()
        return loss


class ProjectedAdam(ProjectedSteps, torch.optim.Adam):
    """Adam, see :class:`ProjectedSteps`."""


class ProjectedSGD(ProjectedSteps, torch.optim.SGD):
    """Plain gradient descent, see :class:`ProjectedSteps`."""
