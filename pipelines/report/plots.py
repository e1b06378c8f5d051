"""What the report draws, each as an `<svg>` with its text alternative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from typing import Any

import numpy as np
from markupsafe import Markup

from pipelines.report.figures import GRID, INK, MUTED, SERIES, SURFACE, as_svg, name_lines, new_figure, styled
from pipelines.report.pwl_errors import TableError

Curves = Sequence[Mapping[str, float]]  # of a stage: one row an epoch, which "epoch" counts from 1, and its figures

_LOSS = "train_loss"
_NAMED = 12  # points of a figure that still have names
_ASIDE = {"epoch", "step", "lr", _LOSS}


@dataclass(frozen=True)
class Point:
    """x: bytes or time.  y: figure of merit.  label: what it is.  own: one of those that the page is about."""

    label: str
    x: float
    y: float
    own: bool = True


def front_of(points: Sequence[Point], *, higher: bool) -> list[Point]:
    """Those that no other point beats in both, by x; of equal ones the first.  higher: the larger y is the better."""
    front: list[Point] = []
    for point in sorted(points, key=lambda one: (one.x, -one.y if higher else one.y)):
        if not front or (point.y > front[-1].y if higher else point.y < front[-1].y):
            front.append(point)
    return front


@styled
def trade_off(name: str, points: Sequence[Point], x: str, y: str, *, higher: bool) -> Markup:
    """Figure of merit against a cost, with the front drawn as a stair."""
    figure, axes = new_figure()
    front = front_of(points, higher=higher)
    axes.step([p.x for p in front], [p.y for p in front], where="post", color=SERIES[0], lw=1, alpha=0.6)
    for own, marker, colour in ((False, "o", MUTED), (True, "o", SERIES[0])):
        shown = [p for p in points if p.own is own]
        axes.plot([p.x for p in shown], [p.y for p in shown], marker, ms=6, color=colour, mec=SURFACE, mew=0.8)
    if sum(p.own for p in points) <= _NAMED:
        middle = (min(p.x for p in points) + max(p.x for p in points)) / 2
        for p in _named_together([p for p in points if p.own]):
            left = p.x > middle
            axes.annotate(p.label, (p.x, p.y), xytext=(-6 if left else 6, 5), textcoords="offset points", fontsize=8,
                          ha="right" if left else "left")  # fmt: skip
    axes.set(xlabel=x, ylabel=y)
    axes.margins(0.12)
    best = "; ".join(f"{p.label}: {y} {p.y:.4g} at {p.x:.4g} {x}" for p in front)
    return as_svg(figure, name, f"{y} against {x}", f"{len(points)} programs. What none beats in both: {best}.")


def _named_together(points: Sequence[Point]) -> list[Point]:
    """Neighbours whose names would lie on each other share one."""
    width, height = (max(values) - min(values) or 1.0 for values in ([p.x for p in points], [p.y for p in points]))
    groups: list[list[Point]] = []
    for p in sorted(points, key=lambda one: one.x):
        near = [g for g in groups if abs(g[-1].x - p.x) < 0.18 * width and abs(g[-1].y - p.y) < 0.06 * height]
        if near:
            near[0].append(p)
        else:
            groups.append([p])
    return [Point(", ".join(p.label for p in group), group[0].x, group[0].y) for group in groups]


@styled
def training_curves(name: str, stages: Mapping[str, Curves]) -> Markup | None:
    """Loss of training and the validated figure over the epochs of all stages, one after the other; None without."""
    stages = {stage: curves for stage, curves in stages.items() if curves}
    if not stages:
        return None
    keys = list(dict.fromkeys(key for curves in stages.values() for row in curves for key in row if key not in _ASIDE))
    panels = [key for key in (_LOSS, *keys[:1]) if any(key in row for curves in stages.values() for row in curves)]
    figure, axes = new_figure(5.2, 1.9 * len(panels) + 0.5, nrows=len(panels), sharex=True, squeeze=False)
    told = []
    for panel, key in zip(axes[:, 0], panels, strict=True):
        start = 0
        for (stage, curves), colour in zip(stages.items(), cycle(SERIES), strict=False):
            found = [(start + row["epoch"], row[key]) for row in curves if key in row]
            if found:
                panel.plot(*zip(*found, strict=True), marker="o", ms=3, color=colour, label=stage)
                told.append(f"{key.replace('_', ' ')} in stage {stage} from {found[0][1]:.4g} to {found[-1][1]:.4g}")
            start += int(curves[-1]["epoch"])
        panel.set(ylabel=key.replace("_", " "))
    axes[-1, 0].set(xlabel="epoch, stage after stage")
    name_lines(axes[0, 0], ncols=3)
    return as_svg(figure, name, "training curves", "; ".join(told) + ".")


@styled
def cells_curves(name: str, cells: Mapping[str, Sequence[tuple[str, float]]], heading: str) -> Markup | None:
    """The figure of merit by stage, a line a cell; None where no cell has any."""
    stages = list(dict.fromkeys(stage for line in cells.values() for stage, _ in line))
    if not stages:
        return None
    figure, axes = new_figure(5.2, 3.0)
    for (label, line), colour in zip(cells.items(), cycle(SERIES), strict=False):
        places = [stages.index(stage) for stage, _ in line]
        axes.plot(places, [value for _, value in line], marker="o", ms=3, color=colour, label=label,
                  lw=1.6 if len(cells) <= len(SERIES) else 0.8)  # fmt: skip
    axes.set_xticks(range(len(stages)), [stage.replace("_", "\n") for stage in stages])
    axes.set(ylabel=heading)
    if len(cells) <= len(SERIES):
        name_lines(axes)
    told = "; ".join(f"{label} ends at {line[-1][1]:.4g}" for label, line in cells.items() if line)
    return as_svg(figure, name, f"{heading} by stage", f"{told}.")


@styled
def pwl_errors(name: str, errors: Sequence[TableError]) -> Markup:
    """Error of each table over its inputs, in steps of its output: the band that the integers run through."""
    columns = min(2, len(errors))
    rows = -(-len(errors) // columns)
    figure, axes = new_figure(5.2, 1.7 * rows + 0.4, nrows=rows, ncols=columns, squeeze=False)
    for panel, error in zip(axes.flat, errors, strict=False):
        panel.fill_between(error.x, error.low, error.high, color=SERIES[0], lw=0.8, step="mid")
        panel.axhline(0, color=MUTED, lw=0.6)
        for bound in (-0.5, 0.5):
            panel.axhline(bound, color=GRID, lw=0.8, ls="--")
        panel.set_title(f"{error.name} ({error.function})")
    for panel in axes.flat[len(errors) :]:
        panel.set_visible(False)
    for panel in axes[-1]:
        panel.set_xlabel("input, in the input's own unit")
    told = "; ".join(f"{e.name}: at most {e.largest:.2f} steps, {e.rms:.3f} RMS" for e in errors)
    return as_svg(figure, name, "error of the piecewise-linear tables, in steps of the output", f"{told}.")


@styled
def matrix(name: str, found: Mapping[str, Any]) -> Markup:
    """A `pipelines.core.matrix.Matrix` as shades: the darker (in light) or lighter (in dark), the larger."""
    values = np.asarray(found["values"], np.float64)
    rows, columns = values.shape
    figure, axes = new_figure(5.6, min(8.0, 0.26 * rows + 1.1))
    low, high = found["span"] or (0, columns)
    x, y = np.linspace(low, high, columns + 1), np.arange(rows + 1)
    for row in range(rows):  # runs of one shade are one rectangle: most of an attention is none at all
        for start, stop, shade in _runs(np.round(values[row] * 20).astype(int)):
            if shade > 0:
                axes.fill([x[start], x[stop], x[stop], x[start]], [y[row], y[row], y[row + 1], y[row + 1]],
                          color=SERIES[0], alpha=min(1.0, shade / 20), lw=0)  # fmt: skip
    axes.set(xlim=(low, high), ylim=(rows, 0), xlabel=found["labels"][1], ylabel=found["labels"][0])
    axes.grid(visible=False)
    axes.set_yticks(np.arange(rows) + 0.5, found["rows"])
    if found["columns"] is not None:
        axes.set_xticks(np.arange(columns) + 0.5, found["columns"], rotation=45 if columns > 6 else 0)
        if columns <= 15:
            for row, column in np.argwhere(values > 0):
                colour = SURFACE if values[row, column] > 0.5 else INK
                axes.text(column + 0.5, row + 0.5, f"{values[row, column]:.2f}".lstrip("0") or "0", ha="center",
                          va="center", fontsize=7, color=colour)  # fmt: skip
    peaks = ", ".join(f"{row}: {values[k].max():.2f}" for k, row in enumerate(found["rows"]))
    return as_svg(figure, name, found["title"], f"{found['title']} Largest value of each row: {peaks}.")


def _runs(shades: np.ndarray) -> list[tuple[int, int, int]]:
    """(start, stop, shade) of equal neighbours."""
    edges = [0, *(np.flatnonzero(np.diff(shades)) + 1).tolist(), len(shades)]
    return [(a, b, int(shades[a])) for a, b in pairwise(edges)]
