"""Run-time codes of activations: the text against its second statement, at the ends of what it is proved for."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import irnn
from irnn import qat
from irnn.arithmetic import run_time_codes
from irnn.arithmetic.numpy_ops import NUMPY
from irnn.arithmetic.torch_ops import TORCH
from irnn.errors import IrnnError
from irnn.program import Node, Program, Value
from irnn.program.graph import Tensor
from irnn.quant.codes.multibit import FakeMultibit
from tests.deploy_tvm.test_low_bit_programs import assert_boards_alike, assert_compiled_alike, everywhere
from tests.support import program_oracle
from tests.support.models import assert_trains_in_every_stage, ids, language_model, quantized, quantized_layer
from tests.support.planting import load, source
from tests.support.program_oracle import ProgramOracle
from tests.support.speech_models import quantized_speech
from tests.support.strategies import quick

COUNTS = (1, 2, 3, 4)


def vectors(length: int, seed: int) -> dict[str, np.ndarray]:
    """int8 ``[length]``: noise of three spreads, and what gives determinants of 0 or their largest values."""
    rng = np.random.default_rng(seed)
    made = {f"noise {s}": np.clip(rng.normal(s / 9, s, length), -128, 127) for s in (1, 20, 300)}
    spike = np.full(length, -128)
    spike[rng.integers(length)] = 127
    made |= {
        "zeros": np.zeros(length), "one value": np.full(length, rng.integers(-128, 128)), "one outlier": spike,
        "two values": rng.choice([-128, 127], length), "ramp": np.arange(length) % 256 - 128,
    }  # fmt: skip
    return {name: x.astype(np.int8) for name, x in made.items()}


@quick
@given(st.sampled_from([1, 2, 3, 5, 24, 65]), st.sampled_from(COUNTS), st.integers(-128, 127), st.integers(0, 10**6))
def test_integers_are_those_of_the_definition(length: int, count: int, zero_point: int, seed: int) -> None:
    for name, x in vectors(length, seed).items():
        expected = program_oracle.run_time_codes(x.tolist(), zero_point, count)
        for ops, array in ((NUMPY, x[None]), (TORCH, torch.from_numpy(x[None]))):
            found = np.asarray(run_time_codes.multibit(ops, array, length, zero_point, count))
            assert found.dtype == np.int16
            assert np.array_equal(found[0], expected), name


@pytest.mark.parametrize("count", COUNTS)
def test_int64_holds_the_longest_vectors(count: int) -> None:
    """Unbounded integers say the same at N = 2048 and 255 steps from the zero point, where products are largest."""
    length = run_time_codes.MULTIBIT_LENGTH_MAX
    for zero_point in (-128, 127):
        for name, x in vectors(length, 1).items():
            with np.errstate(all="raise"):
                found = run_time_codes.multibit(NUMPY, x[None], length, zero_point, count)[0]
            assert np.array_equal(found, program_oracle.run_time_codes(x.tolist(), zero_point, count)), name


BUGS = {
    "one cycle": ("for _ in range(MULTIBIT_CYCLES)", "for _ in range(1)"),
    "the sign of 0 is -1": ("zero_i32 <= rest_i32", 'ops.to(1, "int32") <= rest_i32'),
    "the smaller of two equally near": (
        'value_i32 <= target, ops.to(0, "int32"), ops.to(1, "int32")',
        'value_i32 <= target, ops.to(1, "int32"), ops.to(0, "int32")',
    ),
    "the first of equal sums": ("nearer = distance_i32 <= nearest_i32", "nearer = distance_i32 < nearest_i32"),
    "coefficients cut": ('<< MULTIBIT_FRACTION_BITS, "int64") + whole_i64', '<< MULTIBIT_FRACTION_BITS, "int64")'),
    "dependent codes solved": ('whole_i64 <= ops.to(0, "int64")', 'whole_i64 < ops.to(0, "int64")'),
    "greedy means cut": ('<< ops.to(1, "int32")) + ops.to(length, "int32")', '<< ops.to(1, "int32"))'),
    "no zero point": ('ops.to(x, "int32") - ops.to(zero_point, "int32")\n    target', 'ops.to(x, "int32")\n    target'),
    "saturates at its dtype": ("total_i32, -MULTIBIT_MAX, MULTIBIT_MAX", "total_i32, -32768, 32767"),
}  # fmt: skip


def agrees(text: str) -> bool:
    """Whether this text of ``run_time_codes`` says what the definition says of many vectors, short ones among them."""
    module = load("run_time_codes", text)
    for seed in range(60):
        length, count = (2, 3, 4, 6, 9, 24)[seed % 6], COUNTS[seed % 4]
        for x in vectors(length, seed).values():
            zero_point = (-128, 0, 5)[seed % 3]
            found = module.multibit(NUMPY, x[None], length, zero_point, count)[0]
            if not np.array_equal(found, program_oracle.run_time_codes(x.tolist(), zero_point, count)):
                return False
    return True


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_noticed(bug: str) -> None:
    text, (old, new) = source("run_time_codes"), BUGS[bug]
    assert text.count(old) == 1
    assert agrees(text)
    assert not agrees(text.replace(old, new))


def test_the_bounds_of_the_page() -> None:
    """What the page says of int64, in numbers."""
    length, reach, f = run_time_codes.MULTIBIT_LENGTH_MAX, 255, run_time_codes.MULTIBIT_FRACTION_BITS
    minor, whole = 24 * length**3 * reach * length, 24 * length**4
    assert 2 ** (f + 1) * minor + whole < 2**62
    assert 2 * whole < 2**62
    assert 127 * length * run_time_codes.MULTIBIT_MAX + 2**30 < 2**31
    assert run_time_codes.MULTIBIT_MAX == reach << f <= 32767


def test_one_value_is_exact_and_more_codes_are_closer() -> None:
    rng = np.random.default_rng(0)
    x = np.clip(rng.normal(10, 40, (50, 300)), -128, 127).astype(np.int8)
    errors = []
    for count in COUNTS:
        y = run_time_codes.multibit(NUMPY, x, 300, -3, count) / 16
        errors.append(np.square(y - (x + 3.0)).sum())
        constant = run_time_codes.multibit(NUMPY, np.full((1, 9), 7, np.int8), 9, -3, count)
        assert np.array_equal(constant, np.full((1, 9), 10 * 16))
    assert all(after < before / 2 for before, after in pairwise(errors))


def test_training_sees_the_same_codes() -> None:
    """The float codes of an integer vector have the error of the integers' own; the gradient passes."""
    rng = np.random.default_rng(1)
    x = np.clip(rng.normal(0, 40, (50, 300)), -128, 127).round()
    for count in COUNTS:
        real = torch.from_numpy(x).requires_grad_()
        simulated = FakeMultibit.apply(real, count)
        exact = run_time_codes.multibit(NUMPY, x.astype(np.int8), 300, 0, count) / 16
        errors = [float(np.square(y - x).mean()) for y in (simulated.detach().numpy(), exact)]
        # Coefficients are rounded to 1/16 of a step, and a flipped code leads to another, equally good solution.
        assert errors[0] == pytest.approx(errors[1], rel=0.02)
        simulated.sum().backward()
        assert torch.equal(real.grad, torch.ones_like(real))


