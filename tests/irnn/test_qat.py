"""Stages, zero gap between QAT evaluation and the program, and the distance of the training simulation."""

import numpy as np
import pytest
import torch

import irnn
from irnn import qat
from irnn.models.sequence import random_layer
from irnn.nn.cells import CELLS
from irnn.quant.site import QuantSite
from tests.support.models import ids, language_model, quantized, quantized_layer

NORMS = (None, "mad", "layer")


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_evaluation_is_the_programs_integers(norm, bits):
    quant = irnn.QuantConfig(weight=bits, embedding=bits, logits_weight=bits)
    model = quantized(language_model(norm=norm, layers=2), quant)
    tokens = ids(3, 50)
    program = irnn.convert(model)
    logits_i32, state = program.run(tokens.numpy())
    evaluated, evaluated_state = model.frozen().run(tokens, None)
    assert np.array_equal(logits_i32, evaluated.numpy())
    assert logits_i32.dtype == np.int32
    assert set(state) == {"lstm.0.h", "lstm.0.c", "lstm.1.h", "lstm.1.c"}
    for name, value in state.items():
        assert np.array_equal(value, evaluated_state[name].numpy())
        assert value.dtype == (np.int8 if name.endswith("h") else np.int16)
    logits, _ = model(tokens)
    assert torch.equal(logits, evaluated * program.logits_scale)


def test_step_by_step_equals_the_whole_sequence():
    program = irnn.convert(quantized(language_model()))
    tokens = ids(2, 12).numpy()
    whole, last = program.run(tokens)
    state = None
    for t in range(tokens.shape[1]):
        logits, state = program.step(tokens[:, t], state)
        assert np.array_equal(logits, whole[:, t])
    assert all(np.array_equal(state[name], last[name]) for name in last)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("norm", NORMS)
def test_the_training_simulation_is_close_to_the_integers(norm, seed):
    """Independent computations: float fake quantization against integers.

    One step only where there is a norm: a normalized network with random weights is chaotic, and any rounding grows.

    How far apart they may be does not depend on a CPU's float kernels, which decide only on how often: where the two
    fall on different sides of a rounding, a gate is one of its steps off (sigmoid 1/255, tanh 1/127).  So c is off by
    at most a step of f, of i and of g for each time step; the norm before tanh(c) divides that by the row's spread;
    tanh(c) and o may be a step off themselves, and h is rounded once more.
    """
    model = quantized(language_model(norm=norm, seed=seed))
    tokens, cell = ids(64, 4 if norm is None else 1), model.lstm.layers[0].cells.forward_cell
    found = qat.simulation_mismatch(model, tokens)
    assert found["hidden"]["share"] < (0.03 if norm is None else 0.08)
    scale_c, scale_h = (float(site.qparams()[0][0]) for site in (cell.cell, model.lstm.layers[0].hidden))
    c = model.frozen().run(tokens, None)[1]["lstm.0.c"] * scale_c
    sigmoid, tanh = 1 / 255, 1 / 127
    off = found["cell"]["max_steps"] * scale_c
    assert off <= tokens.shape[1] * (sigmoid * (1 + float(c.abs().max())) + tanh)
    gain = 1.0 if norm is None else float(cell.norm_c.weight.detach().abs().max() / spread(norm, c).min())
    assert found["hidden"]["max_steps"] <= (gain * off + tanh + sigmoid) / scale_h + 1


def spread(norm: str, rows: torch.Tensor) -> torch.Tensor:
    """What each norm divides the rows by."""
    return (rows - rows.mean(1, keepdim=True)).abs().mean(1) if norm == "mad" else rows.std(1, correction=0)


@pytest.mark.parametrize("norm", NORMS)
def test_quantization_costs_little_after_calibration(norm):
    model = language_model(norm=norm).eval()
    tokens = ids(32, 30 if norm is None else 3)  # a normalized network with random weights is chaotic
    if norm == "mad":
        qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), "pwl")
        qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), "float")
    with torch.no_grad():
        exact, _ = model(tokens)
    with torch.no_grad():
        integer, _ = quantized(model, pwl=irnn.PwlConfig(pieces=32, fit="optimal"))(tokens)
    error = float((integer - exact).square().mean().sqrt() / exact.std())
    assert error < 0.05, f"integer logits are {error:.1%} of their spread away from the float ones"


def test_stages_switch_on_what_they_say():
    model = language_model(norm="mad")
    qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), "pwl")
    qat.calibrate(model, [ids()])
    expected_on = {
        "float": set(),
        "pwl": set(),
        "weights": {"weight", "embedding", "logits_weight"},
        "activations": {"weight", "embedding", "logits_weight", "hidden", "preactivation", "norm"},
        "all": {"weight", "embedding", "logits_weight", "hidden", "preactivation", "norm", "cell"},
    }
    for stage in qat.STAGES:
        qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), stage)
        on = {m.role for m in model.modules() if getattr(m, "role", None) and m.quantizing}
        assert on == expected_on[stage]
        observing = {m.observing for m in model.modules() if isinstance(m, QuantSite)}
        assert observing == {stage in ("pwl", "weights", "activations")}


def test_ranges_move_in_training_and_are_frozen_in_the_last_stage():
    model = language_model()
    for stage, moves in (("pwl", True), ("activations", True), ("all", False)):
        qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), stage)
        if stage == "pwl":
            qat.calibrate(model, [ids()])
        model.train()
        before = model.lstm.layers[0].hidden.observed_max.clone()
        loss, _ = model.loss(ids(seed=7)[:, :-1] * 0, ids(seed=7)[:, 1:])
        loss.backward()
        assert bool(torch.equal(before, model.lstm.layers[0].hidden.observed_max)) is not moves


