"""Features on disk: computed once, shared by concurrent runs, read through a memory map."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock

from irnn.data.audio.features import FeatureConfig, Normalization, centred, filterbank
from irnn.data.audio.utterances import Utterance
from irnn.data.left_out import LeftOut
from irnn.errors import IrnnError
from irnn.places import expanded

# Part of every name: a change of the computation or of the files' form must not find what an older version has left.
_FORMAT = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureTable:
    """Features of one split, as read from the disk.

    rows: float32 [all frames, num_mel_bins], a read-only memory map, not normalized.
    starts: int64 [utterances + 1]; utterance k has the rows starts[k] to starts[k + 1].
    left_out: what could not be computed, by position in the list that was asked for; such an utterance has no rows.
    normalization: of exactly these rows.  identity: hash of configuration, utterances and audio.
    """

    rows: np.ndarray
    starts: np.ndarray
    left_out: dict[int, LeftOut]
    normalization: Normalization
    identity: str

    @property
    def frames(self) -> np.ndarray:
        """Frames of every utterance, int64 [utterances]."""
        return np.diff(self.starts)

    def __getitem__(self, index: int) -> np.ndarray:
        """float32 [frames, num_mel_bins] of one utterance, not normalized."""
        return self.rows[self.starts[index] : self.starts[index + 1]]


def cached_features(
    utterances: Sequence[Utterance], config: FeatureConfig, cache_dir: Path, name: str, *, leave_out: bool
) -> FeatureTable:
    """The features of `utterances`, computed where `cache_dir` does not hold them yet.

    Two runs that want the same features at the same time compute them once: the second waits. A run that is killed
    leaves nothing that a later one would take for features. With `leave_out`, audio that cannot be used is recorded in
    the table, else it is an `IrnnError`.
    """
    identity = _identity(utterances, config)
    folder = expanded(cache_dir) / f"{name}-{identity[:16]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():
                _compute(utterances, config, folder, leave_out)
    except OSError as error:
        raise IrnnError(f"the feature cache {folder} cannot be written ({error}); set `cache_dir`") from None
    table = _open(folder, identity, len(utterances), config.utterance_mean)
    if table.left_out and not leave_out:
        raise IrnnError(next(iter(table.left_out.values())).reason)
    return table


def _identity(utterances: Sequence[Utterance], config: FeatureConfig) -> str:
    described = dataclasses.asdict(config)
    if not config.utterance_mean:  # what was computed and trained before there was this choice stays valid
        del described["utterance_mean"]
    digest = hashlib.sha256(json.dumps([_FORMAT, described], sort_keys=True).encode())
    for utterance in utterances:
        digest.update(f"{utterance.id}\0{utterance.identity}\0".encode())
    return digest.hexdigest()


def _compute(utterances: Sequence[Utterance], config: FeatureConfig, folder: Path, leave_out: bool) -> None:
    unfinished = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a run that was killed; the lock says nobody else is here
    unfinished.mkdir()
    begin = time.monotonic()
    starts, left_out = [0], {}
    total, squares = np.zeros((2, config.num_mel_bins))
    with (unfinished / "features.npy").open("wb") as file:
        _write_header(file, 0, config.num_mel_bins)
        for position, utterance in enumerate(utterances):
            try:
                features = filterbank(utterance.read(), config, utterance.where)
            except IrnnError as error:
                if not leave_out:
                    shutil.rmtree(unfinished, ignore_errors=True)
                    raise
                left_out[position] = [utterance.id, str(error)]
                features = np.zeros((0, config.num_mel_bins), np.float32)
            file.write(features.astype("<f4").tobytes())
            counted = centred(features) if config.utterance_mean and len(features) else features
            total += counted.sum(axis=0, dtype=np.float64)
            squares += np.square(counted, dtype=np.float64).sum(axis=0)
            starts.append(starts[-1] + len(features))
        file.seek(0)
        _write_header(file, starts[-1], config.num_mel_bins)
        file.flush()
        os.fsync(file.fileno())
    index = {
        "starts": starts,
        "left_out": left_out,
        "sum": total.tolist(),
        "sum_of_squares": squares.tolist(),
        "config": dataclasses.asdict(config),
    }
    (unfinished / "index.json").write_text(json.dumps(index) + "\n", encoding="utf-8")
    os.rename(unfinished, folder)
    seconds = time.monotonic() - begin
    _log.info("features of %d utterances computed in %.1f s: %s", len(utterances), seconds, folder)


def _write_header(file: BinaryIO, frames: int, bins: int) -> None:
    # NumPy leaves room for the first axis to grow, so the header can be written again when the length is known.
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (frames, bins)})


def _open(folder: Path, identity: str, utterances: int, utterance_mean: bool) -> FeatureTable:
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        starts = np.asarray(index["starts"], dtype=np.int64)
        left_out = {int(position): LeftOut(*entry) for position, entry in index["left_out"].items()}
        sums = np.asarray(index["sum"]), np.asarray(index["sum_of_squares"])
        # NumPy cannot map an array without elements.
        rows = np.load(folder / "features.npy", mmap_mode="r" if starts[-1] else None, allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise IrnnError(f"the feature cache {folder} is damaged; delete that folder to compute it again") from None
    if len(starts) != utterances + 1 or rows.shape != (starts[-1], len(sums[0])):
        raise IrnnError(f"the feature cache {folder} is damaged; delete that folder to compute it again")
    normalization = Normalization.from_sums(*sums, max(1, int(starts[-1])), utterance_mean)
    return FeatureTable(rows, starts, left_out, normalization, identity)