def alternating(weight: int, hidden: int) -> irnn.QuantConfig:
    return irnn.QuantConfig("alternating", weight, weight, weight, hidden=hidden)


# Every number of codes once, the largest in the slow tests with the other combinations.
AT_ONCE = ((1, "lstm"), (2, "gru"), (3, "lstm"))


@pytest.mark.parametrize(
    ("hidden", "cell"),
    [
        pytest.param(hidden, cell, marks=() if (hidden, cell) in AT_ONCE else pytest.mark.slow)
        for hidden in COUNTS
        for cell in ("lstm", "gru")
    ],
)
def test_every_executor_gives_the_same_integers(hidden: int, cell: str, tmp_path: Path) -> None:
    model = quantized(language_model(cell=cell, layers=2), alternating(2, hidden))
    program, tokens = irnn.convert(model), ids(2, 7, seed=5)
    assert sum(node.op == "multibit" for node in program.walk()) == 5
    logits, _ = model(tokens)
    outputs, last = program.run(tokens.numpy())
    assert torch.equal(logits, torch.from_numpy(outputs) * program.logits_scale)
    (expected,), evaluated = ProgramOracle(program).run_batch({"ids": tokens.numpy()})
    assert np.array_equal(outputs, expected)
    assert all(np.array_equal(last[name], array) for name, array in evaluated.items())
    assert_compiled_alike(program, tmp_path)


def test_directions_share_the_codes_of_what_they_read(tmp_path: Path) -> None:
    quant = irnn.QuantConfig(weight="ternary", hidden="alternating:2")
    program = irnn.convert(quantized_layer(quant, bidirectional=True))
    assert sorted(node.output for node in program.walk() if node.op == "multibit") == [
        "lstm.0.h.before.codes", "lstm.0_reverse.h.before.codes", "x.codes"
    ]  # fmt: skip
    assert_compiled_alike(program, tmp_path)


@pytest.mark.parametrize("core", [pytest.param("arm_dotprod", marks=pytest.mark.slow), "arm_neon", "armv7_neon"])
def test_boards_give_the_same_integers(core: str) -> None:
    assert_boards_alike(core, irnn.convert(quantized(language_model(cell="gru"), alternating(2, 3))))


