"""What ``keyword_spotting.py`` learns from: digits that end somewhere in a clip, other speech; what counts as an alarm.

A clip is 64 frames of 10 ms.  Its targets are nothing before the digit, the digit from its end on, and in between
nothing that is asked for (-100).
"""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from irnn.data.audio.features import FeatureConfig, filterbank
from irnn.data.audio.reading import read_audio
from irnn.errors import IrnnError
from irnn.program import Program

RATE, BANDS, FRAMES, CONTEXT, NOTHING = 8000, 20, 64, 5, 10
SPREAD = 4  # nats in one unit of the features
FEATURES = FeatureConfig(sample_rate=RATE, num_mel_bins=BANDS)
CLIP = FEATURES.frame_length + (FRAMES - 1) * RATE // 100  # samples
TEST_INDICES = range(5)  # as the data set has it
NAME = re.compile(r"([0-9])_([a-z]+)_([0-9]+)\.wav")
REST = 50  # steps after a digit in which nothing is heard
DRAWS = 2  # of noise, and of the place of a digit in its clip
SPEECH_CLIPS = 8000
LOUDER = 1.6  # nats of energy by which speech is at most louder or quieter than recorded
Scores = Callable[[Tensor], np.ndarray]  # filterbanks [frames, bands] -> nats [steps, 11]


class Rule(NamedTuple):
    """A digit is heard where it is ``margin`` nats likelier than nothing for ``steps`` steps in a row."""

    margin: float = 3.0
    steps: int = 8


RULES = [Rule(margin, steps) for margin in (2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0) for steps in (8, 12, 16, 20, 25, 30)]
MISSED = 0.02  # of the digits that a rule may miss beyond what the best one misses, for fewer alarms


def features(samples: np.ndarray) -> Tensor:
    """Filterbanks, about centred: ``[frames, bands]``."""
    return (torch.from_numpy(filterbank(samples, FEATURES)) - 10) / SPREAD


def digit_clips(folder: Path, part: str, behind: int = 0, draws: int = 1) -> tuple[Tensor, Tensor]:
    """(clips ``[count, frames, bands]``, targets ``[count, frames - 4]``) of the part "train" or "test".

    behind: frames that are heard on after the clip.  draws: clips of each recording, as they are, louder and quieter.
    """
    samples = CLIP + behind * RATE // 100
    rng, clips, targets = np.random.default_rng(0), [], []
    for draw in range(draws):
        for path in sorted((folder / "recordings").glob("*.wav")):
            name = NAME.fullmatch(path.name)
            if name is None or (int(name[3]) in TEST_INDICES) != (part == "test"):
                continue
            spoken = read_audio(path, RATE)[: CLIP * 3 // 4] * np.exp(rng.uniform(-1, 1) * LOUDER / 2 * (draw > 0))
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
    """Clips of speech in which nothing is to be spotted, from all of the part "train", longer recordings oftener."""
    rng = np.random.default_rng(1)
    spoken = [x for x in listen(folder, "train") if len(x) > FRAMES]
    places = np.array([len(x) - FRAMES for x in spoken])
    chosen = rng.choice(len(spoken), SPEECH_CLIPS, p=places / places.sum())
    starts, louder = rng.integers(0, places[chosen]), rng.uniform(-LOUDER, LOUDER, SPEECH_CLIPS) / SPREAD
    clips = [spoken[k][t : t + FRAMES] + more for k, t, more in zip(chosen, starts, louder.tolist(), strict=True)]
    return torch.stack(clips), torch.full((len(clips), FRAMES - CONTEXT + 1), NOTHING)


def by_integers(program: Program) -> Scores:
    """The program's scores as real numbers."""

    def scores(frames: Tensor) -> np.ndarray:
        integers, _ = program.run(program.quantize(frames[None].numpy()))
        return integers[0] * program.logits_scale

    return scores


def in_float(net: nn.Module) -> Scores:
    """The scores of a float network."""

    def scores(frames: Tensor) -> np.ndarray:
        with torch.no_grad():
            return net(frames[None])[0].numpy()

    return scores


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


def streams(folder: Path, part: str, count: int | None = None) -> tuple[list[Tensor], list[int]]:
    """``count`` digits with 0.4 seconds behind them, as filterbanks, and which they are."""
    clips, asked = digit_clips(folder, part, behind=40)
    chosen = torch.randperm(len(clips), generator=torch.Generator().manual_seed(0))[:count]
    return list(clips[chosen]), asked[chosen, -1].tolist()


def listen(folder: Path, part: str) -> list[Tensor]:
    """Every recording of speech in a part, as filterbanks."""
    return [features(read_audio(path, RATE)) for path in speech_files(folder, part)]


def choose(scores: Scores, digits: Path, folder: Path) -> Rule:
    """The rule with the fewest alarms in the part "dev" among those that miss few of the digits learned from."""
    clips, asked = streams(digits, "train", 400)
    spoken = [scores(clip) for clip in clips]
    listened = [scores(x) for x in listen(folder, "dev")]
    misses = {rule: missed(spoken, asked, rule) for rule in RULES}
    allowed = min(misses.values()) + MISSED * len(spoken)
    fit = [rule for rule in RULES if misses[rule] <= allowed]
    return min(fit, key=lambda rule: (sum(len(heard(s, rule)) for s in listened), misses[rule]))


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
