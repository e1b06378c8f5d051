"""Writes the statements of a C function: loops that store arrays, sums, and the memory that they need."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from irnn.errors import IrnnError
from irnn.export.axes import Size, Stretch
from irnn.export.c99.arrays import Array, Concat, Index, Number, Scalar, Stored, literal
from irnn.export.c99.block import INDENT, Block
from irnn.export.c99.memory import Place, c_type
from irnn.export.c99.names import Names, identifier
from irnn.export.shapes import known
from irnn.program.axes import Axis

COUNTS = {"time": "steps", "memory": "memory_size"}  # the arguments that give an axis's size
OPTIONS = {"time": "max_steps", "memory": "max_memory"}  # the export's argument that bounds it
INDEX_MAX = (1 << 31) - 1


class Writer:
    """limits: the most places of each axis that a call may have, of those that the export was told.

    ``position`` counts statements: the life of a place is an interval of it.
    """

    def __init__(self, names: Names, limits: Mapping[str, int]) -> None:
        self.names, self.limits = names, limits
        self.lines: list[str] = []
        self.places: list[Place] = []
        self.axes: dict[Axis, str] = {}
        self.needed: set[str] = set()
        self.position = 0
        self._depth = 1

    # sizes

    def bound(self, size: Size) -> Index:
        """The size as a number or the C expression of it."""
        if isinstance(size, int):
            return size
        if isinstance(size, Stretch):
            return f"({self.bound(size.steps)} * {size.scale} + {size.offset})"
        return self.count(size.axis)

    def count(self, axis: Axis) -> str:
        """The variable that holds how many places the axis has."""
        if axis not in self.axes:
            count = COUNTS.get(axis.root)
            if count is None:
                raise IrnnError(f"the C99 export knows no axis {axis.root!r}, only {', '.join(COUNTS)}")
            plain = axis == Axis(axis.root)
            self.axes[axis] = count if plain else self.names.like(identifier(f"{count}_{axis.name}"))
        return self.axes[axis]

    def most(self, size: Size, why: str) -> int:
        """The largest size that a call can have; why: what has to be as large."""
        if isinstance(size, int):
            return size
        if isinstance(size, Stretch):
            return size.scale * self.most(size.steps, why) + size.offset
        root = size.axis.root
        self.needed.add(root)
        if root not in self.limits:
            raise IrnnError(
                f"{OPTIONS[root]}: {why} is kept for a whole call; give the most that a call has along {root}, for "
                f"example {OPTIONS[root]}=1000"
            )
        return max(1, size.axis.size(self.limits[root]))

    # statements

    def emit(self, lines: list[str]) -> None:
        """Write lines at the present depth."""
        self.lines += [INDENT * self._depth + line for line in lines]
        self.position += 1

    def open(self, line: str) -> None:
        """Begin a nested statement: ``line {``."""
        self.emit([f"{line} {{"])
        self._depth += 1

    def close(self) -> None:
        """End it."""
        self._depth -= 1
        self.emit(["}"])

    # memory

    def place(self, dtype: str, shape: tuple[Size, ...], why: str) -> Stored:
        """Room in the scratch for an array of the shape."""
        size = prod(self.most(part, why) for part in shape)
        if size > INDEX_MAX:
            raise IrnnError(f"{why} has {size} elements; at most {INDEX_MAX} fit: lower the limits of a call")
        place = Place(str(len(self.places)), dtype, size)
        self.places.append(place)
        return Stored.contiguous(self, place, shape)

    def stored(self, array: Array) -> Array:
        """The array in memory, or as one variable; it is left where it is if it is there already."""
        return array if isinstance(array, (Stored, Scalar, Number)) else self.copied(array)

    def copied(self, array: Array, why: str = "an intermediate") -> Array:
        """A copy of it; one element becomes a variable."""
        if all(size == 1 for size in array.shape):
            block = Block([], self.names.new)
            value = array.element(block, (0,) * len(array.shape))
            name = self.names.new("s")
            block.after[0].append(f"const {c_type(array.dtype)} {name} = {value};")
            self.emit(block.render())
            return Scalar(self, name, array.shape, array.dtype)
        target = self.place(array.dtype, array.shape, why)
        self.store(target, array)
        return target

    def in_memory(self, array: Array) -> Stored:
        """The array as a C array whose last axis lies in a row."""
        if isinstance(array, Stored) and (array.shape[-1] == 1 or array.strides[-1] == 1):
            return array
        target = self.place(array.dtype, array.shape, "the operand of a product")
        self.store(target, array)
        return target

    def store(self, target: Stored, array: Array) -> None:
        """Write the array's elements to ``target``, of whose shape it is."""
        if isinstance(array, Concat):
            start = 0
            for part in array.parts:
                size = known(part.shape[-1])
                piece = target[..., start : start + size]
                assert isinstance(piece, Stored)
                self.store(piece, part)
                start += size
            return
        block, index = self._loops(target.shape)
        value = array.element(block, array.aligned(index))
        block.after[-1].append(f"{target.element(block, index)} = {value};")
        self.emit(block.render())

    def reduced(self, array: Array, initial: int, step: str) -> Array:
        """The last axis reduced to one element by ``step``, a statement of ``{total}`` and ``{value}``."""
        shape = (*array.shape[:-1], 1)
        block, index = self._loops(array.shape)
        inside = array.shape[-1] != 1
        level = len(block.loops) - inside
        total = self.names.new("s")
        block.before[level].append(f"{c_type(array.dtype)} {total} = {literal(initial, array.dtype)};")
        value = array.element(block, index)
        block.after[-1].insert(0, step.format(total=total, value=value))
        result: Array = Scalar(self, total, shape, array.dtype)
        if level:
            target = self.place(array.dtype, shape, "a sum")
            block.after[level].append(f"{target.element(block, (*index[:-1], 0))} = {total};")
            result = target
        self.emit(block.render())
        return result

    def _loops(self, shape: tuple[Size, ...]) -> tuple[Block, tuple[Index, ...]]:
        """A nest of loops over the axes that are longer than one, and the index in it."""
        loops: list[tuple[str, Index]] = []
        index: list[Index] = []
        for size in shape:
            if size == 1:
                index.append(0)
                continue
            loops.append((self.names.new("i"), self.bound(size)))
            index.append(loops[-1][0])
        return Block(loops, self.names.new), tuple(index)
