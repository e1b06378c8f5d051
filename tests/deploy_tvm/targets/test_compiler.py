"""What the compiler's own passes leave of a function is what TVM's do."""

from __future__ import annotations

import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

import tvm
import tvm_ffi
from tvm import tirx

from deploy_tvm.targets import compiler, find
from irnn.random_programs import Layer, layer_programs
from tests.support.random_programs import Spec, random_program

PROGRAMS = {
    "norm": lambda: layer_programs(Layer(5, 8, norm="mad", weight_bits=4))[0],
    "float": lambda: layer_programs(Layer(5, 8, cell="gru"))[1],
    "codes found at run time": lambda: layer_programs(Layer(5, 8, code="alternating", weight_bits=2, codes=2))[0],
    "language model": lambda: random_program(Spec()),
}


@pytest.mark.parametrize(("target", "name"), [*(("host", name) for name in PROGRAMS), ("armv7a", "norm")])
def test_functions_are_flattened_as_tvm_flattens_them(target: str, name: str) -> None:
    function, _ = compiler.kernel_of(PROGRAMS[name](), find(target))
    module, simplify = tvm.IRModule({"main": function}), tirx.transform.StmtSimplify()
    ours, theirs = (simplify(flat(module)) for flat in (compiler._flattened, tirx.transform.FlattenBuffer()))
    assert tvm_ffi.structural_equal(ours, theirs)
