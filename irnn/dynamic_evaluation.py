"""Dynamic evaluation of a float language model (Krause, Kahembwe, Murray and Renals 2018): it learns as it reads.

A text is scored segment by segment, and after each of them, never before, the weights take a step on it: by the
segment's gradient over the root mean square that gradients have in training, and back towards where they were, the more
the larger that root mean square is.  An integer program has no weights to move: its perplexity is static, and the two
are different figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from irnn.errors import IrnnError
from irnn.metrics import stream_chunks
from irnn.models.language_model import LanguageModel


@dataclass(frozen=True)
class DynamicConfig:
    """rate: of a step.  decay: share of the way back, where a weight's root mean square is the mean of its matrix'.
    epsilon: added to the root mean square.  steps: tokens of a segment.  What is best is found on a validation text.
    """

    rate: float = 0.002
    decay: float = 0.02
    epsilon: float = 0.001
    steps: int = 5

    def __post_init__(self) -> None:
        if not self.rate >= 0:
            raise IrnnError(f"rate={self.rate}: must be at least 0")
        if not 0 <= self.decay <= 1:
            raise IrnnError(f"decay={self.decay}: must lie in 0 to 1")
        if not self.epsilon > 0:
            raise IrnnError(f"epsilon={self.epsilon}: must be greater than 0")
        if self.steps < 1:
            raise IrnnError(f"steps={self.steps}: must be at least 1")


def gradient_scales(model: LanguageModel, batches: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """The root mean square of each parameter's gradients over ``batches`` of (ids, targets) ``[rows, time]``.

    The square of a batch's gradient, a mean over its rows, counts so often as it has rows: it stands for one text.
    """
    parameters = _parameters(model)
    squares, count = [torch.zeros_like(p) for p in parameters], 0
    for ids, targets in batches:
        loss, _ = model.loss(ids, targets)
        for square, gradient in zip(squares, torch.autograd.grad(loss, parameters), strict=True):
            square.addcmul_(gradient, gradient, value=len(ids))
        count += 1
    if not count:
        raise IrnnError("no batch to take the gradients of")
    return [square.div_(count).sqrt_() for square in squares]


def dynamic_cross_entropy(
    model: LanguageModel, tokens: np.ndarray, first: int, scales: list[Tensor], config: DynamicConfig
) -> tuple[float, int]:
    """(total cross-entropy in nats, number of tokens) of one stream; the model's weights are afterwards as before.

    ``first`` stands before the first token, as in ``irnn.metrics.stream_cross_entropy``.
    """
    if model.stage != "float":
        raise IrnnError(f"the model is in stage {model.stage!r}: only a float network learns as it reads")
    parameters = _parameters(model.eval())
    before = [p.detach().clone() for p in parameters]
    back = [_way_back(scale, config.decay) for scale in scales]
    total, count, state = 0.0, 0, None
    try:
        for ids, targets in stream_chunks(tokens, first, config.steps):
            loss, state = model.loss(torch.from_numpy(ids), torch.from_numpy(targets), state)
            total += float(loss.detach()) * targets.size
            count += targets.size
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for p, start, share, scale, gradient in zip(parameters, before, back, scales, gradients, strict=True):
                    p.add_(share * (start - p)).sub_(gradient / (scale + config.epsilon), alpha=config.rate)
    finally:
        with torch.no_grad():
            for p, start in zip(parameters, before, strict=True):
                p.copy_(start)
    return total, count


def _way_back(scale: Tensor, decay: float) -> Tensor:
    """How much of the way back a weight goes in a step: the whole of it at most."""
    mean = scale.mean()
    return (decay * scale / mean).clamp_(max=1) if mean > 0 else torch.zeros_like(scale)


def _parameters(model: LanguageModel) -> list[Tensor]:
    return [p for p in model.parameters() if p.requires_grad]
