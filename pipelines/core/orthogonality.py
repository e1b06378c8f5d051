"""What a program's figures say of orthogonal recurrent matrices: bits, distance from orthogonal, spectrum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from irnn.models.base import RecurrentModel
from irnn.names import readable_name
from irnn.nn.orthogonal.measure import orthogonality
from irnn.quant.site import QuantSite
from pipelines.core.problem import Score

FILE = "spectrum.png"
FIGURES = ("orthogonality", "bits")  # the keys of the figures, `Kind.further`


def measured(model: RecurrentModel, folder: Path) -> Score:
    """`orthogonality` (see `irnn.nn.orthogonal.measure`), `bits` of every matrix and of the states, and a picture of
    the singular values; nothing where the network has no orthogonal matrix."""
    found = orthogonality(model)
    if not found:
        return Score({})
    bits = {name: matrix.bits for name, matrix in model.matrices().items()}
    bits |= {
        readable_name(name): site.bits
        for name, site in model.named_modules()
        if isinstance(site, QuantSite) and site.role == "cell"
    }
    plot_spectra({name: values["singular_values"] for name, values in found.items()}, folder / FILE)
    return Score({"orthogonality": found, "bits": bits}, (FILE,))


def plot_spectra(spectra: Mapping[str, Sequence[float]], path: Path) -> None:
    """Write a PNG: the singular values of each matrix from the largest on, beside the 1 of an orthogonal one."""
    # Without the interface of pyplot, which would keep figures and ask for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.axhline(1.0, color="grey", linewidth=0.8)
    for name, values in spectra.items():
        axes.plot(range(1, len(values) + 1), values, label=name)
    axes.set_xlabel("singular value")
    axes.set_ylabel("of the quantized matrix")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    FigureCanvasAgg(figure).print_png(str(path))
