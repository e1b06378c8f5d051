"""One block of rows times many vectors: by the CPU's unit for that where it has one, else a few vectors at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, as_index
from deploy_tvm.codegen.kernels import LinearKernel
from deploy_tvm.codegen.kernels.base import Held, Operand, Place


@dataclass(frozen=True)
class Many:
    """A product with ``count`` vectors.  ``held``: the kernel's unit; None: it has none."""

    emitter: Emitter
    operand: Operand
    packed: dict[str, tirx.Buffer]
    count: Expr
    held: Held | None

    def multiply(
        self,
        kernel: LinearKernel,
        block: Expr,
        place: Callable[[Expr, int], Place],
        finish: Callable[[Expr, Expr, Place], None] = lambda first, vectors, place: None,
    ) -> None:
        """One block: the products of up to ``most`` vectors from ``first`` on go to ``place(first, most)``.

        ``finish(first, vectors, place)`` follows behind each, with their number.
        """
        emitter, unit = self.emitter, kernel.tiles

        def tile(vectors: list[Expr]) -> None:
            registers = kernel.tile(emitter, self.operand, vectors, self.packed, block)
            target = place(vectors[0], len(vectors))
            for m, row in enumerate(registers):
                for u, register in enumerate(row):
                    emitter.store(target.buffer, register, target.row + m, target.column + u * kernel.lanes)
            finish(vectors[0], len(vectors), target)

        if self.held is None or unit is None:
            in_tiles(emitter, self.count, kernel.tile_vectors, tile)
            return
        vectors = self.held.vectors
        with emitter.when(self.held.there):
            weights = unit.weights(emitter, kernel, self.packed, block)
            with emitter.loop(_tiles(self.count, vectors)) as j:
                first = emitter.bind(_first(j, self.count, vectors), "v")
                target = place(first, unit.most)
                unit.multiply(emitter, kernel, self.operand, first, vectors, self.packed, block, weights, target)
                finish(first, vectors, target)
        with emitter.when(tirx.Not(self.held.there)):
            in_tiles(emitter, self.count, kernel.tile_vectors, tile)


@contextmanager
def many(
    emitter: Emitter, kernel: LinearKernel, operand: Operand, packed: dict[str, tirx.Buffer], count: Expr
) -> Iterator[Many]:
    """A product with ``count`` vectors, all blocks of which are multiplied inside."""
    unit = kernel.tiles
    held = None if unit is None else unit.begin(emitter, packed, count)
    yield Many(emitter, operand, packed, count, held)
    if unit is not None and held is not None:
        with emitter.when(held.there):
            unit.end(emitter)


def in_tiles(emitter: Emitter, count: Expr, tall: int, tile: Callable[[list[Expr]], None]) -> None:
    """``tile(vectors)`` for the numbers 0 .. count - 1, ``tall`` at a time; one by one where there are fewer."""
    with emitter.when(count >= tall), emitter.loop(_tiles(count, tall)) as j:
        v = emitter.bind(_first(j, count, tall), "v")
        tile([v + m for m in range(tall)])
    if tall > 1:
        with emitter.when(count < tall), emitter.loop(count, "v") as v:
            tile([v])


def _tiles(count: Expr, tall: Expr) -> Expr:
    return tirx.floordiv(count + (tall - 1), as_index(tall))


def _first(number: Expr, count: Expr, tall: Expr) -> Expr:
    """Where a tile begins: the last overlaps the one before it rather than being short."""
    return tirx.Min(number * tall, count - tall)
