"""The word list of a language model: word <-> token id, saved as readable JSON."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from irnn.data.text.text_files import read_json
from irnn.errors import IrnnError

EOS = "<eos>"
UNK = "<unk>"
# Where an export puts the words, beside the program.
VOCABULARY_FILE = "vocabulary.json"
_FORMAT = "irnn-vocabulary-1"


class Vocabulary:
    """Words in the order of their ids, 0 first. `<eos>` is always there; `<unk>` only if the corpus has it."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self._ids = {word: index for index, word in enumerate(self.words)}
        if len(self._ids) != len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise IrnnError(f"the vocabulary lists {twice!r} more than once; every word must be there exactly once")
        if EOS not in self._ids:
            raise IrnnError(f"the vocabulary has no {EOS!r}; the end of a line needs a token of its own")

    @classmethod
    def from_lines(cls, lines: Iterable[Sequence[str]], limit: int | None = None) -> Vocabulary:
        """Count the words of `lines` (and one `<eos>` a line); most frequent first, ties alphabetically.

        With `limit`, the rarest words are left out, so that at most `limit` words stand in the list; `<unk>` is one
        of them, also where no word had to go.
        """
        counts: Counter[str] = Counter()
        for words in lines:
            counts.update(words)
            counts[EOS] += 1
        if limit is not None:
            if limit < 3:
                raise IrnnError(f"max_vocabulary={limit} is too small: {EOS}, {UNK} and at least one word are needed")
            kept = [word for word in _ranked(counts) if word not in (EOS, UNK)][: limit - 2]
            left_out = counts.total() - counts[EOS] - sum(counts[word] for word in kept)
            counts = Counter({word: counts[word] for word in kept} | {EOS: counts[EOS], UNK: left_out})
        return cls(_ranked(counts))

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self._ids

    @property
    def eos(self) -> int:
        """Id of the end-of-line token, which is also the first input of a stream."""
        return self._ids[EOS]

    def encode(self, lines: Iterable[Sequence[str]], where: str = "the text", first: int = 1) -> np.ndarray:
        """Ids of all lines in one stream, one `<eos>` after each line: int64 [tokens].

        A word outside the vocabulary becomes `<unk>` where the vocabulary has that word, else it is an `IrnnError`,
        which counts lines from `first` on.
        """
        ids = self._ids
        unknown = ids.get(UNK)
        eos = ids[EOS]
        stream: list[int] = []
        for number, words in enumerate(lines, start=first):
            for word in words:
                index = ids.get(word, unknown)
                if index is None:
                    raise IrnnError(
                        f"{where}, line {number}: the word {word!r} is not in the vocabulary of {len(self)} words, "
                        f"which has no {UNK!r} either; replace the word or train with a corpus that has {UNK!r}"
                    )
                stream.append(index)
            stream.append(eos)
        return np.asarray(stream, dtype=np.int64)

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Words of the ids; an id out of range is an `IrnnError`."""
        words = []
        for index in ids:
            if not 0 <= index < len(self.words):
                raise IrnnError(f"token id {index} is out of range; this vocabulary has ids 0 to {len(self) - 1}")
            words.append(self.words[index])
        return words

    def save(self, path: Path) -> None:
        """Write the words, in the order of their ids, as JSON."""
        text = json.dumps({"format": _FORMAT, "words": self.words}, ensure_ascii=False, indent=0)
        path.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote; anything else is an `IrnnError`."""
        if not os.path.lexists(path):
            raise IrnnError(f"no vocabulary at {path}; it is written next to the program")
        content = read_json(path)
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise IrnnError(f"{path} is not a vocabulary of the format {_FORMAT!r}; export the program again")
        words = content.get("words")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise IrnnError(f"{path} has no list of words under 'words'; export the program again")
        return cls(words)


def _ranked(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda word: (-counts[word], word))
