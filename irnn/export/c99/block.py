"""A nest of loops that is being written: each value stands in the outermost loop that can compute it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from irnn.export.c99.memory import c_type

if TYPE_CHECKING:
    from irnn.export.c99.arrays import Array, Index

WORD = re.compile(r"[A-Za-z_]\w*")
INDENT = "    "


class Block:
    """loops: (variable, bound) from the outermost on; names: gives a name that nothing has yet."""

    def __init__(self, loops: list[tuple[str, Index]], names: Callable[[str], str]) -> None:
        self.loops, self.names = loops, names
        self.before: list[list[str]] = [[] for _ in range(len(loops) + 1)]
        self.after: list[list[str]] = [[] for _ in range(len(loops) + 1)]
        self._levels = {variable: k + 1 for k, (variable, _) in enumerate(loops)}
        self._memory: dict[tuple[int, tuple[Index, ...]], tuple[Array, str]] = {}

    def bound(self, array: Array, index: tuple[Index, ...], expression: Callable[[], str]) -> str:
        """The name of an element: its expression is written once."""
        key = (id(array), index)
        if key not in self._memory:
            text = expression()
            level = max((self._levels.get(word, 0) for word in WORD.findall(text)), default=0)
            name = self.names("v")
            self.before[level].append(f"const {c_type(array.dtype)} {name} = {text};")
            self._levels[name] = level
            self._memory[key] = (array, name)
        return self._memory[key][1]

    def render(self) -> list[str]:
        """The lines, the outermost not indented."""
        lines: list[str] = []
        for level, statements in enumerate(self.before):
            lines += [INDENT * level + line for line in statements]
            if level < len(self.loops):
                variable, bound = self.loops[level]
                lines.append(f"{INDENT * level}for (int32_t {variable} = 0; {variable} < {bound}; ++{variable}) {{")
        for level in reversed(range(len(self.after))):
            lines += [INDENT * level + line for line in self.after[level]]
            if level:
                lines.append(f"{INDENT * (level - 1)}}}")
        return lines
