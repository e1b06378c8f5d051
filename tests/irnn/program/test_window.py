"""How many steps of the input one step of the output is made of, where a program runs step by step."""

from __future__ import annotations

import numpy as np
import pytest

from irnn.program import Node, Program, Scan, State, Value

SIZE = 4


def sequence(axis: str, dtype: str = "int8", size: int = SIZE) -> Value:
    low, high = (-128, 127) if dtype == "int8" else (-(1 << 31), (1 << 31) - 1)
    return Value(dtype, (size,), low=low, high=high, axes=(axis,))


def pool(source: str, output: str, kernel: int, stride: int = 1, border: int = 0) -> Node:
    attributes = {"channels": SIZE, "kernel": [kernel, 1], "strides": [stride, 1], "dilation": [1, 1]}
    return Node("max_pool", (source,), output, attributes | {"padding": [[border, border], [0, 0]]})


def loop(source: str, output: str, *, reverse: bool = False) -> Scan:
    """A running sum that saturates."""
    add = Node("add", ("x_t", "h"), "h_next", {"low": -128, "high": 127})
    return Scan({"x_t": source}, {"h": ("h", "h_next")}, {output: "h_next"}, (add,), reverse=reverse)


def program(*nodes: Node | Scan, axes: tuple[str, ...]) -> Program:
    """x goes through ``nodes`` to y1, y2, ...; axes: those of what comes out of each."""
    values = {"x": sequence("time")} | {f"y{k}": sequence(axis) for k, axis in enumerate(axes, 1)}
    values |= {name: Value("int8", (SIZE,), low=-128, high=127) for name in ("x_t", "h", "h_next")}
    return Program("integer", {"x": values["x"]}, (f"y{len(axes)}",), {"h": State("int8", (SIZE,))}, values, nodes, {})


SPOTTER = program(
    pool("x", "y1", 3), pool("y1", "y2", 2, 2), loop("y2", "y3"), axes=("time-2", "(time-2)/2", "(time-2)/2")
)


@pytest.mark.parametrize(
    ("made", "window"),
    [
        (program(loop("x", "y1"), axes=("time",)), 1),
        (program(pool("x", "y1", 5), loop("y1", "y2"), axes=("time-4", "time-4")), 5),
        (SPOTTER, 4),
        (program(pool("x", "y1", 3, border=1), loop("y1", "y2"), axes=("time", "time")), None),
        (program(pool("x", "y1", 5), loop("y1", "y2", reverse=True), axes=("time-4", "time-4")), None),
        (program(loop("x", "y1"), pool("y1", "y2", 5), axes=("time", "time-4")), None),
        (program(loop("x", "y1"), Node("time_max", ("y1",), "y2"), axes=("time", "time")), None),
    ],
    ids=["streaming", "window", "two of them", "a border", "backwards", "behind a state", "over all time"],
)
def test_window(made: Program, window: int | None) -> None:
    assert made.window == window


def test_calls_of_a_window_go_on_from_each_other() -> None:
    """Each moves on by the strides of all windows together."""
    x = np.random.default_rng(0).integers(-40, 40, (2, 12, SIZE)).astype(np.int8)
    whole, last = SPOTTER.run(x)
    state, steps = None, []
    for t in range(0, 12 - 3, 2):
        y, state = SPOTTER.run(x[:, t : t + 4], state)
        steps.append(y)
    np.testing.assert_array_equal(np.concatenate(steps, 1), whole, strict=True)
    np.testing.assert_array_equal(state["h"], last["h"], strict=True)
