"""How far an output is from another, and which gradients say so: for compensation, which weighs errors by them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class OutputMetric(ABC):
    """A distance of outputs, and random directions whose mean square is its curvature."""

    @abstractmethod
    def distance(self, exact: Tensor, found: Tensor) -> float:
        """Of one tensor of outputs, summed up over all but what it is a distribution of."""

    @abstractmethod
    def direction(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """A random u of the shape of ``y`` for which the mean of ``u u^T`` is the second derivative of the distance.

        Up to a factor, at ``y`` itself.  The generator is one of the CPU.
        """


class Squares(OutputMetric):
    """Each element counts alike."""

    def distance(self, exact: Tensor, found: Tensor) -> float:
        return float((found - exact).double().square().sum())

    def direction(self, y: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(y.shape, generator=generator).to(y)


class Classes(OutputMetric):
    """The last axis holds logits of classes: distributions are compared by their divergence, in nats."""

    def distance(self, exact: Tensor, found: Tensor) -> float:
        log_p, log_q = torch.log_softmax(exact.float(), -1), torch.log_softmax(found.float(), -1)
        return float((log_p.exp() * (log_p - log_q)).sum(-1).double().sum())

    def direction(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """The gradient of the cross-entropy with classes that are drawn from ``y`` itself (the Fisher matrix)."""
        p = torch.softmax(y.detach().float(), -1).flatten(0, -2)
        drawn = torch.multinomial(p.cpu(), 1, generator=generator).to(y.device)
        return p.scatter_add(1, drawn, -torch.ones_like(p)).reshape(y.shape).to(y)
