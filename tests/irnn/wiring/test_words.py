"""Words on time, bands and sums: the program means what the simulation means, and that is what torch means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import irnn
from irnn.errors import IrnnError
from irnn.nn.affine import Affine, FoldedNorm
from irnn.nn.convolution import FoldedConvolution
from irnn.program.windows import Window
from tests.support.float_reference import run_float
from tests.support.wired import BATCH, SIZE, Wired, features, linear, real, site, steps_apart

# Every one with the function of real numbers [batch, time, size] that it stands for.
WORDS: dict[str, tuple[Callable[[], Wired], Callable[[Tensor], Tensor]]] = {
    "step from the start": (lambda: Wired(lambda a, m, x: a.step(x, 2)), lambda x: x[:, 2]),
    "step from the end": (lambda: Wired(lambda a, m, x: a.step(x, -2)), lambda x: x[:, -2]),
    "difference": (
        lambda: Wired(
            lambda a, m, x: a.subtract(m.out, x, a.clamp(m.other, x, None, 0.7)),
            other=site("cell"), out=site("activation"),
        ),
        lambda x: x - x.clamp(max=0.7),
    ),
    "product of sixteen bits": (
        lambda: Wired(
            lambda a, m, x: a.requantize(m.out, a.multiply(a.residual(m.wide, x), a.residual(m.wide, x))),
            wide=site("cell"), out=site("preactivation"),
        ),
        lambda x: x * x,
    ),
    "join of several scales": (
        lambda: Wired(
            lambda a, m, x: a.join(m.out, [a.requantize(m.big, a.scale(x, 3.0)), x, a.residual(m.wide, x)]),
            big=site("activation"), wide=site("cell"), out=site("activation", 3 * SIZE),
        ),
        lambda x: torch.cat([3 * x, x, x], -1),
    ),
    "relu6": (lambda: Wired(lambda a, m, x: a.clamp(m.out, a.scale(x, 5.0), 0, 6), out=site("activation")),
              lambda x: (5 * x).clamp(0, 6)),
    "hardtanh in sixteen bits": (
        lambda: Wired(lambda a, m, x: a.clamp(m.out, x, -0.3, 0.9), out=site("cell")), lambda x: x.clamp(-0.3, 0.9)
    ),
    "clamp above zero": (
        lambda: Wired(lambda a, m, x: a.clamp(m.out, x, 0.25, None), out=site("activation")), lambda x: x.clamp(0.25)
    ),
    "a scaled output": (lambda: Wired(lambda a, m, x: a.scale(x, 0.125)), lambda x: 0.125 * x),
    "a batch norm that stands alone": (
        lambda: Wired(
            lambda a, m, x: a.requantize(m.out, a.affine(m.norm, x)), norm=FoldedNorm(alone()), out=site("cell")
        ),
        lambda x: alone()(x.float().transpose(1, 2)).transpose(1, 2).detach().to(x),
    ),
    "one minus a value": (
        lambda: Wired(
            lambda a, m, x: a.requantize(m.out, a.affine(m.turned, x)),
            turned=Affine(-torch.ones(SIZE), torch.ones(SIZE)), out=site("activation"),
        ),
        lambda x: 1 - x,
    ),
    "gains of very different size": (
        lambda: Wired(
            lambda a, m, x: a.requantize(m.out, a.scale(a.affine(m.gains, x), 2.0)),
            gains=Affine(GAINS, GAINS.flip(0)), out=site("preactivation"),
        ),
        lambda x: 2 * (x * GAINS + GAINS.flip(0)),
    ),
    "slice": (lambda: Wired(lambda a, m, x: a.slice(x, 1, 4)), lambda x: x[..., 1:4]),
    "mean over time": (
        lambda: Wired(lambda a, m, x: a.requantize(m.out, a.time_mean(x)), out=site("preactivation")),
        lambda x: x.mean(1),
    ),
    "maximum over time": (lambda: Wired(lambda a, m, x: a.time_max(x)), lambda x: x.amax(1)),
    "repeat": (
        lambda: Wired(
            lambda a, m, x: a.subtract(m.out, x, a.repeat(a.requantize(m.mean, a.time_mean(x)), x)),
            mean=site("cell"), out=site("activation"),
        ),
        lambda x: x - x.mean(1, keepdim=True),
    ),
    "maxima of windows": (
        lambda: Wired(lambda a, m, x: a.max_pool(Window((3, 2), (2, 1), ((1, 1), (0, 1))), 2, x)),
        lambda x: pooled(nn.MaxPool2d((3, 2), (2, 1)), x, (0, 1, 1, 1), -torch.inf),
    ),
    "means of windows": (
        lambda: Wired(
            lambda a, m, x: a.requantize(m.out, a.mean_pool(Window((2, 3), (1, 1), ((1, 0), (1, 1))), 2, x)),
            out=site("preactivation"),
        ),
        lambda x: pooled(nn.AvgPool2d((2, 3), 1), x, (1, 1, 1, 0), 0.0),
    ),
}  # fmt: skip


GAINS = torch.tensor([1.0, -1e-3, 0.0, 1e-6, 0.0, 0.3])


def alone() -> nn.BatchNorm1d:
    """A trained norm over the elements of a sequence."""
    norm, made = nn.BatchNorm1d(SIZE).eval(), torch.Generator().manual_seed(8)
    for part, low, high in ((norm.running_mean, -0.3, 0.3), (norm.running_var, 0.5, 2), (norm.weight.data, -1, 1)):
        part.uniform_(low, high, generator=made)
    return norm


def pooled(pool: nn.Module, x: Tensor, border: tuple[int, ...], fill: float, channels: int = 2) -> Tensor:
    image = x.unflatten(2, (-1, channels)).permute(0, 3, 1, 2)
    return pool(nn.functional.pad(image, border, value=fill)).permute(0, 2, 3, 1).flatten(2)


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_one_function_everywhere(word: str) -> None:
    """In real numbers torch's, and its float program's; integers within two steps, for a sum's terms round apart."""
    torch.manual_seed(1)
    make, function = WORDS[word]
    model, x = make(), features()
    torch.testing.assert_close(real(model, x), function(x), rtol=1e-5, atol=1e-6)
    y, _ = run_float(irnn.float_program(model), x.double().numpy(), {})
    np.testing.assert_allclose(y, function(x.double()).numpy(), rtol=1e-6, atol=1e-6)
    assert steps_apart(model, x) < 2


