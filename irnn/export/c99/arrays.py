"""Arrays of C expressions: what ``Operation.apply`` computes with when a program is written as C99.

An array knows its shape, its dtype and how to write the expression of one element; nothing is computed and nothing
written until a loop asks for elements.  So the text of ``irnn.arithmetic.fixed_point`` becomes the body of one loop.
Arithmetic is that of int32 and int64 alone, so that no C promotion can change a number.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from irnn.export.axes import Size, span
from irnn.export.c99.memory import Place
from irnn.export.shapes import broadcast, known, reshaped

if TYPE_CHECKING:
    from irnn.export.c99.block import Block
    from irnn.export.c99.writer import Writer

Index = int | str
WIDE = ("int32", "int64")


def plus(a: Index, b: Index) -> Index:
    """The index ``a + b``."""
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    if a == 0 or b == 0:
        return b if a == 0 else a
    return f"{a} - {-b}" if isinstance(b, int) and b < 0 else f"{a} + {b}"


def times(a: Index, k: int) -> Index:
    """The index ``a * k``."""
    if isinstance(a, int):
        return a * k
    if k in (0, 1):
        return a if k else 0
    return f"{a} * {k}" if a.replace("_", "").isalnum() else f"({a}) * {k}"


def literal(value: int, dtype: str) -> str:
    """An integer constant of the dtype."""
    bits = 64 if dtype == "int64" else 32
    if value == -(1 << (bits - 1)):
        return f"(-INT{bits}_C({-value - 1}) - 1)"
    text = f"INT{bits}_C({abs(value)})" if dtype in WIDE else str(abs(value))
    return f"(-{text})" if value < 0 else text


class Array:
    """One element an index; ``work`` writes what must be stored first."""

    def __init__(self, work: Writer, shape: tuple[Size, ...], dtype: str) -> None:
        self.work, self.shape, self.dtype = work, shape, dtype

    def element(self, block: Block, index: Sequence[Index]) -> str:
        """A C expression without side effects; what it needs computed is bound to names in ``block``."""
        raise NotImplementedError

    def aligned(self, index: Sequence[Index]) -> tuple[Index, ...]:
        """This array's own index, of that of a result that it broadcasts to."""
        own = tuple(index)[len(index) - len(self.shape) :]
        return tuple(0 if size == 1 else i for size, i in zip(self.shape, own, strict=True))

    def _wide(self, *others: Array) -> None:
        for array in (self, *others):
            if array.dtype not in WIDE or array.dtype != self.dtype:
                raise TypeError(f"C arithmetic is that of one of {WIDE}, not of {self.dtype} and {array.dtype}")

    def _with(self, other: Array | int, number: Callable[[int, int], int], text: Callable[[str, str], str]) -> Array:
        """An operation of int32 or int64; of two numbers it is computed at once."""
        other = other if isinstance(other, Array) else Number(self.work, other, self.dtype)
        self._wide(other)
        if isinstance(self, Number) and isinstance(other, Number):
            return Number(self.work, number(self.value, other.value), self.dtype, broadcast(self.shape, other.shape))
        return Computed(self.work, self.dtype, text, self, other)

    def _is_zero(self, beside: Array) -> bool:
        """Whether adding it to ``beside`` changes nothing."""
        fits = len(self.shape) <= len(beside.shape) and all(size == 1 for size in self.shape)
        return isinstance(self, Number) and self.value == 0 and self.dtype == beside.dtype and fits

    def __add__(self, other: Array | int) -> Array:
        if isinstance(other, Array) and other._is_zero(self):
            return self
        return self._with(other, operator.add, lambda a, b: f"{a} + {b}")

    def __sub__(self, other: Array | int) -> Array:
        if isinstance(other, Array) and other._is_zero(self):
            return self
        return self._with(other, operator.sub, lambda a, b: f"{a} - {b}")

    def __mul__(self, other: Array | int) -> Array:
        return self._with(other, operator.mul, lambda a, b: f"{a} * {b}")

    def __lshift__(self, other: Array) -> Array:
        """A product: C leaves the left shift of a negative number undefined."""
        one = literal(1, self.dtype)
        return self._with(other, operator.lshift, lambda a, b: f"{one} << {b}" if a == one else f"{a} * ({one} << {b})")

    def __rshift__(self, other: Array) -> Array:
        return self._with(other, operator.rshift, lambda a, b: f"irnn_shift{self.dtype[3:]}({a}, {b})")

    def __floordiv__(self, other: Array | int) -> Array:
        return self._with(other, operator.floordiv, lambda a, b: f"irnn_floor_div{self.dtype[3:]}({a}, {b})")

    def __le__(self, other: Array) -> Array:
        # An element and itself: compilers warn of a comparison that is always true.
        return Computed(self.work, "bool", lambda a, b: "1" if a == b else f"({a} <= {b})", self, other, bind=False)

    def __getitem__(self, key: Any) -> Array:
        return View(self, *_parse(self.work, self.shape, key))

    def reshape(self, *shape: Any) -> Array:
        """Stored first, where more than axes of one element come or go: only memory can be counted in another way."""
        new = reshaped(self.shape, shape)
        if [size for size in self.shape if size != 1] != [size for size in new if size != 1]:
            return self._joined(new) if _leads(self.shape, new) else self.work.stored(self).reshape(*new)
        longer = iter([k for k, size in enumerate(new) if size != 1])
        return View(self, new, [0 if size == 1 else (0, 1, next(longer)) for size in self.shape])

    def _joined(self, new: tuple[Size, ...]) -> Array:
        """The last axes as one: a sequence of such is not stored for it."""
        lead = len(new) - 1
        inner = [known(size) for size in self.shape[lead:]]

        def function(block: Block, index: tuple[Index, ...]) -> str:
            place: list[Index] = []
            step = known(new[-1])
            for size in inner:
                step //= size
                whole = index[-1] if step == 1 else f"({index[-1]}) / {step}"
                place.append(whole if size == inner[0] and not place else f"({whole}) % {size}")
            return self.element(block, self.aligned((*index[:lead], *place)))

        return Element(self.work, new, self.dtype, function)

    def swapaxes(self, a: int, b: int) -> Array:
        """Two axes exchanged."""
        order = list(range(len(self.shape)))
        order[a], order[b] = order[b], order[a]
        shape = tuple(self.shape[axis] for axis in order)
        return View(self, shape, [(0, 1, order.index(axis)) for axis in range(len(order))])


