"""What a wiring makes of earlier steps, by a state that holds them: it streams, one step a call or many.

A state starts at real 0, and is carried from call to call as that of a recurrent layer is.
"""

from __future__ import annotations

from typing import Any, TypeVar

from irnn.errors import IrnnError
from irnn.wiring.executor import Executor, StateSpec
from irnn.wiring.parts import ConvolutionPart

T = TypeVar("T")


def shift(a: Executor[T], state: StateSpec, x: T) -> T:
    """The step before each one, ``x_{t-1}``, first the state.  x and the state live at one site and have one size."""
    shifted: T = a.scan(lambda a, x_t, before: (before, x_t), x, [state])
    return shifted


def held_steps(name: str, module: ConvolutionPart, state: StateSpec) -> StateSpec:
    """The state ``name`` that :func:`causal_convolution` needs; ``state`` says size and site of one step."""
    return StateSpec(name, module.window.reach(0) * state.size, state.site)


def causal_convolution(a: Executor[T], state: StateSpec, module: ConvolutionPart, x: T) -> T:
    """As ``a.convolution``, accumulators ``[filters]``, of a window that ends at the present step.

    The window is one band wide and moves by one; its border is as long as what it reaches back, and lies before the
    sequence.  state: :func:`held_steps` of it.
    """
    window, span = module.window, module.window.reach(0)
    if window.padding != ((span, 0), (0, 0)) or window.strides != (1, 1) or window.kernel[1] != 1 or not span:
        raise IrnnError(
            f"{module.where} is no causal convolution: {window}; one has kernel (k, 1), strides (1, 1) and the padding "
            f"(({span}, 0), (0, 0))"
        )
    size = state.size // span

    def step(a: Executor[T], x_t: T, before: T) -> tuple[Any, ...]:
        steps = a.concat([before, x_t])
        taps = [k * window.dilation[0] * size for k in range(window.kernel[0])]
        read = steps if window.dilation[0] == 1 else a.concat([a.slice(steps, k, k + size) for k in taps])
        return read, a.slice(steps, size, (span + 1) * size)

    return a.linear(module, a.scan(step, x, [state]))
