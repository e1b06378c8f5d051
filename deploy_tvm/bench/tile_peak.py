"""How fast the CPU's matrix tiles multiply: a loop with nothing else in it."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, constant, prim_func
from deploy_tvm.codegen.kernels.x86_amx import BYTES, OPERAND, PRODUCTS, ROWS, WEIGHTS, Amx, address, do, register
from deploy_tvm.targets import Target
from deploy_tvm.targets.compiler import compile_function

ROUNDS = 2000
# Multiplications of one call: a register of products after the other.
IN_A_CALL = ROUNDS * PRODUCTS * ROWS * ROWS * BYTES


def module(target: Target) -> Any:
    """The compiled module of "peak", a function of a sink int32 [16, 16].

    Of bytes that are all 1 each call leaves ``ROUNDS * 64`` in every element; where the system refuses the tiles the
    sink stays as it is.
    """
    emitter, unit = Emitter(), Amx("tdpbusd")
    sink = tirx.decl_buffer((ROWS, ROWS), "int32", "sink")
    ones = emitter.alloc((ROWS, BYTES), "uint8", "ones")
    with emitter.loop(ROWS, "row") as row:
        emitter.store(ones, constant(1, "uint8", BYTES), row, 0)
    held = unit.begin(
        emitter, {"weight": tirx.decl_buffer((1, ROWS, BYTES), "int8", "weight")}, constant(ROWS, "int64")
    )
    with emitter.when(held.there):
        for number in (OPERAND, WEIGHTS):
            do(emitter, "tileloadd64", register(number), address(ones, 0, 0), constant(BYTES, "int64"))
        for number in range(PRODUCTS):
            do(emitter, "tilezero", register(number))
        with emitter.loop(ROUNDS):
            for number in range(PRODUCTS):
                do(emitter, unit.product, *map(register, (number, OPERAND, WEIGHTS)))
        do(emitter, "tilestored64", register(0), address(sink, 0, 0), constant(4 * ROWS, "int64"))
        unit.end(emitter)
    return compile_function(prim_func([sink], emitter.finish(), "peak"), "peak", target)
