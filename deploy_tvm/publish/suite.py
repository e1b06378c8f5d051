"""A suite of figures of one machine: a results file for each kind of CPU, which grows row by row.

Rows that the file holds are kept, so that a suite which was ended goes on where it stood; what shall be measured anew
is deleted from the file first.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from deploy_tvm.bench.bench import bench
from deploy_tvm.bench.measure import Progress, Settings, prefixed
from deploy_tvm.bench.subject import Subject, made
from deploy_tvm.bench.utterance import Utterance
from deploy_tvm.targets import machine
from deploy_tvm.targets.kernel_sets import host
from irnn.commit import commit
from irnn.errors import IrnnError
from irnn.random_programs import LINEAR, Layer, layer_programs

RESULTS = Path(__file__).parents[2] / "docs" / "results"
# Other bits than 8, 4 and 2: of orthogonal layers 1 is a Hadamard matrix, U of which has the bits behind it.
BITS = {"ornn": (8, 5, 4, 1)}
HADAMARD_INPUT_BITS = 4
# What a row keeps of a benchmark's result.
KEPT = ("cpu", "kernels", "us_per_step", "gb_per_s", "floor", "reasons", "chosen", "mismatches", "versions", "measured")


@dataclass(frozen=True)
class Row:
    """One measurement: a layer with random weights, so many steps and sequences a call."""

    cell: str
    size: int
    bits: int
    steps: int
    batch: int

    def name(self, kernels: str) -> str:
        """Its key in the results."""
        return f"{self.cell} {self.size}, W{self.bits}, {self.steps} steps, batch {self.batch}, {kernels}"

    @property
    def layer(self) -> Layer:
        """What is measured.  An orthogonal layer has weights in two's complement; its 1 bit is HadamRNN's.

        A product alone is that of an LSTM's gates, size -> 4 size.
        """
        if self.cell == LINEAR:
            return Layer(self.size, 4 * self.size, weight_bits=self.bits, cell=self.cell)
        if self.cell != "ornn":
            return Layer(self.size, self.size, weight_bits=self.bits, cell=self.cell)
        hadamard = self.bits == 1
        bits = HADAMARD_INPUT_BITS if hadamard else self.bits
        return Layer(self.size, self.size, weight_bits=bits, cell=self.cell, code="full_range", hadamard=hadamard)


@dataclass(frozen=True)
class Suite:
    """Every combination of these."""

    cell: tuple[str, ...]
    size: tuple[int, ...]
    bits: tuple[int, ...]
    steps: tuple[int, ...]
    batch: tuple[int, ...]

    @classmethod
    def keys(cls) -> list[str]:
        """What :meth:`only` can choose by."""
        return [field.name for field in fields(cls)]

    def rows(self) -> Iterator[Row]:
        """Row by row, those of one layer together; bits that a cell is not measured with are left out."""
        for values in itertools.product(*(getattr(self, key) for key in self.keys())):
            row = Row(*values)
            if row.bits in BITS.get(row.cell, (8, 4, 2)):
                yield row

    def only(self, text: str) -> Suite:
        """The part that ``size=650,size=128,batch=1`` chooses; a key that is not given keeps all of its values."""
        chosen: dict[str, list[str]] = {}
        for part in text.split(","):
            key, _, value = part.strip().partition("=")
            if key not in self.keys():
                raise IrnnError(f"--only {part.strip()}: give KEY=VALUE; keys are {', '.join(self.keys())}")
            known = [str(each) for each in getattr(self, key)]
            if value not in known:
                raise IrnnError(f"--only {part.strip()}: of {key} there are {', '.join(known)}")
            chosen.setdefault(key, []).append(value)
        kept = {key: tuple(v for v in getattr(self, key) if str(v) in values) for key, values in chosen.items()}
        return replace(self, **kept)


LAYERS = "layers"  # what `--suite` alone measures
SUITES = {
    LAYERS: Suite(("lstm", "gru"), (128, 256, 650, 1024, 2048), (8, 4, 2), (1, 35), (1, 8, 32)),
    # Orthogonal layers, and LSTMs of the same sizes: the table of docs/orthogonal.md.
    "orthogonal": Suite(("ornn", "lstm"), (128, 256, 512), (8, 5, 4, 1), (1, 35), (1,)),
    "products": Suite((LINEAR,), (650, 1024), (8, 4, 2), (1, 35), (1,)),
}


def run(suite: Suite, kernels: str | None, settings: Settings, folder: Path, progress: Progress) -> Path:
    """Measure the rows that the machine's file in ``folder`` lacks, and write it after each of them; the file.

    kernels: the set, None for the CPU's best.  settings: all but the batch.
    """
    source, described, target = commit(), machine.describe(), host(kernels)
    kind, chosen = machine.kind(described), target.kernels().name
    path = folder / f"bench_{kind}.json"
    known = {key: described[key] for key in ("cpu", "family", "flags")}
    results = read(path) if path.exists() else {"kind": kind, **known, "rows": {}}
    missing = [row for row in suite.rows() if row.name(chosen) not in results["rows"]]
    for layer, rows in itertools.groupby(missing, key=lambda row: row.layer):
        with tempfile.TemporaryDirectory(prefix="irnn-suite-") as scratch:
            subject = made(layer.cell, *layer_programs(layer), Path(scratch), progress, target)
            for row in rows:
                name = row.name(chosen)
                found = _measured(row, subject, settings, prefixed(progress, name))
                results["rows"][name] = asdict(row) | found | {"commit": source}
                _write(path, results)
    return path


def read(path: Path) -> dict[str, Any]:
    """A results file; an ``IrnnError`` where it is damaged."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        if f"bench_{results['kind']}.json" != path.name or not isinstance(results["rows"], dict):
            raise ValueError("it holds the rows of another machine")
    except (ValueError, KeyError, TypeError) as error:
        raise IrnnError(f"{path} is damaged ({error}): delete it and measure again") from None
    return results


def _measured(row: Row, subject: Subject, settings: Settings, progress: Progress) -> dict[str, Any]:
    result = bench(subject, row.steps, Utterance(), replace(settings, batch=row.batch), progress)
    if result["mismatches"]["count"]:
        raise IrnnError(f"{row}: the built program differs from the interpreter: {result['mismatches']}")
    limit = {key: value for key, value in result["floor"].items() if key != "explanation"}
    load = result["machine"]["load_average"]
    return {key: result[key] for key in KEPT} | {"floor": limit, "load_average": load}


def _write(path: Path, results: dict[str, Any]) -> None:
    """In one step: a suite that is ended leaves whole rows."""
    scratch = path.with_suffix(".partial")
    scratch.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(scratch, path)
