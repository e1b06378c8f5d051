"""Vector figures of the report: matplotlib draws, and what it writes becomes a part of a page.

matplotlib and not a library of interactive charts: its SVG needs no script and no network, prints as it is, and takes
some kilobytes where the bundle of plotly alone takes more than a whole page may have.  Colours are left to the page:
what is drawn in a placeholder becomes a CSS variable, so that one figure serves light and dark.
"""

from __future__ import annotations

import io
import re
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_SVG = "http://www.w3.org/2000/svg"
_LINK = "http://www.w3.org/1999/xlink"
# Placeholders by the CSS variables that they become (`templates/style.css`).
INK, MUTED, GRID, SURFACE = "#010101", "#020202", "#030303", "#040404"
SERIES = tuple(f"#0505{number:02x}" for number in range(1, 9))
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", SURFACE: "surface"} | {
    colour: f"series-{number}" for number, colour in enumerate(SERIES, 1)
}
_COLOUR = re.compile("|".join(_VARIABLES))
# Text stays text: it is small, can be found, and is read aloud.
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
    "lines.linewidth": 1.6,
}


# Decorates what draws: whatever it makes has the report's style.
styled = matplotlib.rc_context(_STYLE)


def new_figure(width: float = 4.8, height: float = 3.0, **grid: Any) -> tuple[Figure, Any]:
    """(figure, its axes); inches, which a page scales. grid: arguments of `subplots`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**grid)


def as_svg(figure: Figure, name: str, title: str, description: str) -> Markup:
    """The figure as an `<svg>` element with its text alternative.

    name: unique on the page.  title: what is shown, in a few words.  description: what one sees, in a sentence or two.
    """
    written = io.BytesIO()
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(written, metadata={"Date": None, "Creator": None})
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    root = ElementTree.fromstring(written.getvalue())
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    for element in root.iter():
        for key, value in element.attrib.items():
            element.set(key, _COLOUR.sub(lambda found: f"var(--{_VARIABLES[found[0]]})", value))
        if (identity := element.get("id")) is not None:
            element.set("id", f"{name}-{identity}")
        for key, value in element.attrib.items():  # clip paths and markers, which other figures of the page have too
            value = re.sub(r"url\(#", f"url(#{name}-", value)
            element.set(key, re.sub(r"^#(?=[A-Za-z_])", f"#{name}-", value) if key.endswith("href") else value)
    for tag, text, place in (("title", title, 0), ("desc", description, 1)):
        child = ElementTree.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{tag}"})
        child.text = text
        root.insert(place, child)
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-desc")
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def name_lines(axes: Axes, **more: Any) -> None:
    """A legend where there is more than one line."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        axes.legend(handles, labels, **more)
