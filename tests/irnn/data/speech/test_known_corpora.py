"""Speech corpora that were trained on: features and utterances keep their names, so what was trained stays valid."""

import hashlib
import json
from pathlib import Path

import numpy as np

from irnn.data.audio.feature_cache import cached_features
from irnn.data.audio.features import FeatureConfig
from irnn.data.audio.utterances import Utterance
from irnn.data.speech.digits import DigitsConfig, digit_splits
from irnn.data.speech.librispeech import LibriSpeechConfig, librispeech_splits
from irnn.data.speech.synthetic_speech import SyntheticSpeechConfig, synthetic_splits
from tests.support import needs


def identities(
    splits: dict[str, list[Utterance]], features: FeatureConfig, tmp_path: Path
) -> dict[str, tuple[str, str]]:
    """By split: names of the features' cache, and of ids, texts and speakers."""
    names = {}
    for split, utterances in splits.items():
        said = json.dumps([(u.id, u.text, u.speaker) for u in utterances]).encode()
        silent = [Utterance(u.id, "", "", "", u.identity, lambda: np.zeros(400, np.float32)) for u in utterances]
        table = cached_features(silent, features, tmp_path, split, leave_out=False)
        names[split] = (table.identity[:16], hashlib.sha256(said).hexdigest()[:16])
    return names


WIDE = FeatureConfig(sample_rate=8000, num_mel_bins=40)


def test_the_synthetic_corpus_keeps_its_identity(tmp_path: Path) -> None:
    splits = synthetic_splits(SyntheticSpeechConfig(source="synthetic_speech", features=WIDE))
    assert identities(splits, WIDE, tmp_path) == {
        "train": ("f6a939d7f2a5873e", "0c7de33689d7a217"),
        "dev": ("85f770d71f69b764", "21b48593c897310a"),
        "test": ("8768c81095af80c2", "86dfa59a2c1cee87"),
    }


def test_the_digits_keep_their_identities(tmp_path: Path) -> None:
    """What was trained on them, and the features in the cache, stay valid."""
    config = DigitsConfig(source="digits", dir=str(needs.data("fsdd")), split="speaker", features=WIDE)
    assert identities(digit_splits(config), WIDE, tmp_path) == {
        "train": ("bfdd8cb7ea5fc42b", "be092b6e217ca467"),
        "dev": ("29c43dc415cc1432", "8a7df417261feefa"),
        "test": ("a513fd4299e3c1ab", "3200fe8dddad787c"),
        "test_unseen_speaker": ("45a2a97ec323bcd7", "e00c3e4afa8e3cb8"),
    }


def test_librispeech_keeps_its_identities(tmp_path: Path) -> None:
    config = LibriSpeechConfig(source="librispeech", dir=str(needs.data("LibriSpeech")), speeds=(0.9, 1.0, 1.1))
    assert identities(librispeech_splits(config), config.features, tmp_path) == {
        "train": ("20f64d576c4c4fbd", "99d1096aa896ce00"),
        "dev": ("888d009beab75471", "24de007c2d10cd9b"),
        "test": ("7b9296f0329f3181", "205d3a591dc700f3"),
    }