def convolutions() -> dict[str, tuple[FoldedConvolution, nn.Module, int]]:
    """(part, the torch module on [batch, channels, time(, band)] that it stands for, channels)."""
    torch.manual_seed(3)
    norms: list[Any] = [nn.BatchNorm1d(5), nn.BatchNorm2d(4, affine=False)]
    for norm in norms:
        nn.init.uniform_(norm.running_mean, -0.3, 0.3)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    nn.init.uniform_(norms[0].weight, 0.5, 2)
    nn.init.uniform_(norms[0].bias, -1, 1)
    strided = nn.Conv1d(SIZE, 5, 5, stride=2, padding=2)
    shrinking = nn.Conv1d(SIZE, 5, 2, dilation=3, bias=False)
    same = nn.Conv1d(SIZE, 5, 4, padding="same", dilation=2)
    grouped = nn.Conv1d(SIZE, 6, 3, groups=SIZE, padding=1)
    causal = nn.Conv1d(SIZE, 5, 3)
    image = nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 1))
    wide = nn.Conv2d(2, 4, (2, 3), stride=(1, 2), padding=(0, 1), dilation=(2, 1), groups=2)
    return {
        "a stride and a norm": (FoldedConvolution(strided, norms[0]), nn.Sequential(strided, norms[0]), SIZE),
        "no border": (FoldedConvolution(shrinking), shrinking, SIZE),
        "same": (FoldedConvolution(same), same, SIZE),
        "depthwise": (FoldedConvolution(grouped), grouped, SIZE),
        "causal": (
            FoldedConvolution(causal, padding=((2, 0), (0, 0))),
            nn.Sequential(nn.ConstantPad1d((2, 0), 0.0), causal),
            SIZE,
        ),
        "time down": (FoldedConvolution(image, norms[1]), nn.Sequential(image, norms[1]), 2),
        "time across": (FoldedConvolution(wide, time_axis=1), wide, 2),
    }  # fmt: skip


def convolved(case: str, module: nn.Module, x: Tensor, channels: int) -> Tensor:
    """By torch, from and to [batch, time, bands * channels]."""
    if channels == SIZE:
        return module(x.transpose(1, 2)).transpose(1, 2)
    image = x.unflatten(2, (-1, channels)).permute(0, 3, 1, 2)  # [batch, channels, time, band]
    across = case == "time across"
    y = module(image.transpose(2, 3) if across else image)
    return (y.transpose(2, 3) if across else y).permute(0, 2, 3, 1).flatten(2)


@pytest.mark.parametrize("case", convolutions())
def test_a_users_convolution(case: str) -> None:
    part, module, channels = convolutions()[case]
    module.eval()
    x = features()
    with torch.no_grad():
        wanted = convolved(case, module, x, channels)
    filters = len(part.weight)
    model = Wired(
        lambda a, m, x: a.flatten(a.clamp(m.out, a.convolution(m.conv, x), 0, None)),
        conv=part, out=site("activation", filters),
    )  # fmt: skip
    torch.testing.assert_close(real(model, x), wanted.relu(), rtol=1e-4, atol=1e-5)
    y, _ = run_float(irnn.float_program(model), x.double().numpy(), {})
    np.testing.assert_allclose(y, wanted.relu().numpy(), rtol=1e-4, atol=1e-5)
    # 8-bit weights and activations: the simulation's own sums are those of the integers.
    assert steps_apart(model, x) < 2


