"""The recognizer's real configuration, shrunk until a whole run takes seconds."""

from pathlib import Path

from pipelines.config import RunConfig, read_config
from tests.support.tiny_run import composed

TINY_SPEECH = [
    "experiment=synthetic_speech",
    "logger=none",
    "trainer.progress=false",
    "data.train_strings=40",
    "data.evaluation_strings=3",
    "data.max_digits=2",
    "data.batches.max_utterances=8",
    "model.conv_channels=[4]",
    "model.conv_strides=[2]",
    "model.downsampling=[4]",
    "model.encoder_size=8",
    "model.embedding_size=8",
    "model.decoder_size=8",
    "model.attention_size=8",
    "recipe.float.epochs=2",
    "pwl.pieces=8",
    "evaluation.interpreter_utterances=2",
    "evaluation.search.max_length_factor=0.0",
    "evaluation.search.max_length_extra=5",
]

# The splits that a run evaluates.
SETS = ("dev", "test")


def tiny_speech_overrides(folder: Path) -> list[str]:
    """Overrides for a run that writes everything below `folder`."""
    return [*TINY_SPEECH, f"data.cache_dir={folder / 'features'}", f"output_dir={folder / 'out'}"]


def tiny_speech(folder: Path, *more: str) -> RunConfig:
    """The checked configuration of a tiny run."""
    return read_config(composed(*tiny_speech_overrides(folder), *more))
