"""One utterance as every speech corpus gives it: what was said, by whom, and how to read the audio."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np

from irnn.errors import IrnnError

# Among the splits of a corpus: what its folder or list holds and cannot be used, where nothing tells the split.
NO_SPLIT = "no_split"


@dataclass(frozen=True)
class Utterance:
    """text: words separated by single blanks.  where: the file (or the like) that messages name.
    identity: changes when the audio changes; part of a cache's name.  read: float32 [samples] at the corpus' rate.
    listed: the line or row that says what is said.
    fault: why the utterance cannot be used, where the corpus' folder or list shows it already; else empty."""

    id: str
    text: str
    speaker: str
    where: str
    identity: str
    read: Callable[[], np.ndarray]
    listed: str = ""
    fault: str = ""


def unusable(name: str, where: str, fault: str) -> Utterance:
    """What stands for an utterance that was found and cannot be used."""

    def read() -> np.ndarray:
        raise IrnnError(fault)

    return Utterance(name, "", "", where, "", read, fault=fault)


def marked_repeats(
    splits: dict[str, list[Utterance]], recording: Callable[[Utterance], Hashable]
) -> dict[str, list[Utterance]]:
    """The same utterances; those that are there a second time have a `fault`.

    A second time is: the same recording in any split, or the same id in one split. Listed again word for word, the
    first stays and the others are marked. Listed with another text, id, split or recording, nobody can tell which is
    right: all are marked.
    """
    seen: dict[Hashable, list[tuple[str, Utterance]]] = defaultdict(list)
    for split, utterances in splits.items():
        for utterance in utterances:
            if not utterance.fault:
                for key in (("recording", recording(utterance)), ("id", split, utterance.id)):
                    seen[key].append((split, utterance))
    faults: dict[int, str] = {}
    for group in seen.values():
        (split, first), *others = group
        for other_split, other in others:
            if (split, first.id, first.text, recording(first)) == (
                other_split, other.id, other.text, recording(other)
            ):  # fmt: skip
                faults.setdefault(
                    id(other), f"{other.listed} lists {other.id} again, word for word as {first.listed}; remove it"
                )
                continue
            said = (
                f"{first.listed} lists {first.id} in {split}, and {other.listed} lists {other.id} in {other_split}: "
                + ("one recording" if recording(first) == recording(other) else "one id, two recordings")
                + ("" if first.text == other.text else ", two texts")
                + "; keep the right one"
            )
            faults[id(first)] = faults[id(other)] = said
    return {
        split: [dataclasses.replace(u, fault=faults[id(u)]) if id(u) in faults else u for u in utterances]
        for split, utterances in splits.items()
    }
