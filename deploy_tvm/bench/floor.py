"""The time below which no kernel of this design can come on this core: reading the weights, and multiplying.

A step uses each recurrent weight, so it takes at least as long as one core needs to read them from where they lie
(cache or memory); a batch of sequences shares that one reading, and each of them has its multiplications, which take at
least what the core's multiplying instruction needs.  A call of one step reads and multiplies the input-side weights
too; over several steps the input-side product is one matrix product for all steps and sequences: its weights are read
once a call.  Both limits are measured by loops without anything else in them, in the same interleaved rounds as the
runtimes, and with the instructions of the kernels that are measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy_tvm.codegen.kernels import Kernels
from deploy_tvm.codegen.kernels.choice import Choice, run_time_codes
from deploy_tvm.codegen.kernels.walsh import is_walsh
from irnn.program import Node, Program, Scan

READ_TARGET = 1 << 25  # bytes read in one call, so that the call itself weighs nothing
CHAINS = 16  # independent accumulators: latency 5 x 2 ports, with room
PEAK_ROUNDS = 20000


@dataclass(frozen=True)
class Product:
    """The instruction with which a set of x86 kernels multiplies integers.

    operands: dtypes of its two registers.  register: dtype of what it gives.  products: multiplications in one.
    accumulates: it adds to a third register.  Where it does not, the additions that follow are not counted: how many
    an exact sum needs depends on the width of the weights, and the limit is to hold for all.
    """

    intrinsic: str
    operands: tuple[str, str]
    register: str
    products: int
    accumulates: bool = False

    @property
    def accumulator(self) -> tuple[str, int]:
        """dtype and lanes of ``register``."""
        dtype, lanes = self.register.split("x")
        return dtype, int(lanes)

    def step(self, acc: Any, a: Any, b: Any) -> Any:
        """The instruction as an expression that depends on ``acc``, without which it would leave the loop."""
        from tvm import tirx

        operands = (acc, a, b) if self.accumulates else (tirx.reinterpret(self.operands[0], acc), b)
        return tirx.call_llvm_pure_intrin(self.register, self.intrinsic, *operands)


_VNNI = Product("llvm.x86.avx512.vpdpbusd.512", ("uint8x64", "int8x64"), "int32x16", 64, True)
# By the name of the kernels; those of other processors have none: no limit is measured there.
PRODUCTS = {
    "amx": _VNNI,
    "avx512vnni": _VNNI,
    "avxvnni": Product("llvm.x86.avx512.vpdpbusd.256", ("uint8x32", "int8x32"), "int32x8", 32, True),
    "avx2": Product("llvm.x86.avx2.pmadd.ub.sw", ("uint8x32", "int8x32"), "int16x16", 32),
    "portable": Product("llvm.x86.sse2.pmadd.wd", ("int16x8", "int16x8"), "int32x4", 8),
}
# Sets whose CPUs have a unit for many vectors.
TILED = ("amx",)


@dataclass(frozen=True)
class Work:
    """What one call of ``steps`` steps of ``batch`` sequences cannot avoid, all sequences together.

    Bytes that are read every step and once a call, multiplications of every step and those of all steps at once;
    ``tiled``: of these the ones that the CPU's unit for many vectors takes.
    """

    steps: int
    batch: int
    bytes_every_step: int
    bytes_once: int
    products_every_step: int
    products_once: int
    tiled_every_step: int = 0
    tiled_once: int = 0

    @property
    def bytes_read(self) -> int:
        """What is read again and again to find out how long reading takes."""
        return self.bytes_every_step or self.bytes_once

    def bytes_a_second(self, us_per_step: float) -> float:
        """How fast weights are read that have to be, where a step of a sequence takes that long."""
        call_us = us_per_step * self.steps * self.batch
        return (self.bytes_every_step * self.steps + self.bytes_once) / call_us * 1e6


def work(program: Program, steps: int, batch: int = 1, kernels: Kernels | None = None) -> Work:
    """Count the weights (as they are packed) of an integer program's products inside and outside of its loops.

    kernels: those that multiply, where their CPU has a unit for many vectors.  Products of binary weights with codes
    found at run time need no multiplication: they can be counted, bit by bit.  One with a Hadamard matrix reads no
    weights and multiplies nothing.
    """
    codes = run_time_codes(program)
    choice = None if kernels is None else Choice(program, kernels)

    def products(nodes: list[Node]) -> list[Node]:
        linear = [node for node in nodes if node.op == "linear"]
        return [node for node in linear if not is_walsh(program.tensors[node.tensors["weight"]])]

    def size(nodes: list[Node]) -> int:
        tensors = [program.tensors[node.tensors["weight"]] for node in nodes]
        return sum((t.data.size * t.storage_bits + 7) // 8 for t in tensors)

    def multiplied(nodes: list[Node], vectors: int) -> tuple[int, int]:
        """With so many vectors: all multiplications, and those that the unit takes."""
        whole = tiled = 0
        for node in nodes:
            weight = program.tensors[node.tensors["weight"]]
            if weight.encoding == "binary" and node.inputs[0] in codes:
                continue
            whole += vectors * weight.data.size
            unit = None if choice is None else choice.kernel(node).tiles
            if unit is not None and vectors >= unit.least:
                tiled += vectors * weight.data.size
        return whole, tiled

    inside = products([node for item in program.nodes if isinstance(item, Scan) for node in item.body])
    outside = products([item for item in program.nodes if isinstance(item, Node)])
    if steps == 1:
        whole, tiled = multiplied(inside + outside, batch)
        return Work(1, batch, size(inside + outside), 0, whole, 0, tiled)
    (every, tiled), (once, tiled_once) = multiplied(inside, batch), multiplied(outside, batch * steps)
    return Work(steps, batch, size(inside), size(outside), every, once, tiled, tiled_once)


def read_function(size: int, target: Any) -> tuple[Any, int]:
    """(compiled function of a buffer ``[size // 256, 4, 16]`` int32 and a sink ``[16]``, reads of it in one call).

    Every other reading goes backwards: what the last one left in the cache is met first, so that data somewhat larger
    than the cache come from it in part.  Always forwards, none would.
    """
    import tvm
    from tvm.script import tirx as T

    blocks, rounds = max(1, size // 256), max(1, READ_TARGET // (2 * size))

    @T.prim_func(s_tir=True)
    def read(  # type: ignore[no-untyped-def]  # TVMScript: its parser, not Python's, reads the signature
        data: T.Buffer((blocks, 4, 16), "int32"),  # type: ignore[valid-type]
        sink: T.Buffer((16,), "int32"),  # type: ignore[valid-type]
    ):
        T.func_attr({"global_symbol": "read", "tirx.noalias": True})
        acc = T.alloc_buffer((4, 16), "int32", scope="local")
        for u in T.unroll(4):
            acc[u, T.ramp(T.int32(0), 1, 16)] = sink[T.ramp(T.int32(0), 1, 16)]
        for _ in T.serial(rounds):
            for k in T.serial(blocks):
                for u in T.unroll(4):
                    acc[u, T.ramp(T.int32(0), 1, 16)] = T.bitwise_xor(
                        acc[u, T.ramp(T.int32(0), 1, 16)], data[k, u, T.ramp(T.int32(0), 1, 16)]
                    )
            for k in T.serial(blocks):
                for u in T.unroll(4):
                    acc[u, T.ramp(T.int32(0), 1, 16)] = T.bitwise_xor(
                        acc[u, T.ramp(T.int32(0), 1, 16)], data[blocks - 1 - k, u, T.ramp(T.int32(0), 1, 16)]
                    )
        for u in T.unroll(4):
            sink[T.ramp(T.int32(0), 1, 16)] = T.bitwise_xor(
                sink[T.ramp(T.int32(0), 1, 16)], acc[u, T.ramp(T.int32(0), 1, 16)]
            )

    return tvm.compile(tvm.IRModule({"read": read}), target=target)["read"], 2 * rounds


def peak_module(product: Product, target: Any) -> tuple[Any, int]:
    """(compiled module of "peak", a function of :func:`peak_operands`; multiplications in one call)."""
    import tvm
    from tvm.script import tirx as T

    (first, elements), (second, _) = (operand.split("x") for operand in product.operands)
    width, (register, lanes), step = int(elements), product.accumulator, product.step

    @T.prim_func(s_tir=True)
    def peak(  # type: ignore[no-untyped-def]  # TVMScript: its parser, not Python's, reads the signature
        a: T.Buffer((width,), first),  # type: ignore[valid-type]
        b: T.Buffer((width,), second),  # type: ignore[valid-type]
        sink: T.Buffer((lanes,), register),  # type: ignore[valid-type]
    ):
        T.func_attr({"global_symbol": "peak", "tirx.noalias": True})
        acc = T.alloc_buffer((CHAINS, lanes), register, scope="local")
        for u in T.unroll(CHAINS):
            acc[u, T.ramp(T.int32(0), 1, lanes)] = sink[T.ramp(T.int32(0), 1, lanes)] + T.broadcast(
                T.cast(u, register), lanes
            )
        for _ in T.serial(PEAK_ROUNDS):
            for u in T.unroll(CHAINS):
                acc[u, T.ramp(T.int32(0), 1, lanes)] = step(
                    acc[u, T.ramp(T.int32(0), 1, lanes)],
                    a[T.ramp(T.int32(0), 1, width)],
                    b[T.ramp(T.int32(0), 1, width)],
                )
        for u in T.unroll(CHAINS):
            sink[T.ramp(T.int32(0), 1, lanes)] = (
                sink[T.ramp(T.int32(0), 1, lanes)] + acc[u, T.ramp(T.int32(0), 1, lanes)]
            )

    return tvm.compile(tvm.IRModule({"peak": peak}), target=target), PEAK_ROUNDS * CHAINS * product.products


def peak_operands(product: Product) -> list[np.ndarray]:
    """Arguments of the function of :func:`peak_module`: ones, and zeros as the sink."""
    dtype, lanes = product.accumulator
    ones = [np.ones(int(operand.split("x")[1]), operand.split("x")[0]) for operand in product.operands]
    return [*ones, np.zeros(lanes, dtype)]


def combine(
    needed: Work | None,
    ours_us: float,
    read_us: float | None,
    us_per_product: float | None,
    us_per_tiled: float | None = None,
) -> dict[str, Any]:
    """The floor in microseconds a step and sequence, its parts, and its share of our time ``ours_us``.

    read_us: one reading of ``bytes_read``.  us_per_tiled: a multiplication by the CPU's unit for many vectors.
    """
    if needed is None:
        return {"us_per_step": None, "share": None, "reason": "no limit is known for this program"}
    if read_us is None or us_per_product is None:
        return {"us_per_step": None, "share": None, "reason": "the limit was not measured on this processor"}
    saved_us = 0.0 if us_per_tiled is None else us_per_product - us_per_tiled
    read_once_us = read_us * needed.bytes_once / needed.bytes_read / needed.steps
    read_us *= needed.bytes_every_step / needed.bytes_read
    multiply_us = us_per_product * needed.products_every_step - saved_us * needed.tiled_every_step
    multiply_once_us = (us_per_product * needed.products_once - saved_us * needed.tiled_once) / needed.steps
    limit_us = (max(read_us, multiply_us) + max(read_once_us, multiply_once_us)) / needed.batch
    return {
        "us_per_step": round(limit_us, 2),
        "share": round(limit_us / ours_us, 4),
        "read_us": round(read_us, 2),
        "multiply_us": round(multiply_us, 2),
        "read_once_us": round(read_once_us, 2),
        "multiply_once_us": round(multiply_once_us, 2),
        "bytes_every_step": needed.bytes_every_step,
        "bytes_once": needed.bytes_once,
        "explanation": _explained(needed, read_us, multiply_us, read_once_us, multiply_once_us),
    }


def _explained(needed: Work, read_us: float, multiply_us: float, read_once_us: float, multiply_once_us: float) -> str:
    text = (
        f"one core reads the {needed.bytes_every_step} bytes of weights that every step uses in {read_us:.1f} us, or "
        f"their multiplications take the multiplying instruction {multiply_us:.1f} us, whichever is longer"
    )
    if needed.products_once:
        text += (
            f"; the input-side product of all {needed.steps} steps is one matrix product: its weights are read once a "
            f"call ({read_once_us:.1f} us a step) or it is multiplied in {multiply_once_us:.1f} us a step"
        )
    return text + (f"; all {needed.batch} sequences together" if needed.batch > 1 else "")
