"""The C99 files of a program: header and source, and what they need of a device's memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from irnn.export.c99.block import INDENT, WORD
from irnn.export.c99.lowering import Argument, Lowering
from irnn.export.c99.memory import Slot, assign, c_type
from irnn.export.c99.names import Names, identifier
from irnn.export.c99.pruning import without_unused_names
from irnn.export.c99.writer import COUNTS, INDEX_MAX
from irnn.program import Program
from irnn.program.axes import Axis
from irnn.program.graph import INTEGER_DTYPES

RUNTIME = "irnn_runtime.h"


@dataclass(frozen=True)
class Source:
    """header, body: the text of ``NAME.h`` and ``NAME.c``.  Sizes in bytes; limits: of the axes that need one."""

    name: str
    header: str
    body: str
    constants: int
    scratch: int
    state: int
    limits: dict[str, int]


def source(program: Program, name: str, limits: Mapping[str, int]) -> Source:
    """The files of one program.  name: begins every C name; limits: the most places along "time" and "memory"."""
    program.check()
    return _Files(program, identifier(name), limits).build()


class _Files:
    def __init__(self, program: Program, name: str, limits: Mapping[str, int]) -> None:
        self.program, self.name = program, name
        self.lowered = Lowering(program, limits, Names())
        self.slots, self.chosen = assign([p for p in self.lowered.work.places if p.first >= 0])
        self.members = _members(self.slots)
        self.limits = {axis: limits[axis] for axis in sorted(self.lowered.work.needed)}

    def build(self) -> Source:
        state = sum(int(np.prod(s.shape, dtype=int)) * np.dtype(s.dtype).itemsize for s in self.program.states.values())
        scratch = sum(slot.bytes for slot in self.slots)
        constants = self.lowered.constants.bytes()
        return Source(
            self.name, self._header(state, scratch, constants), self._body(), constants, scratch, state, self.limits
        )

    # signature

    def _signature(self) -> str:
        parts = []
        if self.program.states:
            parts.append(f"{self.name}_state *state")
        if self.slots:
            parts.append(f"{self.name}_scratch *scratch")
        parts += [f"int32_t {COUNTS[axis]}" for axis in self._axes()]
        parts += [_parameter(argument, "const ") for argument in self.lowered.inputs]
        parts += [_parameter(argument, "") for argument in self.lowered.outputs]
        return f"int {self.name}_run({', '.join(parts)})"

    def _axes(self) -> list[str]:
        """The axes that a call gives the size of, in the order of the inputs."""
        return list(dict.fromkeys(Axis.parse(axis).root for v in self.program.inputs.values() for axis in v.axes))

    # header

    def _header(self, state: int, scratch: int, constants: int) -> str:
        guard = f"{self.name.upper()}_H"
        lines = [
            f"/* {self.name}: an integer-only program of irnn as C99.",
            " *",
            f" * Fixed memory: constants {constants:,} bytes (read-only), scratch {scratch:,} bytes, state {state:,}",
            " * bytes; no heap, no recursion, no floating point.  A call takes one sequence.",
            " *",
            *self._described(),
            " */",
            f"#ifndef {guard}",
            f"#define {guard}",
            "",
            "#include <stdint.h>",
            "",
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "",
        ]
        if self.program.states:
            lines += ["/* What is carried from call to call. */", "typedef struct {"]
            for name, value in self.program.states.items():
                size = int(np.prod(value.shape, dtype=int))
                lines.append(f"{INDENT}{c_type(value.dtype)} {self.lowered.members[name]}[{size}];")
            lines += [f"}} {self.name}_state;", ""]
        if self.slots:
            lines += ["/* Room for a call; it holds nothing between calls. */", "typedef struct {"]
            order = sorted(range(len(self.slots)), key=lambda k: -np.dtype(self.slots[k].dtype).itemsize)
            lines += [f"{INDENT}{c_type(self.slots[k].dtype)} {self.members[k]}[{self.slots[k].size}];" for k in order]
            lines += [f"}} {self.name}_scratch;", ""]
        if self.program.states:
            lines += [
                "/* The state before the first step. */",
                f"void {self.name}_reset({self.name}_state *state);",
                "",
            ]
        lines += [
            "/* 0, or IRNN_BAD_SIZE or IRNN_BAD_INPUT (irnn_runtime.h), where nothing was computed. */",
            f"{self._signature()};",
            "",
            "#ifdef __cplusplus",
            "}",
            "#endif",
            "",
            "#endif",
        ]
        return "\n".join(lines) + "\n"

    def _described(self) -> list[str]:
        lines = []
        for axis in self._axes():
            fewest = self.program.fewest.get(axis, 1)
            most = f"{fewest} to {self.limits[axis]:,}" if axis in self.limits else f"any number from {fewest} on"
            lines.append(f" * {COUNTS[axis]}: {most}")
        for argument in self.lowered.inputs:
            value = argument.value
            lines.append(f" * {argument.name}: in, {_form(argument)}, {value.low} to {value.high}{_scale(argument)}")
        for argument in self.lowered.outputs:
            lines.append(f" * {argument.name}: out, {_form(argument)}{_scale(argument)}")
        return lines

    # source

    def _body(self) -> str:
        lines = [
            f"/* {self.name}: see {self.name}.h.  Written by irnn from a program; not to be edited. */",
            "#include <stddef.h>",
            "",
            f'#include "{self.name}.h"',
            f'#include "{RUNTIME}"',
            "",
            *self.lowered.constants.definitions(),
            "",
        ]
        if self.program.states:
            lines += [f"void {self.name}_reset({self.name}_state *state)", "{"]
            for name, state in self.program.states.items():
                size = int(np.prod(state.shape, dtype=int))
                member = self.lowered.members[name]
                lines.append(f"{INDENT}for (int32_t i = 0; i < {size}; ++i) state->{member}[i] = {state.initial};")
            lines += ["}", ""]
        statements = without_unused_names([*self._checks(), *self.lowered.lines])
        used = set(WORD.findall(" ".join(line for line in statements if not line.lstrip().startswith("/*"))))
        unused = [f"{INDENT}(void){x.name};" for x in self.lowered.inputs if x.name not in used]
        lines += [self._signature(), "{", *unused]
        mark = re.compile("@([^@]+)@")
        lines += [
            mark.sub(lambda found: f"scratch->{self.members[self.chosen[found[1]]]}", line) for line in statements
        ]
        lines += [f"{INDENT}return IRNN_OK;", "}"]
        return "\n".join(lines) + "\n"

    def _checks(self) -> list[str]:
        """Sizes and ranges for which the program was proved and the scratch was made."""
        lines, fewest = [], self.program.fewest
        for root in self._axes():
            # What borders add to a size is still an int32_t.
            added = max((axis.offset for axis in self.lowered.work.axes if axis.root == root), default=0)
            limit = self.limits.get(root, INDEX_MAX - added if added > 0 else None)
            most = "" if limit is None else f" || {COUNTS[root]} > {limit}"
            lines.append(f"{INDENT}if ({COUNTS[root]} < {fewest.get(root, 1)}{most}) return IRNN_BAD_SIZE;")
        for axis, name in self.lowered.work.axes.items():
            if axis != Axis(axis.root):
                sum_ = f"{COUNTS[axis.root]} {'-' if axis.offset < 0 else '+'} {abs(axis.offset)}"
                lines.append(f"{INDENT}const int32_t {name} = ({sum_}) / {axis.factor};")
        for argument in self.lowered.inputs:
            lines += _range_check(argument)
        return lines


def _range_check(argument: Argument) -> list[str]:
    value, name = argument.value, argument.name
    assert value.low is not None  # check has seen to it
    assert value.high is not None
    limits = INTEGER_DTYPES[value.dtype]
    high = f"{name}{{at}} > {value.high}"
    if value.counts is not None:  # lengths count places that are there
        high += f" || {name}{{at}} > {COUNTS[value.counts]}"
    tests = [f"{name}{{at}} < {value.low}"] if value.low > limits[0] else []
    tests += [high] if value.high < limits[1] or value.counts is not None else []
    if not tests:
        return []
    test = " || ".join(tests)
    if argument.is_number:
        return [f"{INDENT}if ({test.format(at='')}) return IRNN_BAD_INPUT;"]
    size = " * ".join([*(f"(size_t){COUNTS[Axis.parse(axis).root]}" for axis in value.axes), *map(str, value.shape)])
    return [
        f"{INDENT}for (size_t i = 0; i < {size}; ++i) {{",
        f"{INDENT * 2}if ({test.format(at='[i]')}) return IRNN_BAD_INPUT;",
        f"{INDENT}}}",
    ]


def _parameter(argument: Argument, const: str) -> str:
    if argument.is_number and const:
        return f"{c_type(argument.value.dtype)} {argument.name}"
    return f"{const}{c_type(argument.value.dtype)} *{argument.name}"


def _form(argument: Argument) -> str:
    value = argument.value
    sizes = []
    for text in value.axes:
        axis = Axis.parse(text)
        sizes.append(COUNTS[axis.root] if axis == Axis(axis.root) else _length(axis))
    return f"{c_type(value.dtype)}" + "".join(f"[{size}]" for size in (*sizes, *value.shape))


def _length(axis: Axis) -> str:
    """How the comment says it."""
    moved = COUNTS[axis.root] + (f" {'-' if axis.offset < 0 else '+'} {abs(axis.offset)}" if axis.offset else "")
    return moved if axis.factor == 1 else f"floor(({moved}) / {axis.factor})"


def _scale(argument: Argument) -> str:
    value = argument.value
    if value.scale is None or not value.shape:
        return ""
    zero = f" (q - {value.zero_point})" if value.zero_point else " q"
    return f"; r = {value.scale:.8g}{zero}"


def _members(slots: list[Slot]) -> list[str]:
    counts: dict[str, int] = {}
    names = []
    for slot in slots:
        number = counts.get(slot.dtype, 0)
        counts[slot.dtype] = number + 1
        names.append(f"{slot.dtype}_{number}")
    return names
