"""Connected digits made of the Free Spoken Digit Dataset's recordings (8 kHz, 3,000 digits, 6 speakers)."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from irnn.data.audio.reading import change_speed, file_fingerprint, read_audio
from irnn.data.audio.utterances import NO_SPLIT, Utterance, unusable
from irnn.data.folders import entries_under, recordings_of, shown
from irnn.data.speech.speech_config import SpeechConfig, at_least
from irnn.errors import IrnnError

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
UNSEEN_SPEAKER = "theo"
# The corpus' own test set; the development set of known voices comes next to it.
TEST_INDICES, DEV_INDICES = range(5), range(5, 8)
_NAME = re.compile(r"([0-9])_([a-z]+)_([0-9]+)\.wav")
# Fixed evaluation sets: the same strings whatever the seed of the training strings.
_EVALUATION_SEED = 0
# Pauses are made of stretches that are quiet for at least so many frames of 10 ms, and joined over 5 ms.
_QUIET_FRAMES = 4
_FRAME_SECONDS, _JOIN_SECONDS = 0.010, 0.005
_PAUSE_SECONDS = (0.05, 0.40)


@dataclass(frozen=True, kw_only=True)
class DigitsConfig(SpeechConfig):
    """dir: folder with `recordings/{digit}_{speaker}_{index}.wav`.
    split: "index" (all speakers train) or "speaker" (`theo` is test_unseen_speaker, the others train).  In both, test =
        indices 0 to 4 of every digit and training speaker, dev = their indices 5 to 7.
    dev_speaker: of split "speaker", all recordings of this speaker are dev instead, and none trains: to choose a recipe
        for unseen speakers without the test's.
    train_strings, evaluation_strings: strings of the training set and of each evaluation set.
    max_digits: a string has 1 to so many digits.  speeds: training strings are played at one of these speeds.
    seed: of the training strings."""

    dir: str | None = None
    split: str = "index"
    dev_speaker: str | None = None
    train_strings: int = 6000
    evaluation_strings: int = 500
    max_digits: int = 7
    speeds: Sequence[float] = (1.0,)
    seed: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dir:
            raise IrnnError("`dir` is not set; add dir=FOLDER, the folder of the Free Spoken Digit Dataset")
        if self.split not in ("index", "speaker"):
            raise IrnnError(f"split={self.split!r} is unknown; allowed: index, speaker")
        if self.dev_speaker is not None and self.split != "speaker":
            raise IrnnError(f"dev_speaker={self.dev_speaker!r} needs split=speaker, not {self.split!r}")
        if self.dev_speaker == UNSEEN_SPEAKER:
            raise IrnnError(f"dev_speaker={self.dev_speaker!r} is the unseen speaker of the test; name another")
        at_least(self, 1, "train_strings", "evaluation_strings", "max_digits", "seed")
        object.__setattr__(self, "speeds", tuple(float(speed) for speed in self.speeds))
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise IrnnError(f"speeds={list(self.speeds)}: one or more factors from 0.5 to 2 are needed")


class Voice:
    """The recordings of one speaker for one split, read when first needed."""

    def __init__(self, speaker: str, files: dict[int, list[Path]], sample_rate: int) -> None:
        self.speaker = speaker
        self.files = files
        self.sample_rate = sample_rate
        every = "".join(file_fingerprint(path) for paths in files.values() for path in paths)
        self.identity = hashlib.sha256(every.encode()).hexdigest()[:24]
        self._recordings: dict[Path, np.ndarray] = {}
        self._silences: list[np.ndarray] = []

    def recording(self, digit: int, take: int) -> np.ndarray:
        """Samples float32 of one recording; `take` counts `files[digit]`."""
        path = self.files[digit][take]
        if path not in self._recordings:
            self._recordings[path] = read_audio(path, self.sample_rate)
        return self._recordings[path]

    @property
    def silences(self) -> list[np.ndarray]:
        """Stretches of these recordings in which only the background is heard."""
        if not self._silences:
            readable = []
            for digit, paths in self.files.items():
                for take in range(len(paths)):
                    # A damaged recording is named by the strings that speak it; the others need its silence not.
                    with suppress(IrnnError):
                        readable.append(self.recording(digit, take))
            self._silences = quiet_stretches(readable, self.sample_rate)
        return self._silences


def quiet_stretches(recordings: Sequence[np.ndarray], sample_rate: int) -> list[np.ndarray]:
    """Background between or beside the sounds of one speaker's recordings, each float32 [samples], at least 40 ms.

    A frame of 10 ms is background where its root mean square is below twice the speaker's own background (the median
    of the recordings' quietest frames) or below 2 % of the recording's loudest frame. Where nothing is quiet for 40 ms
    the quietest 40 ms of all are the background.
    """
    frame = round(_FRAME_SECONDS * sample_rate)
    levels = []
    for samples in recordings:
        whole = samples[: len(samples) // frame * frame].reshape(-1, frame)
        levels.append(np.sqrt(np.square(whole, dtype=np.float64).mean(axis=1)))
    usable = [number for number, level in enumerate(levels) if len(level) >= _QUIET_FRAMES]
    if not usable:
        raise IrnnError("none of the recordings is as long as 40 ms: no silence can be taken from them")
    background = np.median([levels[number].min() for number in usable])
    found = []
    for number in usable:
        quiet = levels[number] < max(2 * background, 0.02 * levels[number].max())
        edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]]).astype(np.int8)))
        for start, stop in edges.reshape(-1, 2):
            if stop - start >= _QUIET_FRAMES:
                found.append(recordings[number][start * frame : stop * frame])
    if not found:
        sums = [(np.convolve(levels[n], np.ones(_QUIET_FRAMES), "valid"), n) for n in usable]
        total, number = min(sums, key=lambda pair: pair[0].min())
        start = int(total.argmin()) * frame
        found.append(recordings[number][start : start + _QUIET_FRAMES * frame])
    return found


def digit_splits(config: DigitsConfig) -> dict[str, list[Utterance]]:
    """The strings of every split: train, dev, test and, split by speaker, test_unseen_speaker; under `NO_SPLIT`
    recordings that cannot be used, where there are any.

    String k of a split depends on the seed, the split and k alone. Recordings and silences of one split are never part
    of another one of the same corpus.
    """
    found, faulty = find_recordings(Path(config.dir or ""))
    held_out = {"test_unseen_speaker": UNSEEN_SPEAKER} if config.split == "speaker" else {}
    if config.dev_speaker is not None:
        held_out["dev"] = config.dev_speaker
    for speaker in held_out.values():
        if speaker not in found:
            raise IrnnError(
                f"dir={config.dir} has no speaker {speaker!r}; split=speaker with dev_speaker="
                f"{config.dev_speaker} needs one; found: {', '.join(sorted(found))}"
            )
    known = [speaker for speaker in sorted(found) if speaker not in held_out.values()]
    dev_indices = range(0) if "dev" in held_out else DEV_INDICES
    parts: dict[str, tuple[list[str], Callable[[int], bool]]] = {
        "train": (known, lambda index: index not in TEST_INDICES and index not in dev_indices),
        "dev": (known, lambda index: index in dev_indices),
        "test": (known, lambda index: index in TEST_INDICES),
    }
    parts |= {split: ([speaker], lambda index: True) for split, speaker in held_out.items()}
    splits = {NO_SPLIT: faulty} if faulty else {}
    for split, (names, wanted) in parts.items():
        voices = [_voice(name, found[name], wanted, split, config) for name in names]
        training = split == "train"
        count = config.train_strings if training else config.evaluation_strings
        seed = config.seed if training else _EVALUATION_SEED
        speeds = config.speeds if training else (1.0,)
        splits[split] = [digit_string(voices, split, seed, k, config.max_digits, speeds) for k in range(count)]
    return splits


def find_recordings(folder: Path) -> tuple[dict[str, dict[int, dict[int, Path]]], list[Utterance]]:
    """(speaker -> digit -> index -> file, recordings that cannot be used)."""
    recordings = folder / "recordings"
    if not recordings.is_dir():
        raise IrnnError(f"dir={folder} holds no folder `recordings`; give the Free Spoken Digit Dataset's folder")
    paths = recordings_of(entries_under(recordings))
    faults = _faults(recordings, paths)
    found: dict[str, dict[int, dict[int, Path]]] = defaultdict(lambda: defaultdict(dict))
    for path in paths:
        if path not in faults and (match := _NAME.fullmatch(path.name)):
            found[match[2]][int(match[1])][int(match[3])] = path
    if len(found) < 3:
        raise IrnnError(
            f"{recordings} holds recordings of {len(found)} speakers, at least 3 are needed; "
            "names are {digit}_{speaker}_{index}.wav"
        )
    return found, [unusable(shown(path.name), shown(path), fault) for path, fault in faults.items()]


def _faults(recordings: Path, paths: Sequence[Path]) -> dict[Path, str]:
    """Why a recording cannot be used, as far as the folder shows it: its name, or that it is there a second time."""
    faults: dict[Path, str] = {}
    same: dict[Hashable, list[Path]] = defaultdict(list)
    for path in paths:
        match = _NAME.fullmatch(path.name)
        if match is None or path.parent != recordings:
            faults[path] = (
                f"{shown(path)} does not say who speaks what: names are {{digit}}_{{speaker}}_{{index}}.wav, "
                f"in {shown(recordings)} itself; rename or remove it"
            )
        else:
            same[match[2], int(match[1]), int(match[3])].append(path)
            same[os.path.realpath(path)].append(path)
    for first, *others in same.values():
        for other in others:
            fault = f"{shown(first)} and {shown(other)} are one recording by their names or by a link; keep one of them"
            faults[first] = faults[other] = fault
    return faults


def _voice(
    speaker: str, digits: dict[int, dict[int, Path]], wanted: Callable[[int], bool], split: str, config: DigitsConfig
) -> Voice:
    files = {}
    for digit in range(10):
        files[digit] = [path for index, path in sorted(digits[digit].items()) if wanted(index)]
        if not files[digit]:
            raise IrnnError(f"dir={config.dir}: the {split} split has no recording of {digit} by {speaker}")
    return Voice(speaker, files, config.features.sample_rate)


def digit_string(
    voices: Sequence[Voice], split: str, seed: int, number: int, max_digits: int, speeds: Sequence[float]
) -> Utterance:
    """String `number` of a split: all that is random about it is drawn from (seed, split, number)."""
    generator = np.random.default_rng([seed, *split.encode(), number])
    voice = voices[int(generator.integers(len(voices)))]
    digits = generator.integers(0, 10, size=generator.integers(1, max_digits + 1)).tolist()
    takes = [int(generator.integers(len(voice.files[digit]))) for digit in digits]
    speed = speeds[int(generator.integers(len(speeds)))]
    pauses = generator.uniform(*_PAUSE_SECONDS, size=len(digits) + 1).tolist()
    pause_seed = int(generator.integers(2**32))
    names = ", ".join(voice.files[digit][take].name for digit, take in zip(digits, takes, strict=True))
    return Utterance(
        id=f"{split}-{number:05d}",
        text=" ".join(DIGITS[digit] for digit in digits),
        speaker=voice.speaker,
        where=f"{split}-{number:05d} ({names})",
        identity=f"{voice.identity} {digits} {takes} {speed} {pauses} {pause_seed}",
        read=partial(_compose, voice, digits, takes, speed, pauses, pause_seed),
    )


def _compose(
    voice: Voice, digits: list[int], takes: list[int], speed: float, pauses: list[float], pause_seed: int
) -> np.ndarray:
    generator = np.random.default_rng(pause_seed)
    pieces = _pause(voice, pauses[0], generator)
    for digit, take, pause in zip(digits, takes, pauses[1:], strict=True):
        pieces += [voice.recording(digit, take), *_pause(voice, pause, generator)]
    return change_speed(join(pieces, round(_JOIN_SECONDS * voice.sample_rate)), speed)


def _pause(voice: Voice, seconds: float, generator: np.random.Generator) -> list[np.ndarray]:
    """Recorded silences, together about `seconds` long."""
    left = round(seconds * voice.sample_rate)
    pieces = []
    while left > 0:
        silence = voice.silences[generator.integers(len(voice.silences))][:left]
        pieces.append(silence)
        left -= len(silence)
    return pieces


def join(pieces: Sequence[np.ndarray], overlap: int) -> np.ndarray:
    """Pieces float32 [samples] one after the other, each faded into the next over up to `overlap` samples."""
    joined = np.zeros(sum(len(piece) for piece in pieces), dtype=np.float32)
    end = 0
    for piece in pieces:
        fade = min(overlap, end, len(piece))
        ramp = ((np.arange(fade) + 0.5) / max(fade, 1)).astype(np.float32)
        start = end - fade
        joined[start:end] = joined[start:end] * (1 - ramp) + piece[:fade] * ramp
        joined[end : start + len(piece)] = piece[fade:]
        end = start + len(piece)
    return joined[:end]
