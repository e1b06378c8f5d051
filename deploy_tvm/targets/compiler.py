"""Compiles an IRModule with the passes that it needs and no others.

The functions that ``lower`` makes are scheduled already: loops, registers and buffers are as they shall be.
TVM's general pipelines would fuse, plan and simplify them again, which costs seconds a build.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.tirx.compilation_pipeline import register_tir_pipeline

from deploy_tvm.codegen.emit import lower
from deploy_tvm.codegen.interface import CONSTANTS, KERNEL
from deploy_tvm.targets import Target
from irnn.program import Program

PIPELINE = "irnn"
_REFUSED = "LLVM module verification failed"

Built = TypeVar("Built")


@tirx.transform.prim_func_pass(opt_level=0, name="irnn.flattened")
def _flattened(function: tirx.PrimFunc, module: tvm.IRModule, context: tvm.transform.PassContext) -> tirx.PrimFunc:
    """``FlattenBuffer`` in a fraction of its time, and after ``StmtSimplify`` with the same result.

    It takes each index for a map of all loops around it and looks for a simpler one, which finds nothing here and took
    most of a build.  It does not where a loop is as long as another one's variable says: two such loops of one round
    stand around the body, and go again.
    """
    zero, one = tirx.const(0, "int64"), tirx.const(1, "int64")
    outer, inner = tirx.Var("outer", "int64"), tirx.Var("inner", "int64")
    body = tirx.For(inner, zero, outer + one, tirx.ForKind.SERIAL, function.body)
    body = tirx.For(outer, zero, one, tirx.ForKind.SERIAL, body)
    flat = tirx.transform.FlattenBuffer()(tvm.IRModule({"main": function.with_body(body)}))["main"]
    *views, loop = flat.body if isinstance(flat.body, tirx.SeqStmt) else [flat.body]
    return flat.with_body(tirx.stmt.stmt_seq(*views, loop.body.body))


def _tir_pipeline() -> tuple:
    passes = [
        _flattened,
        tirx.transform.StmtSimplify(),
        tirx.transform.VerifyMemory(),
        tirx.transform.AnnotateEntryFunc(),
        tirx.transform.SplitHostDevice(),
        tirx.transform.MakePackedAPI(),
    ]

    def finish() -> tvm.transform.Pass:
        return tvm.transform.Sequential([tirx.transform.LowerTVMBuiltin(), tirx.transform.LowerIntrin()])

    return tvm.transform.Sequential(passes), finish, finish


register_tir_pipeline(PIPELINE, _tir_pipeline)


def _relax_pipeline() -> tvm.transform.Pass:
    return tvm.transform.Sequential(
        [
            relax.transform.ToNonDataflow(),
            relax.transform.RemovePurityChecking(),
            relax.transform.CallTIRRewrite(),
            relax.transform.StaticPlanBlockMemory(),
            relax.transform.LowerAllocTensor(),
            relax.transform.KillAfterLastUse(),
            relax.transform.LowerRuntimeBuiltin(),
            relax.transform.ComputePrimValue(),
            relax.transform.VMShapeLower(),
            relax.transform.AttachGlobalSymbol(),
        ]
    )


def compile_program(program: Program, target: Target) -> relax.VMExecutable:
    """The executable of ``program`` for ``target``: functions, constants and the virtual machine's code."""
    module = lower(program, target.kernels())
    return _sound(
        lambda llvm: relax.build(module, llvm, relax_pipeline=_relax_pipeline(), tir_pipeline=PIPELINE), target
    )


def kernel_of(program: Program, target: Target) -> tuple[tirx.PrimFunc, list[np.ndarray]]:
    """(the function that does all of ``program``'s work, the constants that it takes), without the virtual machine."""
    module = lower(program, target.kernels())
    body = module[CONSTANTS].body
    fields = (body.body if isinstance(body, relax.SeqExpr) else body).fields
    return module[KERNEL], [field.value.numpy() for field in fields]


def compile_function(function: tirx.PrimFunc, name: str, target: Target) -> tvm.runtime.Module:
    """One function, which the library exports as ``__tvm_ffi_<name>``."""
    module = tvm.IRModule({name: function.with_attr("global_symbol", name)})
    return _sound(lambda llvm: tirx.build(module, llvm, pipeline=PIPELINE), target)


def _sound(build: Callable[[tvm.target.Target], Built], target: Target) -> Built:
    """What ``build`` makes for a target, with a little less optimization where LLVM's verifier refuses the usual one.

    LLVM 22.1.0 in TVM 0.27: loop-invariant code motion of level 3 leaves a use before its definition in a few programs
    (a norm behind 16 units of 4 bits on Cortex-A76).  Level 2 builds them; its speed beside level 3 was not measured.
    """
    llvm = target.tvm()
    with _context():
        try:
            return build(llvm)
        except RuntimeError as error:
            if _REFUSED not in str(error):
                raise
            return build(tvm.target.Target({**llvm.export(), "opt-level": 2}))


def _context() -> tvm.transform.PassContext:
    return tvm.transform.PassContext(config={"tirx.disable_assert": True})
