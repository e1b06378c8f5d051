"""The arithmetic of docs/scale.md follows from the configuration and the network."""

import math

import torch
import yaml

from irnn.models.speech import SpeechModel, SpeechModelConfig
from tests.support.places import ROOT

HOURS = 960.9
UNITS_A_SECOND, PLACES = 14, 300  # as the page says


def content(group: str, name: str) -> dict:
    return yaml.safe_load((ROOT / "conf" / group / f"{name}.yaml").read_text())


def multiplications_a_second(config: SpeechModelConfig, frames: int) -> float:
    """Of the forward pass, by hand: convolutions, both directions of the encoder, the decoder with its attention."""
    total, bands, channels, rate = 0.0, config.feature_size, 1, frames
    for filters, stride in zip(config.conv_channels, config.conv_strides, strict=True):
        bands, rate = math.ceil(bands / stride), rate // stride
        total += rate * bands * filters * 9 * channels
        channels = filters
    size, hidden = bands * channels, config.encoder_size
    for _ in range(config.encoder_layers):
        total += rate * 2 * 4 * hidden * (size + hidden)
        size = 2 * hidden
    hidden = config.decoder_size
    for layer in range(config.decoder_layers):
        read = config.embedding_size if layer == 0 else hidden
        total += UNITS_A_SECOND * 4 * hidden * (read + size + hidden)
    attention = hidden * config.attention_size + PLACES * (config.attention_size + size)
    return total + UNITS_A_SECOND * attention + rate * size * config.attention_size


def test_the_estimates_follow_from_the_configuration() -> None:
    data, model = content("data", "librispeech"), content("model", "speech_espresso")
    bands, frames_a_second = data["features"]["num_mel_bins"], 1000 // data["features"]["frame_shift_ms"]
    config = SpeechModelConfig(vocabulary_size=32, feature_size=bands, **model)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in SpeechModel(config).parameters())
    frames = HOURS * sum(1 / speed for speed in data["speeds"]) * 3600 * frames_a_second
    forward = multiplications_a_second(config, frames_a_second)
    operations = 2 * 3 * forward * frames / frames_a_second
    batches = frames / data["batches"]["max_frames"]
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    for figure in (
        f"| {frames / 1e9:.3f} G |",
        f"| {frames * bands * 4 / 1e9:.0f} GB |",
        f"| {parameters / 1e6:.1f} M |",
        f"| {parameters * 12 / 1e9:.1f} GB |",
        f"| {parameters * 20 / 1e9:.1f} GB |",
        f"| {forward / 1e9:.1f} G |",
        f"| {operations / 1e18:.2f} E |",
        f"| {batches:,.0f} |",
        f"= {operations / batches / 1e12:.1f} T",
        f"are {parameters * 4 / 1e9:.2f} GB",
    ):
        assert figure in page, figure
    for gpus in (1, 2, 4, 8, 16):
        seconds = 0.6 if gpus <= 8 else 0.7
        assert f"| {batches / gpus:,.0f} | {batches / gpus * seconds / 3600:.1f} |" in page, gpus
