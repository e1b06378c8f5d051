"""What a corpus of labelled recordings can be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from irnn.data.audio.augment import AugmentConfig
from irnn.data.audio.features import FeatureConfig
from irnn.data.labelled.base import LabelledConfig
from irnn.data.speech.speech_config import at_least
from irnn.errors import IrnnError


@dataclass(frozen=True, kw_only=True)
class RecordingsConfig(LabelledConfig):
    """leave_out: go on without recordings that cannot be used and count them; else the first one is an error.
    cache_dir: where features are kept.  augment: what training does to them."""

    leave_out: bool = False
    cache_dir: str = "~/.cache/irnn/features"
    features: FeatureConfig = field(default_factory=FeatureConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True, kw_only=True)
class DigitWordsConfig(RecordingsConfig):
    """Isolated digits of the Free Spoken Digit Dataset.  dir: folder with `recordings/DIGIT_SPEAKER_INDEX.wav`."""

    dir: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dir:
            raise IrnnError("`dir` is not set; add dir=FOLDER, the folder of the Free Spoken Digit Dataset")


@dataclass(frozen=True, kw_only=True)
class SyntheticWordsConfig(RecordingsConfig):
    """Single words of the embedded speech-like corpus.  train_words, evaluation_words: in train, and in dev and test
    each."""

    train_words: int = 400
    evaluation_words: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "train_words", "evaluation_words")