@pytest.mark.parametrize("cell", CELLS)
def test_every_stage_trains(cell):
    """Adam at a small rate: a normalized network with random weights is chaotic, and plain descent may climb."""
    model = language_model(cell=cell, norm=None if cell in ("ornn", "mogrifier") else "mad", layers=2, dropout=0.0)
    tokens = ids(4, 20)
    for stage in qat.STAGES:
        qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), stage)
        if stage == "pwl":
            qat.calibrate(model, [tokens])
        model.train()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
        losses = []
        for _ in range(20):
            loss, _ = model.loss(tokens[:, :-1], tokens[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            assert all(p.grad is not None for p in model.parameters())
            optimizer.step()
            losses.append(float(loss.detach()))
        # Seeds and float kernels tried: 0.26 to 0.76.
        assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1, stage


def test_training_thaws_the_integers():
    model = quantized(language_model())
    tokens = ids()
    before, _ = model(tokens)
    model.train()
    with torch.no_grad():
        model.embedding.weight.mul_(1.5)
    model.eval()
    after, _ = model(tokens)
    assert not torch.equal(before, after)
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()})
    again, _ = model(tokens)
    assert torch.equal(after, again)


def test_tied_weights_need_one_width():
    with pytest.raises(irnn.IrnnError, match="tie_weights"):
        qat.prepare(language_model(), irnn.QuantConfig(embedding=4), irnn.PwlConfig(), "all")
    qat.prepare(language_model(tie=False), irnn.QuantConfig(embedding=4), irnn.PwlConfig(), "all")
    with pytest.raises(irnn.IrnnError, match="unknown stage"):
        qat.prepare(language_model(), irnn.QuantConfig(), irnn.PwlConfig(), "last")
    with pytest.raises(irnn.IrnnError, match="greedy, optimal"):
        irnn.PwlConfig(fit="spline")


def test_sites_are_listed_with_what_they_clip():
    model = quantized(language_model(norm="mad"))
    found = qat.sites(model, [ids(seed=9)])
    rows = {row.name: row for row in found}
    assert {row.role for row in rows.values()} == {"embedding", "weight", "hidden", "preactivation", "norm", "cell"}
    hidden = rows["lstm.0.hidden"]
    assert hidden.bits == 8
    assert 0 <= hidden.clipped_share < 0.05
    assert len(rows["lstm.0.preactivation"].scale) == 4
    assert "lstm.0.norm_gates" in str(found)


def test_a_clipped_site_is_noticed():
    model = quantized(language_model())
    model.lstm.layers[0].hidden.observed_max.mul_(0.1)
    model.lstm.layers[0].hidden.observed_min.mul_(0.1)
    rows = {row.name: row for row in qat.sites(model, [ids()])}
    assert rows["lstm.0.hidden"].clipped_share > 0.3


def test_bidirectional_layers_share_the_scale_of_h():
    model = quantized_layer(bidirectional=True, num_layers=2)
    program = irnn.convert(model)
    assert not program.streaming
    x = model.integer_input(torch.randn(2, 11, 9))
    h, _ = program.run(x.numpy())
    evaluated, _ = model(x)
    assert np.array_equal(h, evaluated.numpy())
    assert h.shape == (2, 11, 32)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_projected_layers_are_the_programs_integers(bits):
    model = quantized_layer(irnn.QuantConfig(weight=bits), num_layers=2, bidirectional=True, proj_size=5)
    program = irnn.convert(model)
    x = model.integer_input(torch.randn(2, 11, 9))
    h, state = program.run(x.numpy())
    evaluated, evaluated_state = model(x)
    assert np.array_equal(h, evaluated.numpy())
    assert h.shape == (2, 11, 10)
    assert (state["lstm.1_reverse.h"].shape, state["lstm.1_reverse.c"].shape) == ((2, 5), (2, 16))
    assert all(np.array_equal(value, evaluated_state[name].numpy()) for name, value in state.items())
    rows = {row.name: row for row in qat.sites(model)}
    assert (rows["lstm.0_reverse.unprojected"].role, rows["lstm.0_reverse.unprojected"].bits) == ("activation", 8)
    assert rows["lstm.1.w_r"].bits == bits


def test_a_projected_layer_is_close_to_its_float_self_and_trains():
    model = random_layer(9, 16, num_layers=2, bidirectional=True, proj_size=5)
    x = torch.randn(4, 30, 9, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact, _ = model.eval()(x)
    for stage in qat.STAGES:
        qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(pieces=32, fit="optimal"), stage)
        if stage == "pwl":
            qat.calibrate(model, [x])
        model.train()
        h, _ = model(x)
        h.square().sum().backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    with torch.no_grad():
        h, _ = model.eval()(model.integer_input(x))
    # One step of the 8-bit h; the observers saw five passes over the same x, so its range is that of x.
    step = model.lstm.layers[-1].hidden.qparams()[0]
    h = (h - model.lstm.layers[-1].hidden.qparams()[1]) * step
    error = float((h - exact).square().mean().sqrt() / exact.std())
    assert error < 0.05, f"integer h is {error:.1%} of its spread away from the float one"


@pytest.mark.parametrize("stage", qat.STAGES)
def test_autocast_reaches_the_float_stage_and_the_loss_only(stage):
    model = language_model(dropout=0.0)
    qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), stage)
    if stage != "float":
        qat.calibrate(model, [ids()])
    model.train()
    exact, _ = model.simulate(ids(), None, observing=False)
    with torch.autocast("cpu", torch.bfloat16):
        features, _ = model.simulate(ids(), None, observing=False)
        loss, _ = model.loss(ids()[:, :-1], ids()[:, 1:])
    assert torch.equal(features, exact) is (stage != "float")
    loss.backward()
    assert torch.isfinite(model.decoder.weight.grad).all()
