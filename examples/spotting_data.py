"""What ``keyword_spotting.py`` learns from: digits that end somewhere in a clip, other speech; what counts as an alarm.

A clip is 64 frames of 10 ms.  Its targets are nothing before the digit, the digit from its end on, and in between
nothing that is asked for (-100).
"""

import csv
import re
from pathlib import Path
from typing import NamedTuple

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
REST = 50  # steps after a digit in which nothing is heard
SPEECH_CLIPS = 3000


class Rule(NamedTuple):
    """A digit is heard where it is ``margin`` nats likelier than nothing for ``steps`` steps in a row."""

    margin: float = 3.0
    steps: int = 8


RULES = [Rule(margin, steps) for margin in (3.0, 4.0, 5.0, 6.0, 8.0) for steps in (8, 12, 16, 20, 25)]
MISSED = 0.03  # of the digits that a rule may miss; of those that miss no more the one with the fewest alarms is taken


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


def nats(program: Program, clip: Tensor) -> np.ndarray:
    """The scores of ``[frames, bands]``, real numbers ``[steps, 11]``."""
    scores, _ = program.run(program.quantize(clip[None].numpy()))
    return scores[0] * program.logits_scale


def heard(scores: np.ndarray, rule: Rule) -> list[int]:
    """The digits that are heard, in their order."""
    clear = scores.max(-1) - scores[:, NOTHING] > rule.margin
    best = np.where(clear, scores.argmax(-1), NOTHING)
    found, run, rest = [], 1, 0
    for t in range(1, len(best)):
        run = run + 1 if best[t] == best[t - 1] else 1
        if best[t] != NOTHING and run >= rule.steps and t >= rest:
            found.append(int(best[t]))
            rest = t + REST
    return found


def missed(scores: list[np.ndarray], digits: list[int], rule: Rule) -> int:
    """Clips in which their digit is not heard."""
    return sum(digit not in heard(clip, rule) for clip, digit in zip(scores, digits, strict=True))


def streams(program: Program, folder: Path, part: str, count: int | None = None) -> tuple[list[np.ndarray], list[int]]:
    """Scores of ``count`` digits with 0.4 seconds behind them, and the digits."""
    clips, asked = digit_clips(folder, part, behind=40)
    chosen = torch.randperm(len(clips), generator=torch.Generator().manual_seed(0))[:count]
    return [nats(program, clip) for clip in clips[chosen]], asked[chosen, -1].tolist()


def speech(program: Program, folder: Path, part: str) -> tuple[list[np.ndarray], float]:
    """Scores of every recording of speech in a part, and how many minutes these are."""
    recordings = [read_audio(path, RATE) for path in speech_files(folder, part)]
    return [nats(program, features(x)) for x in recordings], sum(map(len, recordings)) / RATE / 60


def choose(program: Program, digits: Path, folder: Path) -> Rule:
    """The rule with the fewest alarms in the part "dev" among those that miss few of the digits learned from."""
    clips, asked = streams(program, digits, "train", 400)
    listened, _ = speech(program, folder, "dev")
    fit = [rule for rule in RULES if missed(clips, asked, rule) <= MISSED * len(clips)]
    return min(
        fit or RULES[:1], key=lambda rule: (sum(len(heard(s, rule)) for s in listened), missed(clips, asked, rule))
    )


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
