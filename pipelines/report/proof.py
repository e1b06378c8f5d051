"""What shows that a run's program computes with integers alone, and the same ones everywhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irnn.errors import IrnnError
from irnn.program import Program
from irnn.program.check import ranges

_LIMIT = 2**31
_LIBRARIES = "library-*.so"


@dataclass(frozen=True)
class Fact:
    """name, and what was found; good: True: as promised, False: not, None: it could not be looked at."""

    name: str
    found: str
    good: bool | None = True


def facts_of(results: Mapping[str, Any], programs: Mapping[str, Program], folder: Path) -> list[Fact]:
    """Integers compared, the program's own proof, what the compiled library was made of."""
    facts = [_compared(pair, found) for pair, found in (results["mismatches"] or {}).items()]
    for part, program in programs.items():
        facts += _checked(f"{part}: " if part else "", program)
    libraries = sorted((folder / "artefact").rglob(_LIBRARIES))
    facts += [_disassembled(library, library.relative_to(folder)) for library in libraries]
    if not libraries:
        facts.append(Fact("compiled library", "none: TVM was not installed when it ran", None))
    return facts


def operations_of(programs: Mapping[str, Program]) -> Counter[str]:
    """How often each operation stands in the programs."""
    return Counter(node.op for program in programs.values() for node in program.walk())


def _compared(pair: str, found: Mapping[str, int] | None) -> Fact:
    name = pair.replace("_", " ").replace("tvm", "TVM").replace("qat", "QAT").replace("vs", "against")
    if found is None:
        return Fact(name, "not compared", None)
    return Fact(name, f"{found['count']:,} of {found['compared']:,} integers differ", found["count"] == 0)


def _checked(where: str, program: Program) -> list[Fact]:
    try:
        program.check()
    except IrnnError as error:
        return [Fact(f"{where}proof", str(error), False)]
    values = {node.output: node.op for node in program.walk()}
    spans = {name: max(-low, high) for name, (low, high) in ranges(program).items() if name in values}
    wide = {name: span for name, span in spans.items() if program.values[name].dtype == "int32"}
    facts = [Fact(f"{where}proof", f"{len(values)} operations, no float among them, none can leave its integer type")]
    if wide:
        largest = max(wide, key=lambda name: wide[name])
        share = wide[largest] / _LIMIT
        facts.append(
            Fact(
                f"{where}largest accumulator", f"{largest}: at most {wide[largest]:,}, {share:.2%} of what int32 holds"
            )
        )
    return facts


def _disassembled(library: Path, shown: Path) -> Fact:
    from deploy_tvm.targets.disassembly import disassemble, float_instructions

    try:
        listing = disassemble(library)
    except IrnnError as error:
        return Fact(f"{shown}", f"not looked at: {error}", None)
    manifest = json.loads((library.parent / "manifest.json").read_text(encoding="utf-8"))
    lines = sum(1 for line in listing.splitlines() if ":\t" in line)
    floats = float_instructions(listing)
    found = f"{lines:,} instructions ({manifest['kernels']}), " + (
        f"floating-point among them: {', '.join(floats)}" if floats else "no floating-point arithmetic among them"
    )
    return Fact(str(shown), found, not floats)
