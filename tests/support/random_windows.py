"""Windows over time and bands as they come: every border that a maximum allows, strides, taps apart from each other."""

from __future__ import annotations

import numpy as np

from irnn.program.windows import Window


def random_window(rng: np.random.Generator, bands: int) -> Window:
    """One that fits ``bands``; no two borders need be equal.  Half of them are those of format version 1."""
    while True:
        kernel = tuple(int(k) for k in rng.integers(1, 4, 2))
        strides = tuple(int(s) for s in rng.integers(1, 3, 2))
        window = Window.centred(kernel, strides)
        if rng.random() < 0.4:
            wide = (max(kernel[0], 2), kernel[1])
            window = Window(wide, strides, dilation=(int(rng.integers(2, 4)), int(rng.integers(1, 3))))
        elif rng.random() < 0.6:
            time, band = ((int(rng.integers(0, size)), int(rng.integers(0, size))) for size in kernel)
            window = window._replace(padding=(time, band))
        if window.places(1, bands) >= 1:
            return window


def only_time(window: Window) -> Window:
    """The same along time, of one band."""
    return Window((window.kernel[0], 1), (window.strides[0], 1), (window.padding[0], (0, 0)), (window.dilation[0], 1))
