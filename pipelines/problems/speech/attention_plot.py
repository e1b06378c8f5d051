"""A picture of what a recognizer attends to while it writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def plot_attention(weights: np.ndarray, units: Sequence[str], seconds: float, path: Path) -> None:
    """Write a PNG: one row for each unit, time from left to right.

    weights: [units, places], in any unit of measure; every row is divided by its sum. seconds: what the places span.
    """
    # Without the interface of pyplot, which would keep figures and ask for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    weights = np.asarray(weights, np.float64)
    figure = Figure(figsize=(8, 0.4 * len(units) + 1.2), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(
        weights / weights.sum(axis=1, keepdims=True),
        aspect="auto", interpolation="nearest", cmap="Greys", vmin=0, vmax=1, extent=(0, seconds, len(units), 0),
    )  # fmt: skip
    axes.set_yticks(np.arange(len(units)) + 0.5, units)
    axes.set_xlabel("seconds")
    figure.colorbar(image, label="attention")
    FigureCanvasAgg(figure).print_png(str(path))
