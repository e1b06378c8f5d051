"""Lengths of axes and windows: one form for all of them, by its name; against counting places one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irnn.errors import IrnnError
from irnn.program.axes import Axis, divided
from irnn.program.windows import Window
from tests.support.strategies import quick


@pytest.mark.parametrize(
    ("axis", "name"),
    [
        (Axis("time"), "time"),
        (Axis("time", 1, 2), "time/2"),
        (Axis("time", -4), "time-4"),
        (Axis("time", 3), "time+3"),
        (Axis("time", 3, 2), "(time+3)/2"),
        (Axis("time", 0, 2), "(time+0)/2"),
        (Axis("memory", 3, 4), "memory/4"),
    ],
)
def test_an_axis_and_its_name(axis: Axis, name: str) -> None:
    assert axis.name == name
    assert Axis.parse(name) == axis


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(IrnnError, match=r"the axis 'time\*2' is none"):
        Axis.parse("time*2")


def test_strides_of_strides() -> None:
    assert divided(divided("time", 2), 2) == "time/4"
    assert divided("time", 1) == "time"


def counted(size: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int) -> int:
    """Places of a window, one by one."""
    taps = [k * dilation for k in range(kernel)]
    firsts = range(-padding[0], size + padding[1], stride)
    return sum(all(-padding[0] <= first + tap < size + padding[1] for tap in taps) for first in firsts)


@quick
@given(data=st.data())
def test_windows_behind_windows(data: st.DataObject) -> None:
    """The axis behind several windows is one axis, whatever they are."""
    size = data.draw(st.integers(12, 40))
    axis, left = Axis("time"), size
    for _ in range(data.draw(st.integers(1, 3))):
        kernel, stride, dilation = (data.draw(st.integers(1, 3)) for _ in range(3))
        padding = (data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3)))
        window = Window((kernel, 1), (stride, 1), (padding, (0, 0)), (dilation, 1))
        left = counted(left, kernel, stride, padding, dilation)
        axis = axis.after(window.offset(0), stride)
        if left < 1:
            return
    assert axis.size(size) == left
    assert Axis.parse(axis.name) == axis
    least = axis.root_for(left)
    assert (axis.size(least), axis.size(least - 1)) == (left, left - 1)


def test_a_window_says_what_version_1_cannot() -> None:
    """Half a kernel as border is what version 1 means; everything else is said."""
    assert Window.centred((3, 2)).attributes() == {"kernel": [3, 2], "strides": [1, 1]}
    causal = Window((3, 1), padding=((2, 0), (0, 0)))
    assert causal.attributes()["padding"] == [[2, 0], [0, 0]]
    for window in (Window.centred((4, 3), (2, 1)), causal, Window((2, 2), dilation=(3, 1))):
        assert Window.of(window.attributes()) == window


@pytest.mark.parametrize("kernel", range(1, 6))
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_centred_window_has_the_ceiling_of_places(kernel: int, stride: int) -> None:
    window = Window.centred((kernel, kernel), (stride, stride))
    assert [window.places(0, size) for size in range(1, 9)] == [-(-size // stride) for size in range(1, 9)]


def test_bands_that_do_not_fit_are_refused() -> None:
    with pytest.raises(IrnnError, match="an element of 7 has no bands of 2 channels"):
        Window((1, 1)).bands(7, 2)
    with pytest.raises(IrnnError, match="a window of 4 bands does not fit 3 and their border"):
        Window((1, 4)).bands(6, 2)
