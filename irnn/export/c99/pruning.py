"""What nothing reads is not written: operations that reach no output and no state, and names that no statement uses."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

from irnn.export.c99.block import WORD
from irnn.program import Node, Program, Scan

DECLARATION = re.compile(r"\s*const \w+ (\w+) = .*;")


def reads(node: Node) -> tuple[str, ...]:
    """The values whose integers an operation reads: of what ``repeat`` is as long as, it reads none."""
    return node.inputs[:1] if node.op == "repeat" else node.inputs


def without_unread(program: Program) -> Program:
    """The program without operations, sequences and collected values that reach neither an output nor a state."""
    read = set(program.outputs)
    nodes: list[Node | Scan] = []
    for item in reversed(program.nodes):
        if isinstance(item, Scan):
            scan = _scan(item, read)
            if scan is not None:
                nodes.append(scan)
        elif item.output in read:
            read.update(reads(item))
            nodes.append(item)
    return replace(program, nodes=tuple(reversed(nodes)))


def _scan(scan: Scan, read: set[str]) -> Scan | None:
    """The part of the scan that is read, whose own reads are added to ``read``."""
    outputs = {outer: inner for outer, inner in scan.outputs.items() if outer in read}
    finals = {outer: name for outer, name in scan.finals.items() if outer in read}
    if not outputs and not finals and set(scan.states) <= set(scan.starts):
        return None
    inside = {*outputs.values(), *(after for _, after in scan.states.values())}
    body: list[Node] = []
    for node in reversed(scan.body):
        if node.output in inside:
            inside.update(node.inputs)
            body.append(node)
    sequences = {inner: outer for inner, outer in scan.sequences.items() if inner in inside}
    if not sequences:  # which says how many steps there are
        sequences = dict([next(iter(scan.sequences.items()))])
    captures = tuple(name for name in scan.captures if name in inside)
    read.update((*sequences.values(), *captures, *scan.starts.values(), *([scan.lengths] if scan.lengths else [])))
    return replace(
        scan, outputs=outputs, finals=finals, body=tuple(reversed(body)), sequences=sequences, captures=captures
    )


def without_unused_names(lines: list[str]) -> list[str]:
    """The statements without declarations of constants that no other one uses."""
    words = [[] if line.lstrip().startswith("/*") else WORD.findall(line) for line in lines]
    uses = Counter(word for line in words for word in line)
    declared = {found[1]: k for k, line in enumerate(lines) if (found := DECLARATION.fullmatch(line))}
    unused = [name for name in declared if uses[name] == 1]
    gone: set[int] = set()
    while unused:
        place = declared[unused.pop()]
        gone.add(place)
        for word in words[place]:
            uses[word] -= 1
            if uses[word] == 1 and word in declared and declared[word] not in gone:
                unused.append(word)
    return [line for k, line in enumerate(lines) if k not in gone]
