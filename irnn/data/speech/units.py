"""Output units of a recognizer: words, characters or SentencePiece pieces, and their ids."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irnn.data.text.text_files import read_json
from irnn.errors import IrnnError

BLANK, BOS, EOS = 0, 1, 2
SPECIALS = ("<blank>", "<bos>", "<eos>")
KINDS = ("words", "characters", "sentencepiece")
_FORMAT = "irnn-units-1"
# Where an export puts the units, beside the program.
UNITS_FILE, _MODEL_FILE = "units.json", "units.model"


@dataclass(frozen=True)
class UnitsConfig:
    """kind: "words", "characters" or "sentencepiece".  size: pieces of a SentencePiece model (only there)."""

    kind: str = "characters"
    size: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise IrnnError(f"kind={self.kind!r} is unknown; allowed: {', '.join(KINDS)}")
        if (self.size is not None) != (self.kind == "sentencepiece"):
            raise IrnnError(
                f"size={self.size} with kind={self.kind}: the size belongs to sentencepiece, and to that alone"
            )


class Units:
    """Text <-> ids. 0 is CTC's blank, 1 begins and 2 ends a sequence; the units of the text follow from 3 on."""

    def __init__(self, kind: str, names: Sequence[str], model: bytes | None = None) -> None:
        """`names`: units in the order of their ids from 3 on; `model`: the SentencePiece model of that kind."""
        self.kind = kind
        self.names = [*SPECIALS, *names]
        self._model = model
        self._ids = {name: number for number, name in enumerate(self.names)}
        if len(self._ids) != len(self.names):
            raise IrnnError(f"the {kind} of a vocabulary must all differ; {len(self.names) - len(self._ids)} repeat")
        if model is not None:
            self._processor = _processor(model)
            self._unknown = self._processor.unk_id()

    @classmethod
    def train(cls, texts: Iterable[str], config: UnitsConfig) -> Units:
        """The units that occur in `texts`, sorted; a SentencePiece unigram model is trained on them."""
        texts = list(texts)
        if config.kind == "sentencepiece":
            model = _train_sentencepiece(texts, config.size)
            processor = _processor(model)
            return cls("sentencepiece", [processor.id_to_piece(i) for i in range(processor.vocab_size())], model)
        pieces = {piece for text in texts for piece in (text.split() if config.kind == "words" else text)}
        return cls(config.kind, sorted(pieces))

    def __len__(self) -> int:
        """Number of ids, the three special ones included."""
        return len(self.names)

    @property
    def fingerprint(self) -> str:
        """sha256 over kind, units and model: equal where the same text gets the same ids."""
        content = json.dumps([_FORMAT, self.kind, self.names]).encode()
        return hashlib.sha256(content + (self._model or b"")).hexdigest()

    def encode(self, text: str, where: str = "the text") -> np.ndarray:
        """Ids int64 [units] without begin and end; a unit that is not in the vocabulary is an `IrnnError`."""
        if self.kind == "sentencepiece":
            pieces = self._processor.encode(text)
            if self._unknown in pieces:
                known = {char for name in self.names[len(SPECIALS) :] for char in name}
                unknown = next((char for char in text if char != " " and char not in known), text)
                raise IrnnError(self._unknown_unit(unknown, where))
            return np.asarray(pieces, dtype=np.int64) + len(SPECIALS)
        pieces = text.split() if self.kind == "words" else text
        for piece in pieces:
            if piece not in self._ids:
                raise IrnnError(self._unknown_unit(piece, where))
        return np.asarray([self._ids[piece] for piece in pieces], dtype=np.int64)

    def _unknown_unit(self, unit: str, where: str) -> str:
        return (
            f"{where}: {unit!r} is not among the {len(self) - len(SPECIALS)} {self.kind} of the vocabulary, which the "
            "training transcripts define; mend the text"
        )

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; blank, begin and end are left out. An id out of range is an `IrnnError`."""
        kept = []
        for number in ids:
            if not 0 <= number < len(self):
                raise IrnnError(f"unit id {number} is out of range; this vocabulary has ids 0 to {len(self) - 1}")
            if number >= len(SPECIALS):
                kept.append(int(number))
        if self.kind == "sentencepiece":
            return self._processor.decode([number - len(SPECIALS) for number in kept])
        return (" " if self.kind == "words" else "").join(self.names[number] for number in kept)

    def describe(self) -> dict[str, Any]:
        """What a checkpoint or program keeps to recognize its vocabulary; JSON-ready."""
        return {"kind": self.kind, "size": len(self), "fingerprint": self.fingerprint}

    def check_matches(self, described: dict[str, Any], where: str) -> None:
        """An `IrnnError` where `described` (from `describe`, kept by the checkpoint `where`) is another vocabulary."""
        if described != self.describe():
            theirs = f"{described.get('size')} {described.get('kind')} ({str(described.get('fingerprint'))[:12]})"
            raise IrnnError(
                f"the vocabulary of {len(self)} {self.kind} ({self.fingerprint[:12]}) does not match {where}, which "
                f"was trained with {theirs}; use the units that were saved with it"
            )

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that `save` writes."""
        return (UNITS_FILE,) if self._model is None else (UNITS_FILE, _MODEL_FILE)

    def save(self, folder: Path) -> None:
        """Write `units.json` (kind and names in the order of their ids) and, for SentencePiece, `units.model`."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {"format": _FORMAT, "kind": self.kind, "names": self.names, "fingerprint": self.fingerprint}
        (folder / UNITS_FILE).write_text(json.dumps(content, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
        if self._model is not None:
            (folder / _MODEL_FILE).write_bytes(self._model)

    @classmethod
    def load(cls, folder: Path) -> Units:
        """Read what `save` wrote; anything else is an `IrnnError`."""
        path = folder / UNITS_FILE
        if not os.path.lexists(path):
            raise IrnnError(f"no units at {path}; they are written next to the model")
        content = read_json(path)
        try:
            if content["format"] != _FORMAT or content["kind"] not in KINDS:
                raise KeyError("format")
            model = (folder / _MODEL_FILE).read_bytes() if content["kind"] == "sentencepiece" else None
            units = cls(content["kind"], content["names"][len(SPECIALS) :], model)
            intact = units.fingerprint == content["fingerprint"]
        except OSError as error:
            raise IrnnError(f"no units at {error.filename} ({error.strerror}); export the model again") from None
        except (ValueError, KeyError, TypeError):
            raise IrnnError(f"{path} does not hold units of the format {_FORMAT!r}; export the model again") from None
        if not intact:
            raise IrnnError(f"{path} was edited or belongs to another {_MODEL_FILE}; export the model again")
        return units


def _processor(model: bytes) -> Any:
    try:
        import sentencepiece
    except ModuleNotFoundError:
        raise IrnnError("units need the package sentencepiece; install it with: pip install 'irnn[speech]'") from None
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise IrnnError(f"the SentencePiece model is damaged ({error}); export the model again") from None


def _train_sentencepiece(texts: list[str], size: int | None) -> bytes:
    try:
        import sentencepiece
    except ModuleNotFoundError:
        raise IrnnError("units need the package sentencepiece; install it with: pip install 'irnn[speech]'") from None
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=size,
            model_type="unigram",
            character_coverage=1.0,
            # Begin, end and padding are ids of this class, before all pieces.
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            unk_id=0,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].split("] ")[-1].rstrip(".")
        raise IrnnError(f"units.size={size}: SentencePiece cannot make these pieces ({reason})") from None
    return model.getvalue()