class Number(Array):
    """One known number for all elements."""

    def __init__(self, work: Writer, value: int, dtype: str, shape: tuple[Size, ...] = ()) -> None:
        super().__init__(work, shape, dtype)
        self.value = value

    def element(self, block: Block, index: Sequence[Index]) -> str:
        return literal(self.value, self.dtype)

    def reshape(self, *shape: Any) -> Array:
        return Number(self.work, self.value, self.dtype, reshaped(self.shape, shape))


class Computed(Array):
    """An elementwise function; its value is bound to a name once for each index unless ``bind`` is false."""

    def __init__(
        self, work: Writer, dtype: str, function: Callable[..., str], *operands: Array, bind: bool = True
    ) -> None:
        super().__init__(work, broadcast(*(x.shape for x in operands)), dtype)
        self.function, self.operands, self.bind = function, operands, bind

    def element(self, block: Block, index: Sequence[Index]) -> str:
        index = self.aligned(index)

        def expression() -> str:
            return self.function(*(x.element(block, x.aligned(index)) for x in self.operands))

        return block.bound(self, index, expression) if self.bind else expression()


class View(Array):
    """Some elements of an array that is computed on demand.

    sources: for each axis of ``base`` an index, or (start, step, the axis of this array that walks along it).
    """

    def __init__(self, base: Array, shape: tuple[Size, ...], sources: list[Any]) -> None:
        super().__init__(base.work, shape, base.dtype)
        self.base, self.sources = base, sources

    def element(self, block: Block, index: Sequence[Index]) -> str:
        index = self.aligned(index)
        place = [
            plus(source[0], times(index[source[2]], source[1])) if isinstance(source, tuple) else source
            for source in self.sources
        ]
        return self.base.element(block, self.base.aligned(place))


class Stored(Array):
    """Elements in memory: strides and offset are counted in elements."""

    def __init__(
        self, work: Writer, place: Place, shape: tuple[Size, ...], strides: tuple[int, ...], offset: Index = 0
    ) -> None:
        super().__init__(work, shape, place.dtype)
        self.place, self.strides, self.offset = place, strides, offset

    @classmethod
    def contiguous(cls, work: Writer, place: Place, shape: tuple[Size, ...], offset: Index = 0) -> Stored:
        """In the order of C; only the first of the axes that are longer than one may have a size of the call."""
        return cls(work, place, shape, _strides(shape), offset)

    def position(self, index: Sequence[Index]) -> Index:
        """The element's place in memory; noted as a use of it."""
        self.place.touch(self.work.position)
        total = self.offset
        for i, stride in zip(self.aligned(index), self.strides, strict=True):
            total = plus(total, times(i, stride))
        return total

    def element(self, block: Block, index: Sequence[Index]) -> str:
        return f"{self.place.name}[{self.position(index)}]"

    def __getitem__(self, key: Any) -> Array:
        shape, sources = _parse(self.work, self.shape, key)
        offset, strides = self.offset, [0] * len(shape)
        for source, stride in zip(sources, self.strides, strict=True):
            if isinstance(source, tuple):
                offset = plus(offset, times(source[0], stride))
                strides[source[2]] = source[1] * stride
            else:
                offset = plus(offset, times(source, stride))
        return Stored(self.work, self.place, shape, tuple(strides), offset)

    def reshape(self, *shape: Any) -> Array:
        for size, stride, expected in zip(self.shape, self.strides, _strides(self.shape), strict=True):
            if size != 1 and stride != expected:
                return self.work.copied(self).reshape(*shape)
        return Stored.contiguous(self.work, self.place, reshaped(self.shape, shape), self.offset)


