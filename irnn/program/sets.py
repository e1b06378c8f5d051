"""Programs that belong together: a network that runs in parts, such as a recognizer's encoder and decoder step.

On disk a folder ``programs.json`` (the names, metadata) with one program folder each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irnn.errors import IrnnError
from irnn.program.program import Program

SET_FILE = "programs.json"
SET_VERSION = 1  # of the index; each program has its own


@dataclass(frozen=True)
class ProgramSet(Mapping[str, Program]):
    """A mapping from names to programs; ``metadata`` is free JSON."""

    programs: dict[str, Program]
    metadata: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Program:
        return self.programs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.programs)

    def __len__(self) -> int:
        return len(self.programs)

    def check(self) -> None:
        """:meth:`Program.check` of each."""
        for program in self.programs.values():
            program.check()

    def size_bytes(self) -> int:
        """Bytes of all constants as stored."""
        return sum(program.size_bytes() for program in self.programs.values())

    def describe(self) -> str:
        """The listings, one after the other."""
        return "\n\n".join(f"== {name}\n{program.describe()}" for name, program in self.programs.items())

    def save(self, folder: Any) -> None:
        """Write each program into ``folder/<name>`` and ``programs.json`` last: without it the folder is no set."""
        folder = Path(folder)
        index = folder / SET_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            index.unlink(missing_ok=True)
            for name, program in self.programs.items():
                program.save(folder / name)
            document = {"format_version": SET_VERSION, "programs": list(self.programs), "metadata": self.metadata}
            index.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise IrnnError(f"cannot write the programs to {folder}: {error.strerror or error}") from error