def test_a_folded_convolution_trains_its_users_parameters() -> None:
    part, _, _ = convolutions()["a stride and a norm"]
    conv, norm = part._parts
    assert not list(part.parameters())
    model = Wired(lambda a, m, x: a.flatten(a.clamp(m.out, a.convolution(m.conv, x), 0, None)), conv=part,
                  out=site("activation", 5))  # fmt: skip
    y, _ = model.train().simulate(features(), observing=False)
    y.square().sum().backward()
    for parameter in (conv.weight, conv.bias, norm.weight, norm.bias):
        assert float(parameter.grad.abs().sum()) > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FoldedConvolution(nn.Conv1d(2, 2, 3, padding=1, padding_mode="reflect")), "padding_mode='reflect'"),
        (
            lambda: FoldedNorm(nn.BatchNorm1d(2, track_running_stats=False)),
            "a batch norm without running statistics cannot be folded",
        ),
        (
            lambda: FoldedConvolution(nn.Conv1d(2, 2, 3), nn.BatchNorm1d(2, track_running_stats=False)),
            "a batch norm without running statistics cannot be folded",
        ),
    ],
)
def test_a_convolution_that_cannot_be_folded(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(IrnnError, match=message):
        make()


def test_a_sum_is_one_of_sequences_or_of_values() -> None:
    wires = [
        lambda a, m, x: a.residual(m.out, x, a.step(x, 0)),
        lambda a, m, x: a.subtract(m.out, a.step(x, 0), x),
        lambda a, m, x: a.multiply(a.step(x, 0), x),
    ]
    for wire in wires:
        model = Wired(wire, out=site("activation"))
        for part in (model.input_site, model.out):
            part.observe(features())
        with pytest.raises(IrnnError, match="repeat a value along time first"):
            irnn.convert(model)


def test_ends_and_factors_of_words() -> None:
    for wire, message in (
        (lambda a, m, x: a.clamp(m.out, x, 1, 1), r"a clamp to 1\.\.1: give a lower end, a higher one"),
        (lambda a, m, x: a.clamp(m.out, x, None, None), r"a clamp to None\.\.None"),
        (lambda a, m, x: a.scale(x, -1.0), r"cannot scale by -1\.0: a factor must be positive"),
        (lambda a, m, x: a.mean_pool(Window((2, 1), dilation=(2, 1)), 2, x), r"a mean over a window with dilation"),
    ):
        model = Wired(wire, out=site("activation"))
        for part in (model.input_site, model.out):
            part.observe(features())
        for run in (lambda model: real(model, features()), irnn.convert, irnn.float_program):
            with pytest.raises(IrnnError, match=message):
                run(model)


class Two(Wired):
    """A sequence and a value, of 16 bits; two outputs of 16 bits, one of them without time."""

    def program_wire(self, a: Any) -> None:
        x, v = a.features("x", self.wide), a.value("v", self.still)
        y = a.residual(self.out, x, a.repeat(v, x))
        a.output("sum", y)
        a.output("end", a.step(y, -1))


def test_inputs_without_time_and_outputs_of_sixteen_bits() -> None:
    model = Two(lambda a, m, x: x, fc=linear(), wide=site("cell"), still=site("cell"), out=site("preactivation"))
    x, v = features(), torch.randn(BATCH, SIZE) * 3
    for part, seen in ((model.wide, x), (model.still, v), (model.out, x + v[:, None])):
        part.observe(seen)
    program = irnn.convert(model)
    assert program.inputs["v"].axes == ()
    assert {value.dtype for value in program.inputs.values()} == {"int16"}
    given = {name: program.inputs[name].quantize(values.numpy()) for name, values in (("x", x), ("v", v))}
    (y, end), _ = program.run_all(given)
    assert (y.dtype, end.dtype, end.shape) == (np.int16, np.int16, (BATCH, SIZE))
    scale = program.values[program.outputs[0]].scale
    np.testing.assert_allclose(y * scale, (x + v[:, None]).numpy(), atol=2 * (scale + program.inputs["v"].scale))
    np.testing.assert_array_equal(end, y[:, -1])
    with pytest.raises(IrnnError, match=r"input v has the shape \[3, 9, 6\]; it takes \[batch, 6\]"):
        program.run_all(given | {"v": given["x"]})
