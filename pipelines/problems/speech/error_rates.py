"""Word and character error rates, the results file of a recognizer, and the comparison of two recognizers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irnn.errors import IrnnError
from pipelines.core.manifest import write_json

_FORMAT = 1


@dataclass(frozen=True)
class Transcripts:
    """What was said and what was recognized, with alignments; one entry an utterance, all in one order.

    wer, cer: word and character error rate of the whole set, as fractions (they can exceed 1).
    word_errors, words, character_errors, characters: int64 [utterances]: errors and length of the references.
    alignments: for every utterance [[operation, reference word or None, recognized word or None], ...] with the
        operations equal, substitute, delete, insert.
    """

    ids: list[str]
    references: list[str]
    hypotheses: list[str]
    word_errors: np.ndarray
    words: np.ndarray
    character_errors: np.ndarray
    characters: np.ndarray
    alignments: list[list[list[str | None]]]

    @property
    def wer(self) -> float:
        return float(self.word_errors.sum() / self.words.sum())

    @property
    def cer(self) -> float:
        return float(self.character_errors.sum() / self.characters.sum())

    def save(self, path: Path) -> None:
        """Write rates, hypotheses and alignments as JSON."""
        utterances = [
            {
                "id": self.ids[k],
                "reference": self.references[k],
                "hypothesis": self.hypotheses[k],
                "word_errors": int(self.word_errors[k]),
                "character_errors": int(self.character_errors[k]),
                "alignment": self.alignments[k],
            }
            for k in range(len(self.ids))
        ]
        write_json(path, {"format": _FORMAT, "wer": self.wer, "cer": self.cer, "utterances": utterances})

    @classmethod
    def load(cls, path: Path) -> Transcripts:
        """Read what `save` wrote (the rates are computed anew); anything else is an `IrnnError`."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise KeyError("format")
            rows = content["utterances"]
            return score(*([row[key] for row in rows] for key in ("id", "reference", "hypothesis")))
        except FileNotFoundError:
            raise IrnnError(f"no transcripts at {path}; run the evaluation that writes them") from None
        except IrnnError:
            raise
        except (ValueError, KeyError, TypeError):
            raise IrnnError(f"{path} holds no transcripts of format {_FORMAT}; run the evaluation again") from None


def score(ids: Sequence[str], references: Sequence[str], hypotheses: Sequence[str]) -> Transcripts:
    """Align `hypotheses` with `references` (words separated by blanks; a hypothesis may be empty)."""
    try:
        import jiwer
    except ModuleNotFoundError:
        raise IrnnError("error rates need the package jiwer; install it with: pip install 'irnn[speech]'") from None

    if not len(ids) == len(references) == len(hypotheses) or not ids:
        raise IrnnError(
            f"{len(ids)} ids, {len(references)} references and {len(hypotheses)} hypotheses cannot be compared; one of "
            "each is needed for every utterance, and at least one utterance"
        )
    for name, reference in zip(ids, references, strict=True):
        if not reference.strip():
            raise IrnnError(f"utterance {name} has an empty reference: no error rate is defined; leave it out")
    words = jiwer.process_words(list(references), list(hypotheses))
    characters = jiwer.process_characters(list(references), list(hypotheses))
    return Transcripts(
        list(ids),
        list(references),
        list(hypotheses),
        _errors(words.alignments),
        np.array([len(reference) for reference in words.references]),
        _errors(characters.alignments),
        np.array([len(reference) for reference in characters.references]),
        [_readable(*parts) for parts in zip(words.alignments, words.references, words.hypotheses, strict=True)],
    )


def _errors(alignments: list[list[Any]]) -> np.ndarray:
    """Substituted, deleted and inserted tokens of every utterance, int64 [utterances]."""
    return np.array(
        [
            sum(
                max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
                for chunk in chunks
                if chunk.type != "equal"
            )
            for chunks in alignments
        ]
    )


def _readable(chunks: list[Any], reference: list[str], hypothesis: list[str]) -> list[list[str | None]]:
    pairs: list[list[str | None]] = []
    for chunk in chunks:
        said = reference[chunk.ref_start_idx : chunk.ref_end_idx]
        heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        for k in range(max(len(said), len(heard))):
            pairs.append([chunk.type, said[k] if said else None, heard[k] if heard else None])
    return pairs


@dataclass(frozen=True)
class Difference:
    """Error rate of system B minus that of system A, with the limits of the confidence interval; fractions."""

    difference: float
    low: float
    high: float
    confidence: float
    samples: int

    @property
    def contains_zero(self) -> bool:
        """Whether the interval holds 0: then the difference may be chance."""
        return self.low <= 0 <= self.high


def paired_bootstrap(
    a: Transcripts, b: Transcripts, *, unit: str = "word", samples: int = 10000, confidence: float = 0.95, seed: int = 0
) -> Difference:
    """Percentile bootstrap over utterances of the difference of two systems on the same utterances.

    Every sample draws utterances with replacement, the same for both systems (Bisani and Ney 2004), and compares the
    error rates of the whole drawn sets. `unit`: "word" or "character".
    """
    if a.ids != b.ids or a.references != b.references:
        raise IrnnError(
            "two systems can only be compared on the same utterances in the same order; evaluate both again"
        )
    if unit not in ("word", "character"):
        raise IrnnError(f"unit={unit!r} is unknown; allowed: word, character")
    errors_a, errors_b = (s.word_errors if unit == "word" else s.character_errors for s in (a, b))
    lengths = a.words if unit == "word" else a.characters
    gap = errors_b - errors_a
    generator = np.random.default_rng(seed)
    drawn = np.empty(samples)
    for k in range(samples):
        chosen = generator.integers(len(gap), size=len(gap))
        drawn[k] = gap[chosen].sum() / lengths[chosen].sum()
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Difference(float(gap.sum() / lengths.sum()), float(low), float(high), confidence, samples)
