"""What docs/extending.md shows is what lies in tests/extending, and each example works when it is registered."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import irnn
from irnn import qat
from irnn.errors import IrnnError
from irnn.models.sequence import random_layer
from irnn.nn.cells import CELLS
from irnn.nn.recurrent import Recurrent
from irnn.program import Node, Program, Value
from irnn.program.ops import OPS
from irnn.quant.codes import CODES
from tests.extending.elman import ElmanCell
from tests.extending.maximum import Maximum
from tests.extending.powers import PowersOfTwo
from tests.support import needs
from tests.support.models import ids, language_model, quantized, quantized_layer, wired
from tests.support.places import ROOT

EXAMPLES = ("elman.py", "powers.py", "maximum.py", "maximum_lowered.py", "sign_kernel.py")


def test_the_page_shows_the_files() -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert blocks == [(ROOT / "tests" / "extending" / name).read_text(encoding="utf-8") for name in EXAMPLES]


def test_the_page_names_places_that_there_are() -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    places = re.findall(r"`((?:irnn|deploy_tvm|pipelines|tests|docs|conf)/[\w/.]+)`", text)
    assert len(places) > 10
    assert all((ROOT / place).exists() for place in places if "NAME" not in place)


@pytest.fixture
def elman(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CELLS, "rnn", ElmanCell)


@pytest.mark.usefixtures("elman")
def test_the_cell_equals_torchs() -> None:
    torch.manual_seed(0)
    arguments = dict(num_layers=2, bidirectional=True, batch_first=True)
    theirs, ours = torch.nn.RNN(5, 7, **arguments), Recurrent("rnn", 5, 7, **arguments)
    ours.load_state_dict(theirs.state_dict())
    x, h = torch.randn(3, 4, 5), torch.randn(4, 3, 7)
    for module in (ours, wired(ours)):
        for mine, expected in zip(module(x, h), theirs(x, h), strict=True):
            torch.testing.assert_close(mine, expected, rtol=0, atol=1e-6)
    again = ElmanCell.from_torch(theirs, 1, 1, hidden=ours.layers[1].hidden)
    assert torch.equal(again.w_h.weight, theirs.weight_hh_l1_reverse)


@pytest.mark.usefixtures("elman")
def test_the_cell_trains_and_runs_on_integers() -> None:
    model, tokens = language_model(cell="rnn", dropout=0.0), ids(4, 20)
    for stage in qat.STAGES:
        qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), stage)
        if stage == "pwl":
            qat.calibrate(model, [tokens])
        loss, _ = model.train().loss(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
    program = irnn.convert(model.eval())
    logits_i32, state = program.run(tokens.numpy())
    logits, evaluated = model(tokens)
    assert torch.equal(logits, torch.from_numpy(logits_i32) * program.logits_scale)
    assert np.array_equal(state["rnn.0.h"], evaluated["rnn.0.h"].numpy())
    with pytest.raises(IrnnError, match="norm='mad': an Elman cell has none"):
        random_layer(5, 8, cell="rnn", norm="mad")


@needs.with_tvm
@pytest.mark.usefixtures("elman")
def test_the_cell_compiles(tmp_path: Path) -> None:
    import deploy_tvm

    model = quantized_layer(cell="rnn", num_layers=2, bidirectional=True)
    program, x = irnn.convert(model), model.integer_input(torch.randn(1, 11, 9)).numpy()
    compiled, _ = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact")).run(x)
    assert np.array_equal(compiled, program.run(x)[0])


def test_the_code_is_used_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CODES, "powers", PowersOfTwo)
    for per_row in (True, False):
        code = PowersOfTwo(per_row)
        weight = torch.randn(5, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        (plane,) = code.encode(weight.numpy())
        assert set(np.unique(plane.integers)) <= {-4, -2, -1, 0, 1, 2, 4}
        assert np.array_equal(code.fake(weight).numpy(), plane.integers * plane.scale[:, None])
    model = quantized(language_model(), irnn.QuantConfig(weight="powers"))
    program, tokens = irnn.convert(model), ids(2, 20)
    assert torch.equal(model(tokens)[0], torch.from_numpy(program.run(tokens.numpy())[0]) * program.logits_scale)
    assert set(np.unique(program.tensors["lstm.0.w_h.weight"].data)) == {-4, -2, -1, 0, 1, 2, 4}


def compared(dtype: str = "int8") -> Program:
    values = {"x": Value("int8", (4,), 0.1, 0, -128, 127), "y": Value(dtype, (4,), 0.1, 0, -100, 50)}
    values["z"] = Value("int8", (4,), 0.1)
    inputs = {name: values[name] for name in ("x", "y")}
    return Program("integer", inputs, ("z",), {}, values, (Node("maximum", ("x", "y"), "z"),), {})


def test_the_operation_is_proved_and_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IrnnError, match="unknown operation 'maximum'"):
        compared().check()
    monkeypatch.setitem(OPS, "maximum", Maximum())
    program = compared()
    program.check()
    rng = np.random.default_rng(0)
    x, y = rng.integers(-128, 128, (2, 3, 4)).astype("int8"), rng.integers(-100, 51, (2, 3, 4)).astype("int8")
    z, _ = program.run({"x": x, "y": y})
    assert np.array_equal(z, np.maximum(x, y))
    assert "in -100..127" in program.describe()
    with pytest.raises(IrnnError, match="maximum z compares two dtypes"):
        compared("int16").check()


@needs.with_tvm
def test_the_operation_compiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import deploy_tvm
    from deploy_tvm.codegen.body import Operation
    from deploy_tvm.codegen.ops import OPERATIONS
    from tests.extending.maximum_lowered import maximum

    monkeypatch.setitem(OPS, "maximum", Maximum())
    monkeypatch.setitem(OPERATIONS["integer"], "maximum", Operation(maximum, elementwise=True))
    x, half = Value("int8", (34,), 0.1, 0, -128, 127), Value("int8", (17,), 0.1)
    nodes = [Node("slice", ("x",), name, {"start": k, "stop": k + 17}) for name, k in (("a", 0), ("b", 17))]
    values = {"x": x, "a": half, "b": half, "z": half}
    program = Program("integer", {"x": x}, ("z",), {}, values, (*nodes, Node("maximum", ("a", "b"), "z")), {})
    inputs = np.random.default_rng(0).integers(-128, 128, (1, 5, 34)).astype("int8")
    compiled, _ = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact")).run(inputs)
    assert np.array_equal(compiled, np.maximum(inputs[..., :17], inputs[..., 17:]))


@needs.with_tvm
def test_the_kernel_is_chosen_and_exact(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the comparison of every kernel, and in a compiled program; a zero, which is no sign, takes another kernel."""
    import deploy_tvm
    from deploy_tvm.codegen.kernels import Kernels
    from deploy_tvm.targets import Target
    from tests.deploy_tvm.codegen.test_kernels import encoded, products_of_every_encoding
    from tests.extending.sign_kernel import SignKernel
    from tests.support.cpus import CPUS

    mine, chosen = SignKernel(), Target.kernels

    def kernels(self: Target) -> Kernels:
        found = chosen(self)
        return replace(found, encodings={**found.encodings, "binary": mine})

    monkeypatch.setattr(Target, "kernels", kernels)
    portable = CPUS["portable"]
    offered = portable.kernels()
    assert offered.linear(encoded(np.array([[-1, 1]]), "binary")) is mine
    assert offered.linear(encoded(np.array([[-1, 0]]), "binary")) is offered.int8
    products_of_every_encoding(portable, "binary")
    model = quantized_layer()
    program, x = irnn.convert(model), model.integer_input(torch.randn(1, 11, 9)).numpy()
    name = "lstm.0.w_h.weight"
    signs = np.where(program.tensors[name].data < 0, -1, 1)
    program = replace(program, tensors={**program.tensors, name: encoded(signs, "binary")})
    program.check()
    compiled, _ = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact", portable)).run(x)
    assert np.array_equal(compiled, program.run(x)[0])
