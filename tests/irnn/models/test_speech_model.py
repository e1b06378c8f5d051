"""The float recognizer: padding changes nothing, batch norm folds, gradients flow, stages follow each other."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import irnn
from irnn import qat
from irnn.data.speech.speech_batches import collate
from irnn.models.speech import SpeechModelConfig
from irnn.qat import STAGES
from irnn.recognition.recognizer import ModelRecognizer, cross_entropy_sum
from tests.support.speech_models import FRAMES, quantized_speech, speech_batch, speech_model, utterances


def padded(batch, frames: int, units: int, value: float):
    """The batch with more padding, of another value."""
    features = torch.full((len(FRAMES), frames, batch.features.shape[2]), value)
    for row, count in enumerate(FRAMES):
        features[row, :count] = batch.features[row, :count]
    steps = batch.decoder_inputs.shape[1]
    inputs = torch.nn.functional.pad(batch.decoder_inputs, (0, units), value=3)
    targets = torch.nn.functional.pad(batch.decoder_targets, (0, units), value=-100)
    assert inputs.shape[1] == steps + units
    return batch._replace(features=features, decoder_inputs=inputs, decoder_targets=targets)


@pytest.mark.parametrize("stage", STAGES)
def test_padding_never_changes_a_result(stage):
    model = speech_model()
    qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(pieces=8), stage)
    batch = speech_batch()
    if stage != "float":
        qat.calibrate(model, [batch])
    model.eval()
    features, units = utterances()
    alone = [
        cross_entropy_sum(ModelRecognizer(model), collate([x], [u], np.arange(1)))
        for x, u in zip(features, units, strict=True)
    ]
    nats, count = cross_entropy_sum(ModelRecognizer(model), batch)
    more, _ = cross_entropy_sum(ModelRecognizer(model), padded(batch, 57, 3, 7.0))
    assert count == sum(c for _, c in alone)
    # Float sums of other shapes round differently, the integers are the same.
    tolerance = 0 if stage == "all" else 1e-4
    assert abs(nats - more) <= tolerance * nats + 1e-5
    assert abs(nats - sum(v for v, _ in alone)) <= 1e-4 * nats


def test_padding_changes_neither_gradients_nor_running_statistics_nor_ranges():
    results = []
    for frames, units, value in ((40, 0, 0.0), (61, 4, 5.0)):
        model = speech_model(dropout=0.0, ctc_weight=0.3)
        qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), "float")
        model.train()
        batch = padded(speech_batch(), frames, units, value)
        model.loss(batch).backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        statistics = {n: b.clone() for n, b in model.named_buffers() if n.endswith(("mean", "variance"))}
        qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), "pwl")
        qat.calibrate(model, [batch])
        observed = {n: b for n, b in model.named_buffers() if "observed" in n}
        results.append({**gradients, **statistics, **observed})
    assert set(results[0]) == set(results[1])
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=2e-4, atol=2e-5, msg=name)


def test_the_backward_direction_starts_at_each_utterances_own_end():
    model = speech_model(conv_channels=(), conv_strides=(), downsampling=(), encoder_layers=1, dropout=0.0).eval()
    layer, size = model.encoder.layers[0], model.config.encoder_size
    reference = torch.nn.LSTM(12, size, bidirectional=True, batch_first=True)
    state = {}
    for suffix, cell in (("", layer.cells["forward_cell"]), ("_reverse", layer.cells["backward_cell"])):
        state |= {
            f"weight_ih_l0{suffix}": cell.w_x.weight, f"weight_hh_l0{suffix}": cell.w_h.weight,
            f"bias_ih_l0{suffix}": cell.w_x.bias_0, f"bias_hh_l0{suffix}": cell.w_x.bias_1,
        }  # fmt: skip
    reference.load_state_dict(state)
    batch = speech_batch()
    memory = model.encode(batch.features, batch.frames).values
    packed = torch.nn.utils.rnn.pack_padded_sequence(batch.features, batch.frames, True, enforce_sorted=False)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(reference(packed)[0], batch_first=True)
    torch.testing.assert_close(memory, expected, rtol=1e-5, atol=1e-6)


def test_batch_norm_is_torchs_and_folds():
    model = speech_model(dropout=0.0)
    layer = model.encoder.convolutions[1].convolution
    x = torch.randn(9, 3, 7 * 4)  # [time, batch, bands * channels]
    lengths = torch.tensor([9, 9, 9])
    reference = torch.nn.BatchNorm2d(6, eps=layer.EPSILON, momentum=layer.MOMENTUM)
    reference.running_mean.copy_(layer.mean)
    reference.running_var.copy_(layer.variance)
    kernel = layer.kernel.reshape(6, 3, 3, 4).permute(0, 3, 1, 2)
    image = x.reshape(9, 3, 7, 4).permute(1, 3, 0, 2)

    def run(training: bool) -> torch.Tensor:
        simulation = irnn.wiring.simulate.Simulation({}, training=training, observing=False)
        simulation.ragged(lengths)
        return simulation.convolution(layer, x).permute(1, 3, 0, 2)

    for training in (True, False):
        expected = reference.train(training)(torch.nn.functional.conv2d(image, kernel, None, 2, 1))
        torch.testing.assert_close(run(training), expected, rtol=1e-4, atol=1e-5)
        if training:
            torch.testing.assert_close(layer.mean, reference.running_mean, rtol=1e-5, atol=1e-6)
            # Torch keeps the unbiased variance: of 60 samples here.
            torch.testing.assert_close(layer.variance, reference.running_var, rtol=0.01, atol=0.01)
            reference.running_var.copy_(layer.variance)


def test_attention_is_bahdanaus():
    model = speech_model().eval()
    attention, batch = model.decoder.attention, speech_batch()
    memory = model.encode(batch.features, batch.frames)
    with torch.no_grad():
        _, weights, state = model.decode(torch.ones(len(FRAMES), 1, dtype=torch.int64), memory)
        query = state["decoder.0.h"]
        v = attention.v.g * attention.v.v[0] / attention.v.v[0].norm()
        for row, places in enumerate(memory.lengths.tolist()):
            values = memory.values[row, :places]
            keys = values @ attention.key.weight.T + attention.key.bias
            score = torch.tanh(keys + query[row] @ attention.query.weight.T) @ v
            expected = torch.softmax(score, 0)
            torch.testing.assert_close(weights[row, 0, :places], expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(state["decoder.context"][row], expected @ values, rtol=1e-4, atol=1e-5)
            assert not weights[row, 0, places:].any()


@pytest.mark.parametrize("stage", STAGES)
def test_every_parameter_gets_a_gradient_in_every_stage(stage):
    model = speech_model(ctc_weight=0.2)
    qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(pieces=8), stage)
    if stage != "float":
        qat.calibrate(model, [speech_batch()])
    model.train()
    model.loss(speech_batch()).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not missing


def test_training_lowers_the_loss_and_the_integers_follow():
    model, batch = speech_model(dropout=0.0, label_smoothing=0.0), speech_batch((23, 17))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)

    def train(steps: int) -> None:
        model.train()
        for _ in range(steps):
            optimizer.zero_grad()
            model.loss(batch).backward()
            optimizer.step()
        model.eval()

    train(60)
    nats, count = cross_entropy_sum(ModelRecognizer(model), batch)
    assert nats / count < 0.5
    qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), "all")
    qat.calibrate(model, [batch])
    optimizer = torch.optim.Adam(model.parameters(), 0.001)
    train(3)
    nats, count = cross_entropy_sum(ModelRecognizer(model), batch)
    assert nats / count < 0.6


def test_the_simulation_is_near_the_integers():
    model = quantized_speech()
    nats, _ = cross_entropy_sum(ModelRecognizer(model), speech_batch())
    model.settings = replace(model.settings, stage="activations")  # the same sites, simulated
    simulated, _ = cross_entropy_sum(ModelRecognizer(model), speech_batch())
    assert abs(nats - simulated) < 0.01 * nats


def test_sites_are_named():
    names = {row.name: row.role for row in qat.sites(quantized_speech())}
    assert names["encoder.input"] == "activation"
    assert names["encoder.convolutions.1.convolution"] == "weight"
    assert names["encoder.convolutions.1.output"] == "activation"
    assert names["encoder.1.hidden"] == "hidden"  # of both directions
    assert names["decoder.attention.preactivation"] == "preactivation"
    assert names["decoder.attention.v"] == "weight"
    assert names["decoder.attention.context"] == "activation"
    assert names["decoder.1.sum"] == "activation"
    assert names["decoder.context_output"] == "logits_weight"


def test_bad_sizes_are_named():
    for changes, line in (
        ({"conv_strides": (1,)}, "one stride for each convolution"), ({"dropout": 1.0}, "dropout=1.0"),
        ({"encoder_size": 0}, "encoder_size=0"), ({"downsampling": (2, 2, 2, 2, 2)}, "only 4 encoder layers"),
        ({"conv_channels": (0, 1, 1, 1)}, r"conv_channels=\[0, 1, 1, 1\]"),
    ):  # fmt: skip
        with pytest.raises(irnn.IrnnError, match=line):
            SpeechModelConfig(10, 40, **changes)
