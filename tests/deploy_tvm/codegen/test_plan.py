"""What a kernel does in turn, before any code: what lies in memory, what is fused, what cannot be compiled."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

import irnn
from deploy_tvm.codegen.emit import plan_of
from deploy_tvm.codegen.kernels import choose
from deploy_tvm.codegen.plan import lowered, plan
from deploy_tvm.codegen.steps import Give, Loop, Product, Store
from irnn.errors import IrnnError
from irnn.program import Node, Program, Scan
from tests.support.random_programs import Spec, random_program
from tests.support.speech_models import quantized_speech

LANES = 8


def with_nodes(program: Program, *nodes: Node | Scan) -> Program:
    return replace(program, nodes=(*program.nodes, *nodes))


def test_a_language_model_is_two_products_around_a_loop() -> None:
    first, loop, last = plan(random_program(Spec(hidden=17)), LANES).steps
    assert isinstance(first, Product)
    assert [node.op for node in first.fused] == ["embedding"]
    assert [node.op for node in first.finish] == ["requantize"]
    assert first.early is not None
    assert first.early.state == "layer0.forward.h"
    assert isinstance(loop, Loop)
    assert isinstance(last, Product)
    assert last.in_place, "the logits are written where the caller wants them"


def test_norms_are_put_into_memory_before_the_loop_that_reads_them() -> None:
    steps = plan(random_program(Spec(norm="mad")), LANES).steps
    stored = [step for step in steps if isinstance(step, Store)]
    assert [node.op for step in stored for node in step.fused] == ["mad_norm"]


def test_a_plan_can_be_printed() -> None:
    text = plan(random_program(Spec(bidirectional=True, logits=None)), LANES).describe()
    assert text.splitlines() == [
        "read in place: ids",
        "product       layer0.forward.x.pre = linear embedded (with embedding), then requantize; may begin with "
        "layer0.forward.h.acc",
        "loop forwards:  layer0.forward.out_sequence of layer0.forward.x.pre: linear, requantize, add, slice, pwl, "
        "slice, pwl, slice, pwl, slice, pwl, multiply, multiply, requantize, pwl, multiply, requantize",
        "product       layer0.backward.x.pre = linear embedded (with embedding), then requantize; may begin with "
        "layer0.backward.h.acc",
        "loop backwards: layer0.backward.out_sequence of layer0.backward.x.pre: linear, requantize, add, slice, pwl, "
        "slice, pwl, slice, pwl, slice, pwl, multiply, multiply, requantize, pwl, multiply, requantize",
        "give          layer0.both (with concat)",
    ]


def test_a_recognizers_plan_names_its_lengths_and_borders() -> None:
    programs = irnn.convert(quantized_speech())
    text = plan_of(programs["encoder"], choose(frozenset())).describe()
    assert "with border" in text
    assert "pick" in text
    assert "length        " in text
    assert [step.name for step in plan(programs["encoder"], LANES).steps if isinstance(step, Give)]


@pytest.mark.parametrize("kind", ["integer", "float"])
def test_an_operation_without_a_lowering_is_refused_with_the_known_ones(kind: str) -> None:
    program = random_program(Spec(kind=kind))
    name = program.outputs[0]
    with pytest.raises(IrnnError, match=r"the operation 'softmax' \(.*\) of .* programs cannot be compiled") as error:
        plan(with_nodes(program, Node("softmax", (name,), name)), LANES)
    assert str(error.value).endswith(", ".join(lowered(kind)))
    assert "pwl" in lowered("integer")
    assert "sigmoid" in lowered("float")


def test_what_needs_whole_sequences_cannot_stand_in_a_loop() -> None:
    program = random_program(Spec())
    (position,) = (k for k, item in enumerate(program.nodes) if isinstance(item, Scan))
    scan = program.nodes[position]
    nodes = list(program.nodes)
    inner = next(iter(scan.sequences))
    nodes[position] = replace(scan, body=(Node("subsample", (inner,), inner, {"factor": 2}), *scan.body))
    with pytest.raises(IrnnError, match="cannot stand in a loop; there can"):
        plan(replace(program, nodes=tuple(nodes)), LANES)


def test_an_operation_without_an_emitter_has_one_shape() -> None:
    program = random_program(Spec(logits=None))
    name = program.outputs[0]
    wrong = Node("add", (name, "layer0.forward.x.pre"), name, {"low": -128, "high": 127})
    with pytest.raises(IrnnError, match=r"'add' .* has no emitter of its own; the generic one goes element"):
        plan(with_nodes(program, wrong), LANES)


def test_a_kind_that_is_unknown_is_refused() -> None:
    with pytest.raises(IrnnError, match="'decimal' cannot be compiled; the kinds are integer, float"):
        plan(replace(random_program(Spec()), kind="decimal"), LANES)
