"""Compiles an IRModule with the passes that it needs and no others.

The functions that ``lower`` makes are scheduled already: loops, registers and buffers are as they shall be.
TVM's general pipelines would fuse, plan and simplify them again, which costs seconds a build.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.tirx.compilation_pipeline import register_tir_pipeline

from deploy_tvm.codegen.emit import lower
from deploy_tvm.codegen.interface import CONSTANTS, KERNEL
from deploy_tvm.targets import Target
from irnn.program import Program

PIPELINE = "irnn"


def _tir_pipeline() -> tuple:
    passes = [
        tirx.transform.FlattenBuffer(),
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
    with _context():
        return relax.build(module, target.tvm(), relax_pipeline=_relax_pipeline(), tir_pipeline=PIPELINE)


def kernel_of(program: Program, target: Target) -> tuple[tirx.PrimFunc, list[np.ndarray]]:
    """(the function that does all of ``program``'s work, the constants that it takes), without the virtual machine."""
    module = lower(program, target.kernels())
    body = module[CONSTANTS].body
    fields = (body.body if isinstance(body, relax.SeqExpr) else body).fields
    return module[KERNEL], [field.value.numpy() for field in fields]


def compile_function(function: tirx.PrimFunc, name: str, target: Target) -> tvm.runtime.Module:
    """One function, which the library exports as ``__tvm_ffi_<name>``."""
    module = tvm.IRModule({name: function.with_attr("global_symbol", name)})
    with _context():
        return tirx.build(module, target.tvm(), pipeline=PIPELINE)


def _context() -> tvm.transform.PassContext:
    return tvm.transform.PassContext(config={"tirx.disable_assert": True})
