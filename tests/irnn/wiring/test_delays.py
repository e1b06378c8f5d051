"""Earlier steps by a state: torch's shift and causal convolution, and the same integers step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import irnn
from irnn.errors import IrnnError
from irnn.nn.convolution import FoldedConvolution
from irnn.wiring.delays import causal_convolution, held_steps, shift
from irnn.wiring.executor import StateSpec
from tests.support.wired import SIZE, Wired, site, steps_apart

STEPS = 9


def features() -> Tensor:
    return torch.randn(3, STEPS, SIZE, generator=torch.Generator().manual_seed(5)) + 0.5


def shifted() -> tuple[Wired, Any]:
    states = lambda m: [StateSpec("before", SIZE, m.input_site)]  # noqa: E731
    model = Wired(lambda a, m, x: shift(a, states(m)[0], x), states=states)
    return model, lambda x: nn.functional.pad(x, (0, 0, 1, 0))[:, :-1]


def convolved(dilation: int) -> tuple[Wired, Any]:
    torch.manual_seed(0)
    conv, reach = nn.Conv1d(SIZE, 4, 3, dilation=dilation), 2 * dilation
    part = FoldedConvolution(conv, padding=((reach, 0), (0, 0)))

    def states(m: Wired) -> list[StateSpec]:
        return [held_steps("held", part, StateSpec("x", SIZE, m.input_site))]

    model = Wired(
        lambda a, m, x: a.relu(m.out, causal_convolution(a, states(m)[0], m.conv, x)),
        states=states, conv=part, out=site("activation", 4),
    )  # fmt: skip
    return model, lambda x: conv(nn.functional.pad(x.transpose(1, 2), (reach, 0))).transpose(1, 2).relu()


@pytest.mark.parametrize("make", [shifted, lambda: convolved(1), lambda: convolved(3)])
def test_a_delay_streams(make: Any) -> None:
    model, function = make()
    x = features()
    with torch.no_grad():
        y, _ = model.eval().simulate(x, observing=False)
        torch.testing.assert_close(y.transpose(0, 1), function(x))
    assert steps_apart(model, x) < 2
    program = irnn.convert(model)
    assert program.streaming
    integers = program.inputs["x"].quantize(x.numpy())
    whole, last = program.run(integers)
    state, steps = None, []
    for t in range(STEPS):
        y, state = program.step(integers[:, t], state)
        steps.append(y)
    np.testing.assert_array_equal(np.stack(steps, 1), whole, strict=True)
    for name, array in last.items():
        np.testing.assert_array_equal(state[name], array, strict=True)


def test_the_same_integers_as_by_neighbourhoods() -> None:
    """A causal convolution by a state is that by ``patches``, integer for integer."""
    x = features()
    by_state, _ = convolved(2)
    steps_apart(by_state, x)
    program = irnn.convert(by_state)
    by_state._wire = lambda a, m, x: a.flatten(a.relu(m.out, a.convolution(m.conv, x)))
    other = irnn.convert(by_state)
    assert "patches" in {node.op for node in other.walk()}
    integers = program.inputs["x"].quantize(x.numpy())
    np.testing.assert_array_equal(program.run(integers)[0], other.run(integers)[0], strict=True)


@pytest.mark.parametrize(("kernel", "said"), [(3, {}), (3, {"padding": 1}), (3, {"stride": 2}), (1, {})])
def test_what_is_not_causal_is_refused(kernel: int, said: dict[str, int]) -> None:
    part = FoldedConvolution(nn.Conv1d(SIZE, 4, kernel, **said))
    model = Wired(
        lambda a, m, x: causal_convolution(a, StateSpec("held", 2 * SIZE, m.input_site), m.conv, x), conv=part
    )
    with pytest.raises(IrnnError, match="is no causal convolution: Window"):
        irnn.float_program(model)
