"""What the compiler's own passes leave of a function is what TVM's do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

import tvm
import tvm_ffi
from tvm import tirx

import deploy_tvm
from deploy_tvm.static import bare
from deploy_tvm.targets import compiler, find
from irnn.random_programs import Layer, layer_programs
from tests.support import boards
from tests.support.random_programs import Spec, random_inputs, random_program, random_state

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


def test_what_llvm_would_break_is_compiled_and_gives_the_same_integers(tmp_path: Path) -> None:
    """Its verifier refuses this program at the usual level of optimization."""
    program, target = layer_programs(Layer(8, 16, norm="mad", weight_bits=4))[0], find("cortex_a76")
    boards.need("cortex_a76")
    boards.need_bare(target)
    kernel, _ = compiler.kernel_of(program, target)
    module = tvm.IRModule({"kernel": kernel.with_attr("global_symbol", "kernel")})
    with pytest.raises(RuntimeError, match="does not dominate all uses"):
        tirx.build(module, target.tvm(), pipeline=compiler.PIPELINE)
    deploy_tvm.build(program, tmp_path / "artefact", target)
    function, constants = bare.program_function(program, target, tmp_path)
    inputs, state = random_inputs(program, 2, 7), random_state(program, 2)
    expected, after = program.run(inputs, state)
    given = bare.arguments(program, constants, {name: inputs for name in program.inputs}, state)
    outputs, last = bare.results(program, function(*given))
    assert all(map(np.array_equal, [*outputs, *last.values()], [expected, *after.values()]))


def test_other_errors_of_a_build_are_not_tried_again() -> None:
    tried: list[object] = []

    def build(llvm: object) -> None:
        tried.append(llvm)
        raise RuntimeError("no such instruction")

    with pytest.raises(RuntimeError, match="no such instruction"):
        compiler._sound(build, find("host"))
    assert len(tried) == 1