@pytest.mark.parametrize("more", [dict(layers=2), dict(softmaxes=2, down_projection=True)], ids=["layers", "mixture"])
def test_dropout_is_nowhere_before_the_codes(more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written in codes in training has no more zeros than what is in evaluation."""
    shares: list[float] = []

    class Seen(FakeMultibit):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, count: int) -> torch.Tensor:
            shares.append(float((x == 0).float().mean()))
            return FakeMultibit.forward(ctx, x, count)

    monkeypatch.setattr("irnn.wiring.simulate.FakeMultibit", Seen)
    model = quantized(language_model(dropout=0.8, **more), alternating(2, 2)).train()
    tokens = ids(4, 20)
    model.loss(tokens[:, :-1], tokens[:, 1:], {n: torch.rand_like(s) for n, s in model.initial_state(4).items()})
    assert len(shares) > 20
    assert max(shares) < 0.2


def test_a_model_trains_in_its_codes() -> None:
    model = language_model(dropout=0.0)
    assert_trains_in_every_stage(model, alternating(2, 2))
    coded = {name: m.operand_codes for name, m in model.named_modules() if hasattr(m, "operand_codes")}
    assert coded == {"embedding": None, "lstm.layers.0.cells.forward_cell.w_x": 2,
                     "lstm.layers.0.cells.forward_cell.w_h": 2, "decoder": 2}  # fmt: skip
    qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), "float")
    assert all(m.operand_codes is None for m in model.modules() if hasattr(m, "operand_codes"))


def test_recognizers_have_them_too() -> None:
    """Layers and output read codes, attention and convolutions their 8 bits."""
    programs = irnn.convert(quantized_speech(irnn.QuantConfig(weight="ternary", hidden="alternating:3")))
    found = {node.output for program in programs.values() for node in program.walk() if node.op == "multibit"}
    assert {"decoder.embedding.codes", "decoder.context.before.codes"} <= found
    with pytest.raises(IrnnError, match=r"scores take one: .* \(of.decoder.attention.v=uniform:8\)"):
        irnn.convert(quantized_speech(everywhere("alternating:2")))
    mended = replace(everywhere("alternating:2"), of={"decoder.attention.v": "uniform:8"})
    assert set(irnn.convert(quantized_speech(mended))) == {"encoder", "decoder"}


REFUSED = [
    (dict(zero_point=-129), r"x is up to 256 from -129, at most 255"),
    (dict(codes=5), r"has 5 codes, 1 to 4 are allowed"),
    (dict(length=2049), r"is over 2049 elements, at most 2048"),
    (dict(dtype="int16"), r"reads x, which is not int8"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_is_not_proved_is_refused(change: dict, message: str) -> None:
    a = dict(zero_point=0, codes=2, length=2048, dtype="int8") | change
    low = int(np.iinfo(a["dtype"]).min)
    x = Value(a["dtype"], (a["length"],), low=low, high=127)
    node = Node("multibit", ("x",), "y", {"zero_point": a["zero_point"], "codes": a["codes"]})
    program = Program("integer", {"x": x}, ("y",), {}, {"x": x, "y": Value("int16", x.shape)}, (node,), {})
    with pytest.raises(IrnnError, match=message):
        program.check()


def test_a_product_of_2048_columns_and_8_bits_holds_them() -> None:
    x = Value("int8", (2048,), low=-128, high=127)
    nodes = (
        Node("multibit", ("x",), "codes", {"zero_point": 127, "codes": 4}),
        Node("linear", ("codes",), "y", {}, {"weight": "w", "bias": "b"}),
    )
    values = {"x": x, "codes": Value("int16", (2048,)), "y": Value("int32", (1,))}
    tensors = {"w": Tensor(np.full((1, 2048), 127, np.int8), 8), "b": Tensor(np.array([1 << 30], np.int32), 32)}
    Program("integer", {"x": x}, ("y",), {}, values, nodes, tensors).check()


def test_bits_of_hidden_are_those_of_the_code() -> None:
    assert alternating(2, 3).run_time_codes == 3
    assert irnn.QuantConfig("greedy", 2, 2, 2, hidden=3).choice("hidden") == "alternating:3"
    assert irnn.QuantConfig("alternating", 2, 2, 2, hidden="uniform:6").bits("hidden") == 6
    assert irnn.QuantConfig("denseshift", 3, 3, 3, hidden=6).run_time_codes is None
    with pytest.raises(IrnnError, match=r"hidden=8 of code=alternating: '8' is no number of bits of the w"):
        alternating(2, 8)
