"""C identifiers: unique, and near to the names that a program gives."""

from __future__ import annotations

import re

# Of C99, and what the generated function itself uses.
RESERVED = frozenset({
    "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern",
    "float", "for", "goto", "if", "inline", "int", "long", "register", "restrict", "return", "short", "signed",
    "sizeof", "static", "struct", "switch", "typedef", "union", "unsigned", "void", "volatile", "while", "state",
    "scratch", "steps", "memory_size", "main",
})  # fmt: skip


def identifier(text: str) -> str:
    """Letters, digits and underscores in the place of everything else, beginning with a letter."""
    name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "x"
    return name if name[0].isalpha() else f"x_{name}"


class Names:
    """Names of one scope, none twice."""

    def __init__(self) -> None:
        self._taken = set(RESERVED)
        self._counts: dict[str, int] = {}

    def new(self, prefix: str) -> str:
        """``prefix`` with the next number behind it."""
        while True:
            count = self._counts.get(prefix, 0)
            self._counts[prefix] = count + 1
            name = f"{prefix}{count}"
            if name not in self._taken:
                self._taken.add(name)
                return name

    def like(self, text: str) -> str:
        """An identifier as near to ``text`` as is free."""
        name = identifier(text)
        if name in self._taken:
            return self.new(f"{name}_")
        self._taken.add(name)
        return name
