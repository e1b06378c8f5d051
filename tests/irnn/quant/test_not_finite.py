"""NaN and infinity are refused where they enter, by the name of the tensor or site and the stage."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import irnn
from irnn import qat
from irnn.arithmetic.multipliers import choose_multiplier
from irnn.errors import IrnnError
from irnn.models.sequence import random_layer
from irnn.quant.site import QuantSite
from tests.support.models import ids, language_model, quantized, quantized_layer
from tests.support.speech_models import quantized_speech, speech_batch, speech_model

BAD = [float("nan"), float("inf"), -float("inf")]


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def spoilt(tensor: torch.Tensor, value: float) -> None:
    with torch.no_grad():
        tensor.view(-1)[tensor.numel() // 2] = value


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("norm", [None, "mad", "layer"])
def test_every_parameter_is_looked_at(norm: str | None, value: float) -> None:
    """Conversion, integer evaluation and the float program refuse it by name; so does loading, and loses nothing."""
    model = quantized(language_model(norm=norm, tie=False))
    tokens = ids(1, 5)
    before, _ = model(tokens)
    for name, parameter in model.named_parameters():
        intact = parameter.detach().clone()
        part = name.split(".")[-2]
        spoilt(parameter, value)
        state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        for act in (irnn.convert, irnn.float_program, lambda m: m(tokens)):
            with pytest.raises(IrnnError) as error:
                act(model)
            assert part in one_line(error)
            assert "stage 'all'" in one_line(error)
        with torch.no_grad():
            parameter.copy_(intact)
        with pytest.raises(IrnnError) as error:
            model.load_state_dict(state)
        assert name in one_line(error)
        assert "stage 'all'" in one_line(error)
        assert torch.equal(model(tokens)[0], before)


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("end", ["observed_min", "observed_max"])
def test_every_range_is_looked_at(end: str, value: float) -> None:
    model = quantized(language_model(norm="mad"))
    for name, site in [(n, m) for n, m in model.named_modules() if isinstance(m, QuantSite)]:
        broken = copy.deepcopy(model)
        spoilt(getattr(broken.get_submodule(name), end), value)
        readable = site.where.split(" ")[0]
        with pytest.raises(IrnnError) as error:
            irnn.convert(broken)
        assert readable in one_line(error)
        with pytest.raises(IrnnError) as error:
            broken.eval()(ids(1, 3))
        assert readable in one_line(error)
        with pytest.raises(IrnnError) as error:
            model.load_state_dict(broken.state_dict())
        assert readable in one_line(error)


def test_a_range_that_is_turned_around_is_none() -> None:
    model = quantized(language_model())
    site = model.lstm.layers[0].hidden
    low, high = site.observed_min.clone(), site.observed_max.clone()
    with torch.no_grad():
        site.observed_min.copy_(high)
        site.observed_max.copy_(low)
    with pytest.raises(IrnnError, match=r"lstm\.0\.hidden .*: its observed range is"):
        irnn.convert(model)


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("observer", ["ema", "percentile"])
def test_a_calibration_batch_is_named(observer: str, value: float) -> None:
    model = quantized_layer()
    qat.prepare(model, irnn.QuantConfig(observer=observer), irnn.PwlConfig(), "all")
    ranges = {name: tensor.clone() for name, tensor in model.named_buffers()}
    bad = torch.randn(2, 5, 9)
    bad[1, 3, 4] = value
    with pytest.raises(IrnnError) as error:
        qat.calibrate(model, [bad])
    text = one_line(error)
    assert text.startswith("calibration, batch 1: input_site (stage 'all'): 1 of 90 values that it observes are NaN or")
    assert all(torch.equal(ranges[name], tensor) for name, tensor in model.named_buffers())
    with pytest.raises(IrnnError, match="calibration, batch 2: "):
        qat.calibrate(model, [torch.randn(2, 5, 9), bad])
    assert all(torch.equal(ranges[name], tensor) for name, tensor in model.named_buffers())


def test_an_observer_in_training_names_its_site() -> None:
    model = language_model(dropout=0.0)
    qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), "pwl")
    qat.calibrate(model, [ids()])
    model.train()
    spoilt(model.lstm.layers[0].cells.forward_cell.w_h.weight, float("nan"))
    with pytest.raises(IrnnError) as error:
        model.loss(ids()[:, :-1], ids()[:, 1:])
    assert "lstm.0.preactivation (stage 'pwl')" in one_line(error)


@pytest.mark.parametrize("value", BAD)
def test_features_are_looked_at(value: float) -> None:
    layer, x = quantized_layer(), torch.randn(2, 5, 9)
    x[0, 2, 1] = value
    with pytest.raises(IrnnError, match=r"first at \[0, 2, 1\]"):
        layer.integer_input(x)
    with pytest.raises(IrnnError, match=r"first at \[0, 2, 1\]"):
        irnn.convert(layer).inputs["x"].quantize(x.numpy())
    speech, batch = quantized_speech(), speech_batch()
    features = batch.features.clone()
    features[0, 0, 0] = value
    with pytest.raises(IrnnError, match="NaN or infinite"):
        speech.encode(features, batch.frames)


@pytest.mark.parametrize("value", BAD)
def test_batch_statistics_are_looked_at(value: float) -> None:
    """In training, before they move the running ones; and where they are loaded or converted."""
    model = qat.prepare(speech_model(), irnn.QuantConfig(), irnn.PwlConfig(), "float").train()
    batch = speech_batch()
    convolution = model.encoder.convolutions[0].convolution
    mean = convolution.mean.clone()
    features = batch.features.clone()
    features[0, 0, 0] = value
    with pytest.raises(IrnnError, match=r"encoder\.convolutions\.0\.convolution \(stage 'float'\): the statistics of"):
        model.loss(batch._replace(features=features))
    assert torch.equal(convolution.mean, mean)
    trained = quantized_speech()
    spoilt(trained.encoder.convolutions[0].convolution.mean, value)
    with pytest.raises(IrnnError, match=r"bias of encoder\.convolutions\.0\.convolution \(stage 'all'\)"):
        irnn.convert(trained)
    with pytest.raises(IrnnError, match=r"encoder\.convolutions\.0\.convolution\.mean holds 1 numbers that are NaN"):
        quantized_speech().load_state_dict(trained.state_dict())


def test_a_negative_variance_or_a_vector_of_length_zero_gives_no_numbers() -> None:
    for spoil in (
        lambda m: m.encoder.convolutions[0].convolution.variance.fill_(-1.0),
        lambda m: m.decoder.attention.v.v.data.zero_(),
    ):
        trained = quantized_speech()
        with torch.no_grad():
            spoil(trained)
        with pytest.raises(IrnnError, match="NaN or infinite"):
            irnn.convert(trained)
        for assign in (False, True):
            assert_refused_and_unchanged(trained.state_dict(), assign)


def assert_refused_and_unchanged(state: dict, assign: bool) -> None:
    model = quantized_speech(seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(IrnnError, match=r"the state_dict \(stage 'all'\): .*NaN or infinite.*, once loaded"):
        model.load_state_dict(state, assign=assign)
    after = model.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_array_equal(after[name].numpy(), tensor.numpy(), strict=True, err_msg=name)


def test_a_number_that_float32_cannot_hold() -> None:
    state = quantized_speech().state_dict()
    name = "decoder.attention.query.weight"
    state[name] = state[name].double()
    state[name][0, 0] = 1e39
    assert_refused_and_unchanged(state, assign=False)


def test_scales_that_do_not_belong_together_name_their_site() -> None:
    model = quantized(language_model())
    with torch.no_grad():
        model.lstm.layers[0].cells.forward_cell.cell.observed_max.fill_(1e25)
    with pytest.raises(IrnnError, match=r"lstm\.0\.cell \(stage 'all'\): cannot rescale by [0-9.e-]+: factors from"):
        irnn.convert(model)
    with pytest.raises(IrnnError, match="cannot rescale by nan"):
        choose_multiplier(np.array([1.0, np.nan]))


def test_a_program_has_no_such_numbers_either() -> None:
    program = irnn.convert(quantized(language_model()))
    name = next(name for name, value in program.values.items() if value.scale is not None)
    for scale in (*BAD, 0.0, -1.0):
        broken = replace(program, values=program.values | {name: replace(program.values[name], scale=scale)})
        with pytest.raises(IrnnError, match="the scale of"):
            broken.check()
    node = next(node for node in program.nodes if hasattr(node, "attributes"))
    node.attributes["low"] = 0.5
    with pytest.raises(IrnnError, match=r"the attribute low of .* is 0\.5"):
        program.check()


# --- percentiles and sites that are served badly ---


@pytest.mark.parametrize("count", [10, 100, 1000, 9999, 20000])
def test_a_percentile_clips_in_batches_of_any_size(count: int) -> None:
    """As NumPy's, between two sorted values; so an outlier counts for its share alone."""
    x = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    x[3] = 1000.0
    site = QuantSite("cell", 1)
    site.configure(irnn.QuantConfig(observer="percentile", percentile=99.9), observing=True, quantizing=False)
    site.observe(torch.from_numpy(x)[:, None])
    expected = np.percentile(x.astype(np.float64), [0.1, 99.9])
    np.testing.assert_allclose([site.observed_min.item(), site.observed_max.item()], expected, rtol=1e-4)
    assert site.observed_max.item() < 1000.0


