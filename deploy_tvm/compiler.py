"""Compiles an IRModule with the passes that it needs and no others.

The functions that ``deploy_tvm.lower`` makes are scheduled already: loops, registers and buffers are as they shall be.
TVM's general pipelines would fuse, plan and simplify them again, which costs seconds a build.
"""

from __future__ import annotations

import tvm
from tvm import relax, tirx
from tvm.tirx.compilation_pipeline import register_tir_pipeline

from deploy_tvm.lower import lower
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
    with tvm.transform.PassContext(config={"tirx.disable_assert": True}):
        return relax.build(module, target.tvm(), relax_pipeline=_relax_pipeline(), tir_pipeline=PIPELINE)
