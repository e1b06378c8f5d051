"""Training steps as CUDA graphs: the thousands of small operations of a recurrent step, launched as one.

A step of quantization-aware training of 35 tokens launches some 1,900 kernels of a few microseconds each, which keeps a
processor core busy for ten times as long as the GPU.  Recorded once, they are launched together.  Arguments, loss and
gradients are what they are without: only who launches differs.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

# One argument tuple -> (loss, what is handed to the next step); tensors alone.
Compute = Callable[..., tuple[Tensor, ...]]


class GraphedSteps:
    """The steps of an epoch, recorded at its first one.

    compute: from tensors to (loss, further tensors without gradient), by ``model``'s parameters.  An epoch's tables
    (``model.refresh``) are part of what is recorded, so each epoch records anew, see :meth:`forget`.  Batches of other
    shapes, such as the last of an epoch, are computed as they are.
    """

    def __init__(self, model: nn.Module, compute: Compute) -> None:
        self._model, self._compute = model, compute
        self._step: nn.Module | None = None
        self._shapes: list[tuple[torch.Size, torch.dtype]] = []

    def forget(self) -> None:
        """What was recorded no longer holds."""
        self._step, self._shapes = None, []

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        shapes = [(argument.shape, argument.dtype) for argument in arguments]
        if self._step is None:
            self._step, self._shapes = self._recorded(arguments), shapes
        if shapes != self._shapes:
            return self._compute(*arguments)
        loss, *others = self._step(*arguments)
        return loss, *(other.detach() for other in others)

    def _recorded(self, arguments: Sequence[Tensor]) -> nn.Module:
        """Recording computes the step several times: ranges and random numbers are set back behind it."""
        device = arguments[0].device
        buffers = [(buffer, buffer.clone()) for buffer in self._model.buffers()]
        drawn = torch.cuda.get_rng_state(device)
        step = _Step(self._model, self._compute)
        # The memory of what was recorded before goes back now: given back during a recording, it breaks that off.
        gc.collect()
        gc.disable()
        try:
            # Samples of their own: they become the places that every call's arguments are copied to.
            torch.cuda.make_graphed_callables(step, tuple(a.clone() for a in arguments), allow_unused_input=True)
        finally:
            gc.enable()
        torch.cuda.set_rng_state(drawn, device)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        return step


class _Step(nn.Module):
    """The module that is recorded: it has the model's parameters."""

    def __init__(self, model: nn.Module, compute: Compute) -> None:
        super().__init__()
        self.model = model
        self.compute = compute
        self.train(model.training)

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        return self.compute(*arguments)
