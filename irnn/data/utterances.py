"""One utterance as every speech corpus gives it: what was said, by whom, and how to read the audio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Utterance:
    """text: words separated by single blanks.  where: the file (or the like) that messages name.
    identity: changes when the audio changes; part of a cache's name.  read: float32 [samples] at the corpus' rate."""

    id: str
    text: str
    speaker: str
    where: str
    identity: str
    read: Callable[[], np.ndarray]


class LeftOut(NamedTuple):
    """An utterance that cannot be used, and why: the line that an error would have shown."""

    id: str
    reason: str