def growing(cell_bits: int, steps: int) -> None:
    """A cell that adds a little at every step and forgets nothing."""
    model = random_layer(9, 16)
    cell = model.lstm.layers[0].cells.forward_cell
    with torch.no_grad():
        for weight in (cell.w_x.weight, cell.w_h.weight):
            weight.zero_()
        gates = torch.tensor([-3.0, 20.0, 0.5, 3.0]).repeat_interleave(cell.hidden_size)
        cell.w_x.bias_0.copy_(gates)
        cell.w_x.bias_1.zero_()
    qat.prepare(model, irnn.QuantConfig(cell=cell_bits), irnn.PwlConfig(), "all")
    qat.calibrate(model, [torch.randn(2, steps, 9)])


@pytest.mark.parametrize(("steps", "fault"), [(200, "clips"), (400, "keeps")])
def test_a_growing_cell_of_8_bits_is_named_once(steps: int, fault: str) -> None:
    """What it adds is 0.6 or 0.3 of a step: rounded up it leaves the range, rounded down it stands still."""
    with pytest.warns(UserWarning, match="served badly") as caught:
        growing(8, steps)
    texts = [str(w.message) for w in caught if "served badly" in str(w.message)]
    assert len(texts) == 1
    assert f"lstm.0.cell (stage 'all'), cell=8, {fault}" in texts[0]
    assert texts[0].count("lstm.0.cell") == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        growing(16, steps)


def test_a_range_that_clips_is_named() -> None:
    model = quantized_layer()
    qat.prepare(model, irnn.QuantConfig(observer="percentile", percentile=60.0), irnn.PwlConfig(), "all")
    with pytest.warns(UserWarning, match=r"input_site \(stage 'all'\), activation=8, clips \d+% of its values"):
        qat.calibrate(model, [torch.randn(4, 30, 9)])
