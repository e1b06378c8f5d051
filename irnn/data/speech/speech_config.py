"""What every speech corpus can be told; each corpus adds its own keys."""

from __future__ import annotations

from dataclasses import dataclass, field

from irnn.data.audio.augment import AugmentConfig
from irnn.data.audio.features import FeatureConfig
from irnn.data.speech.units import UnitsConfig
from irnn.errors import IrnnError


@dataclass(frozen=True)
class BatchConfig:
    """max_frames: frames of a batch, padding included.  max_utterances: rows of a batch.
    curriculum: so many epochs at the beginning of the first training leave the longest utterances out: epoch 1 trains
        on the shortest 1 in curriculum + 1 of the batches, epoch 2 on twice as many."""

    max_frames: int = 10000
    max_utterances: int = 32
    curriculum: int = 0

    def __post_init__(self) -> None:
        for key in ("max_frames", "max_utterances"):
            if getattr(self, key) < 1:
                raise IrnnError(f"{key}={getattr(self, key)} must be at least 1")
        if self.curriculum < 0:
            raise IrnnError(f"curriculum={self.curriculum} must not be negative; 0 switches it off")


@dataclass(frozen=True, kw_only=True)
class SpeechConfig:
    """source: name of the corpus, see `irnn.data.speech.corpus.SOURCES`.
    max_seconds: longer utterances are bad input; None allows any length.
    leave_out: go on without utterances that cannot be used (unreadable, cut short, NaN, no transcript, twice, too long,
        units unknown) and count them; else the first one is an error.
    cache_dir: where features are kept."""

    source: str
    max_seconds: float | None = None
    leave_out: bool = False
    cache_dir: str = "~/.cache/irnn/features"
    features: FeatureConfig = field(default_factory=FeatureConfig)
    units: UnitsConfig = field(default_factory=UnitsConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)

    def __post_init__(self) -> None:
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise IrnnError(f"max_seconds={self.max_seconds} must be greater than 0, or null for any length")


def at_least(config: object, minimum: int, *keys: str) -> None:
    """Raise an `IrnnError` for the first of `keys` whose value in `config` is below `minimum`."""
    for key in keys:
        if getattr(config, key) < minimum:
            raise IrnnError(f"{key}={getattr(config, key)} must be at least {minimum}")
