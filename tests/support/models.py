"""Small models for the tests, trained for a moment where it matters."""

from pathlib import Path

import torch

import irnn
from irnn import qat
from irnn.models.sequence import SequenceModel, random_layer
from irnn.nn.recurrent import Recurrent
from irnn.quant.site import QuantSite

VOCABULARY = 60


def wired(stack: Recurrent) -> Recurrent:
    """The layer with its observers on, in training: it goes its own way where torch's kernel would do the same."""
    for module in stack.modules():
        if isinstance(module, QuantSite):
            module.observing = True
    return stack.train()


def language_model(
    *, cell="lstm", norm=None, layers=1, tie=True, size=24, dropout=0.1, seed=0, **more
) -> irnn.LanguageModel:
    """A float model with weights large enough for gates to move."""
    torch.manual_seed(seed)
    config = irnn.LanguageModelConfig(
        VOCABULARY, size, size, num_layers=layers, dropout=dropout, tie_weights=tie, norm=norm, cell=cell, **more
    )
    model = irnn.LanguageModel(config)
    with torch.no_grad():
        for parameter in model.recurrent.parameters():
            parameter.mul_(2.0)
        model.embedding.weight.mul_(8.0)
    return model


def ids(batch=4, time=40, seed=1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (batch, time), generator=generator)


def quantized(model: irnn.LanguageModel, quant=None, pwl=None) -> irnn.LanguageModel:
    """Straight to stage "all" with calibrated ranges (post-training quantization), in eval mode."""
    qat.prepare(model, quant or irnn.QuantConfig(), pwl or irnn.PwlConfig(), "all")
    qat.calibrate(model, [ids(), ids(seed=2)])
    return model.eval()


def assert_trains_in_every_stage(model: irnn.LanguageModel, quant: irnn.QuantConfig) -> None:
    """A few steps in each stage, one after the other, lower the loss on the same tokens."""
    tokens = ids(4, 20)
    for stage in qat.STAGES:
        qat.prepare(model, quant, irnn.PwlConfig(), stage)
        if stage == "pwl":
            qat.calibrate(model, [tokens])
        optimizer = torch.optim.Adam(model.train().parameters(), lr=0.003)
        losses = []
        for _ in range(15):
            loss, _ = model.loss(tokens[:, :-1], tokens[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.05, stage


def quantized_layer(quant=None, **arguments) -> SequenceModel:
    model = random_layer(9, 16, **arguments)
    qat.prepare(model, quant or irnn.QuantConfig(), irnn.PwlConfig(), "all")
    qat.calibrate(model, [torch.randn(4, 30, 9, generator=torch.Generator().manual_seed(0))])
    return model.eval()


# Programs for long runs: sizes that fill no register, and those of real layers; 8, 4 and 2 bits.
LONG = ("odd_w4", "odd_w2", "wide_w8", "wide_w4")


def long_programs(folder: Path) -> None:
    """Save a program of each name in ``LONG`` into ``folder``."""
    for bits in (4, 2):
        model = language_model(size=93, layers=2, norm="mad" if bits == 4 else "layer", tie=False)
        quant = irnn.QuantConfig(weight=bits, embedding=bits, logits_weight=bits)
        irnn.convert(quantized(model, quant)).save(folder / f"odd_w{bits}")
    for bits in (8, 4):
        quant = irnn.QuantConfig(weight=bits)
        irnn.convert(quantized(language_model(size=650, dropout=0.0), quant)).save(folder / f"wide_w{bits}")


def assert_every_weight_learns(model: irnn.LanguageModel) -> None:
    """In every stage each parameter has a gradient that is not 0."""
    tokens = ids(2, 5)
    for stage in qat.STAGES:
        qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), stage)
        if stage == "pwl":
            qat.calibrate(model, [tokens])
        model.train().zero_grad()
        model.loss(tokens[:, :-1], tokens[:, 1:])[0].backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters()), stage
