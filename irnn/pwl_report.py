"""Writes docs/pwl.md and docs/pwl.png: how good the piecewise-linear tables are.

    python -m irnn.pwl_report [--output docs]

Every number on the page is measured by the run that writes it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irnn.errors import IrnnError
from irnn.extras import extra
from irnn.places import need_folder
from irnn.quant.knots import METHODS
from irnn.quant.pwl import PwlTable, fit, output_steps

PIECES = (4, 8, 16, 32, 96)


@dataclass(frozen=True)
class Case:
    """One function on one input grid, with the fixed output grid that networks use for it."""

    function: str
    bits: int
    domain: str
    arguments: dict[str, Any]

    def fit(self, pieces: int, method: str) -> PwlTable:
        return fit(self.function, bits=self.bits, zero_point=0, pieces=pieces, method=method, **self.arguments)


_SIGMOID = {"output_scale": 1 / 255, "output_zero_point": -128, "output_min": -128, "output_max": 127}
_TANH = {"output_scale": 1 / 127, "output_zero_point": 0, "output_min": -128, "output_max": 127}
_EXP = {"output_scale": 1 / 65535, "output_zero_point": 0, "output_min": 0, "output_max": 65535}
CASES = (
    Case("sigmoid", 8, "-8..8", {"scale": 8 / 128, **_SIGMOID}),
    Case("sigmoid", 16, "-8..8", {"scale": 8 / 32768, **_SIGMOID}),
    Case("tanh", 8, "-4..4", {"scale": 4 / 128, **_TANH}),
    Case("tanh", 16, "-4..4", {"scale": 4 / 32768, **_TANH}),
    Case("exp", 8, "0..10.6", {"scale": 1 / 24, "quant_min": 0, "quant_max": 255, **_EXP}),
)

PAGE = """\
# Piecewise-linear tables

Written by `python -m irnn.pwl_report`; edit that module, not this page.

1. A quantized input takes few values, so knots are chosen among them: the table is fitted to the grid that it meets.
2. The target is the real function in steps of the output's grid, clipped to its range; `exp` stands for exp(-x).
3. Grids of up to 1000 inputs start with every input as a knot. Of a 16-bit grid 1000 candidates are taken: half evenly
   spaced, half by the function's bend, so that a grid far wider than the bend still has knots to choose from.
4. A line joins the function's own values at two neighbouring knots, so lines meet and keep the ends, which free
   least-squares lines would not. Prefix sums give its squared error over *all* inputs between them in constant time.
5. `greedy` (iRNN's way) drops the knot that adds the least squared error, until `pieces` lines remain: a heap whose
   outdated entries are skipped. It leaves exactly `pieces` lines, if the grid has that many.
6. `optimal` finds the best knots among the same candidates by dynamic programming; it stops at fewer lines where more
   would not help. Its squared error is never above the greedy one.
7. Slopes and intercepts become integers with one shift for the table: the largest in [8, 24] for which every
   intermediate fits int32 on the whole grid, so kernels may use 32-bit arithmetic.
8. Slopes are rounded toward zero: no line passes the start of the next, so the integers are monotone where the
   function is.
9. The last slope is rounded so that the last input gives the function's own value, rounded once; the first does anyway.

## Error

Integers of the table against the real function, over every input, in steps of the output: sigmoid 1/255, tanh 1/127,
exp 1/65535. "real" is the greatest error times that step. Rounding alone, the limit, gives 0.50 at most and 0.289 RMS.

{table}

Over all tables above: monotone {monotone}, end values exact {ends}, int32 throughout {int32}.

![Error by pieces, and the lines of one table](pwl.png)

Left: RMS error by pieces, dashed at rounding alone. Right: error of an 8-piece sigmoid table of 8-bit inputs before its
last rounding, with its knots.
"""


def _rows() -> Iterator[tuple[Case, int, str, PwlTable]]:
    for case in CASES:
        for pieces in PIECES:
            for method in METHODS:
                yield case, pieces, method, case.fit(pieces, method)


def page() -> str:
    """The Markdown page; fits every table that it reports."""
    lines = [
        "| function | x | input bits | pieces | method | max error | RMS error | real | shift |",
        "|---|---|--:|--:|---|--:|--:|--:|--:|",
    ]
    verdicts = []
    for case, pieces, method, table in _rows():
        error = table.error()
        lines.append(
            f"| {case.function} | {case.domain} | {case.bits} | {pieces} | {method} | {error.max_steps:.2f} | "
            f"{error.rms_steps:.3f} | {error.max_steps * table.output_scale:.4f} | {table.shift} |"
        )
        verdicts.append((error.monotone, error.ends_exact, table.fits_int32()))
    monotone, ends, int32 = (f"{sum(column)} of {len(verdicts)}" for column in zip(*verdicts, strict=True))
    return PAGE.format(table="\n".join(lines), monotone=monotone, ends=ends, int32=int32)


def plot(path: Path) -> None:
    """The figure of the page, as PNG."""
    with extra("train"):
        import matplotlib.figure  # only this figure needs it, and it takes a second to load

    figure = matplotlib.figure.Figure(figsize=(9, 3.4), layout="constrained")
    by_pieces, by_input = figure.subplots(1, 2)
    styles = {"greedy": ":", "optimal": "-"}
    for number, case in enumerate(case for case in CASES if case.function != "exp"):
        for method, style in styles.items():
            rms = [case.fit(pieces, method).error().rms_steps for pieces in PIECES]
            by_pieces.plot(
                PIECES, rms, style, marker="o", ms=3, color=f"C{number}", label=f"{case.function} {case.bits} {method}"
            )
    by_pieces.axhline(12**-0.5, color="grey", ls="--", lw=0.8)
    by_pieces.set(xscale="log", yscale="log", xlabel="pieces", ylabel="RMS error (output steps)")
    by_pieces.set_xticks(PIECES, [str(pieces) for pieces in PIECES])
    by_pieces.minorticks_off()
    by_pieces.legend(fontsize=7)

    for method, style in styles.items():
        table = CASES[0].fit(8, method)
        x = table.scale * (table.grid.astype(np.float64) - table.zero_point)
        piece = np.searchsorted(table.knots, table.grid, side="right") - 1
        y = table.real_values[piece] + table.real_slopes[piece] * (x - table.real_knots[piece])
        steps = output_steps(table.function, x, 1.0, 0, 0, 1)
        error = (y - steps) / table.output_scale
        (line,) = by_input.plot(x, error, style, label=method)
        at_knots = table.knots - table.quant_min
        by_input.plot(x[at_knots], error[at_knots], "o", ms=4, color=line.get_color())
    by_input.axhline(0, color="grey", lw=0.8)
    by_input.set(xlabel="x", ylabel="error (output steps)")
    by_input.legend(fontsize=7)
    figure.savefig(path, dpi=80, metadata={"Software": None})


def main(arguments: list[str]) -> int:
    """Exit code: 0, 1 for bad input (one line on stderr), 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="python -m irnn.pwl_report", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("docs"), help="folder for pwl.md and pwl.png")
    folder = parser.parse_args(arguments).output
    try:
        need_folder(folder, f"--output {folder}")
        folder.mkdir(parents=True, exist_ok=True)
        plot(folder / "pwl.png")
    except IrnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    (folder / "pwl.md").write_text(page(), encoding="utf-8")
    print(f"wrote {folder / 'pwl.md'} and {folder / 'pwl.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
