"""What ``keyword_spotting.py`` learns from: digits that end somewhere in a clip, other speech; what counts as an alarm.

A clip is 64 frames of 10 ms.  Its targets are nothing before the digit, the digit from its end on, and in between
nothing that is asked for (-100).
"""

import csv
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from irnn.data.audio.features import FeatureConfig, filterbank
from irnn.data.audio.reading import read_audio
from irnn.errors import IrnnError
from irnn.program import Program

RATE, BANDS, FRAMES, CONTEXT, NOTHING = 8000, 20, 64, 5, 10
FEATURES = FeatureConfig(sample_rate=RATE, num_mel_bins=BANDS)
CLIP = FEATURES.frame_length + (FRAMES - 1) * RATE // 100  # samples
TEST_INDICES = range(5)  # as the data set has it
NAME = re.compile(r"([0-9])_([a-z]+)_([0-9]+)\.wav")
# A digit is heard where it is so much likelier than nothing (in nats) for so many steps; then half a second is rest.
MARGIN, STEPS, REST = 3.0, 8, 50
SPEECH_CLIPS = 3000


def features(samples: np.ndarray) -> Tensor:
    """Filterbanks, about centred."""
    return (torch.from_numpy(filterbank(samples, FEATURES)) - 10) / 4


def digit_clips(folder: Path, part: str, behind: int = 0) -> tuple[Tensor, Tensor]:
    """(clips ``[count, frames, bands]``, targets ``[count, frames - 4]``) of the part "train" or "test".

    behind: frames that are heard on after the clip.
    """
    samples = CLIP + behind * RATE // 100
    rng, clips, targets = np.random.default_rng(0), [], []
    for path in sorted((folder / "recordings").glob("*.wav")):
        name = NAME.fullmatch(path.name)
        if name is None or (int(name[3]) in TEST_INDICES) != (part == "test"):
            continue
        spoken = read_audio(path, RATE)[: CLIP * 3 // 4]
        clip = (rng.standard_normal(samples) * 10.0 ** rng.uniform(-4, -3)).astype(np.float32)
        start = CLIP - len(spoken) - int(rng.integers(0, RATE // 10))
        clip[start : start + len(spoken)] += spoken
        first, last = (place * 100 // RATE for place in (start, start + len(spoken)))
        asked = torch.full((FRAMES + behind,), -100)
        asked[: first + 5] = NOTHING
        asked[last - 2 :] = int(name[1])
        clips.append(features(clip))
        targets.append(asked[CONTEXT - 1 :])
    if not clips:
        raise IrnnError(f"{folder / 'recordings'} holds no digit for {part}: give the folder of the data set")
    return torch.stack(clips), torch.stack(targets)


def speech_files(folder: Path, *parts: str) -> list[Path]:
    """Recordings of LibriSpeech by the folder's ``splits.tsv``."""
    with (folder / "splits.tsv").open(encoding="utf-8") as file:
        return [folder / row["path"] for row in csv.DictReader(file, delimiter="\t") if row["split"] in parts]


def speech_clips(folder: Path) -> tuple[Tensor, Tensor]:
    """Clips of speech in which nothing is to be spotted."""
    rng, clips = np.random.default_rng(1), []
    files = speech_files(folder, "train")
    for path in rng.permutation(np.array(files, dtype=object))[: SPEECH_CLIPS // 10]:
        samples = read_audio(path, RATE)
        for start in rng.integers(0, len(samples) - CLIP, 10) if len(samples) > CLIP else ():
            clips.append(features(samples[start : start + CLIP] * 10.0 ** rng.uniform(-0.5, 0.5)))
    return torch.stack(clips), torch.full((len(clips), FRAMES - CONTEXT + 1), NOTHING)


def spotted(program: Program, clip: Tensor) -> list[int]:
    """The digits that are heard in ``[frames, bands]``: the best by ``MARGIN`` against nothing for ``STEPS`` steps."""
    scores, _ = program.run(program.quantize(clip[None].numpy()))
    scores = scores[0].astype(np.int64)
    clear = scores.max(-1) - scores[:, NOTHING] > MARGIN / program.logits_scale
    best = np.where(clear, scores.argmax(-1), NOTHING)
    heard, run, rest = [], 1, 0
    for t in range(1, len(best)):
        run = run + 1 if best[t] == best[t - 1] else 1
        if best[t] != NOTHING and run >= STEPS and t >= rest:
            heard.append(int(best[t]))
            rest = t + REST
    return heard


def alarms(program: Program, folder: Path) -> int:
    """Digits that are heard in the parts "dev" and "test", where hardly one is spoken alone."""
    return sum(len(spotted(program, features(read_audio(path, RATE)))) for path in speech_files(folder, "dev", "test"))


def speech_minutes(folder: Path) -> float:
    """Of the parts "dev" and "test"."""
    return sum(len(read_audio(path, RATE)) for path in speech_files(folder, "dev", "test")) / RATE / 60


def upper_bound(count: int) -> float:
    """The largest mean of a Poisson variable that is at most ``count`` with 5 % probability, by bisection."""
    low, high = 0.0, 10.0 + 3 * count
    k = np.arange(count + 1)
    factorials = np.cumsum(np.log(np.maximum(k, 1)))
    for _ in range(60):
        mean = (low + high) / 2
        below = np.exp(k * np.log(mean) - mean - factorials).sum()
        low, high = (mean, high) if below > 0.05 else (low, mean)
    return high
