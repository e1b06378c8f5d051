"""Small recognizers and utterances for the tests."""

import numpy as np
import torch

import irnn
from irnn import qat
from irnn.data.speech.speech_batches import SpeechBatch, collate
from irnn.models.speech import SpeechModel, SpeechModelConfig

FEATURES, VOCABULARY = 12, 13
FRAMES = (23, 40, 31, 2)
SMALL = {
    "conv_channels": (4, 6), "conv_strides": (1, 2), "encoder_layers": 2, "encoder_size": 8, "downsampling": (2,),
    "embedding_size": 8, "decoder_layers": 2, "decoder_size": 10, "attention_size": 7, "dropout": 0.1,
}  # fmt: skip


def speech_model(seed: int = 0, **changes) -> SpeechModel:
    """A float model with weights large enough for gates and attention to move."""
    torch.manual_seed(seed)
    model = SpeechModel(SpeechModelConfig(VOCABULARY, FEATURES, **{**SMALL, **changes}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "cell" in name or "attention" in name:
                parameter.mul_(2.0)
        model.decoder.attention.v.g.mul_(3.0)
        for name, buffer in model.named_buffers():  # as if batch norms had seen data
            if name.endswith("variance"):
                buffer.uniform_(0.5, 2.0)
            if name.endswith("mean"):
                buffer.uniform_(-0.5, 0.5)
    return model


def utterances(frames=FRAMES, seed=0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(features, units) of utterances of so many frames."""
    rng = np.random.default_rng(seed)
    features = [rng.standard_normal((count, FEATURES)).astype(np.float32) for count in frames]
    return features, [rng.integers(3, VOCABULARY, max(1, count // 8)) for count in frames]


def speech_batch(frames=FRAMES, seed=0) -> SpeechBatch:
    features, units = utterances(frames, seed)
    return collate(features, units, np.arange(len(frames)))


def quantized_speech(quant=None, pieces: int = 16, **changes) -> SpeechModel:
    """Straight to stage "all" with calibrated ranges, in eval mode."""
    model = speech_model(**changes)
    qat.prepare(model, quant or irnn.QuantConfig(), irnn.PwlConfig(pieces=pieces), "all")
    qat.calibrate(model, [speech_batch(), speech_batch(seed=1)])
    return model.eval()