class Scalar(Array):
    """One element, in a variable or an expression that costs nothing."""

    def __init__(self, work: Writer, name: str, shape: tuple[Size, ...], dtype: str) -> None:
        super().__init__(work, shape, dtype)
        self.name = name

    def element(self, block: Block, index: Sequence[Index]) -> str:
        return self.name

    def reshape(self, *shape: Any) -> Array:
        return Scalar(self.work, self.name, reshaped(self.shape, shape), self.dtype)


class Concat(Array):
    """Arrays side by side along the last axis; stored part by part."""

    def __init__(self, parts: list[Array]) -> None:
        size = sum(known(part.shape[-1]) for part in parts)
        super().__init__(parts[0].work, (*broadcast(*(p.shape[:-1] for p in parts)), size), parts[0].dtype)
        self.parts = parts
        self._stored: Array | None = None

    def element(self, block: Block, index: Sequence[Index]) -> str:
        self._stored = self._stored or self.work.stored(self)
        return self._stored.element(block, index)

    def __getitem__(self, key: Any) -> Array:
        if isinstance(key, tuple) and len(key) < len(self.shape) and Ellipsis not in key and None not in key:
            return Concat([part[key] for part in self.parts])
        return super().__getitem__(key)


class Element(Array):
    """Anything else: ``function(block, index)`` writes the expression, which is bound to a name."""

    def __init__(
        self, work: Writer, shape: tuple[Size, ...], dtype: str, function: Callable[[Block, tuple[Index, ...]], str]
    ) -> None:
        super().__init__(work, shape, dtype)
        self.function = function

    def element(self, block: Block, index: Sequence[Index]) -> str:
        own = self.aligned(index)
        return block.bound(self, own, lambda: self.function(block, own))


def _leads(old: tuple[Size, ...], new: tuple[Size, ...]) -> bool:
    """Whether ``new`` is ``old``, a sequence, with its last axes joined into one."""
    lead = len(new) - 1
    sequence = any(not isinstance(size, int) for size in new[:lead])
    return sequence and len(old) > len(new) and old[:lead] == new[:lead] and isinstance(new[-1], int)


def _strides(shape: tuple[Size, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for k, size in reversed(list(enumerate(shape))):
        strides.append(step)
        if isinstance(size, int):
            step *= size
        elif any(before != 1 for before in shape[:k]):
            raise TypeError(f"no memory has the shape {shape}: only its first axis may have a size of the call")
    return tuple(reversed(strides))


def _parse(work: Writer, shape: tuple[Size, ...], key: Any) -> tuple[tuple[Size, ...], list[Any]]:
    """(new shape, sources) of ``array[key]``; see :class:`View`."""
    keys = list(key) if isinstance(key, tuple) else [key]
    rest = len(shape) - sum(1 for part in keys if part is not None and part is not Ellipsis)
    at = next((k for k, part in enumerate(keys) if part is Ellipsis), len(keys))
    keys[at : at + 1] = [slice(None)] * rest
    sizes: list[Size] = []
    sources: list[Any] = []
    for part in keys:
        if part is None:
            sizes.append(1)
            continue
        size = shape[len(sources)]
        if isinstance(part, slice):
            start, stop, step = part.start or 0, size if part.stop is None else part.stop, part.step or 1
            if isinstance(stop, int) and isinstance(size, int):
                stop = min(stop, size)
            sources.append((start, step, len(sizes)))
            sizes.append(span(start, stop, step))
        elif isinstance(part, (int, np.integer)) and part < 0:
            bound = work.bound(size)
            sources.append(size + int(part) if isinstance(size, int) else f"({bound} - {-part})")
        else:
            sources.append(part)
    return tuple(sizes), sources
