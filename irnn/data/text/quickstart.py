"""The embedded corpus: the English of Python's own documentation, which every CPython carries along.

`pydoc_data.topics` holds the texts behind `help("topic")`. No network and no files are needed; the words differ a
little from one Python version to the next, which the corpus fingerprint shows.
"""

from __future__ import annotations

import hashlib
import re

_WORD = re.compile(r"[a-z_]+(?:['’][a-z]+)?|[0-9]+|[^\sa-z0-9_]")
# Markup of code and emphasis, and quotation marks: half of all tokens otherwise.
_MARKUP = re.compile(r"[\"“”*`]")
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+(?=[A-Z])")
# Share of characters that are letters, blanks or sentence marks: English paragraphs have more, code and grammars less.
_PROSE_SHARE = 0.92
_MIN_WORDS = 4


def quickstart_lines() -> dict[str, list[list[str]]]:
    """Sentences by split, each a list of lower-cased words and punctuation marks.

    Whole topics go to one split, chosen by a hash of the topic's name, so that the split does not depend on the
    Python version. Topics repeat paragraphs of each other: a sentence stays only where it comes first in the order
    test, valid, train, so nothing of the test split is seen in training.
    """
    from pydoc_data.topics import topics

    lines: dict[str, list[list[str]]] = {"test": [], "valid": [], "train": []}
    seen: set[str] = set()
    for split, chosen in lines.items():
        for name in sorted(topics):
            if _split_of(name) != split:
                continue
            for sentence in _sentences(topics[name]):
                if sentence not in seen:
                    seen.add(sentence)
                    chosen.append(_WORD.findall(sentence))
    return lines


def _split_of(topic: str) -> str:
    digit = hashlib.sha256(topic.encode()).digest()[0] % 10
    return {0: "valid", 1: "test", 2: "valid"}.get(digit, "train")


def _sentences(text: str) -> list[str]:
    """English sentences of a topic; headings, underlines, signatures, grammars and code are left out."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        joined = " ".join(_MARKUP.sub("", paragraph).split())
        if not joined or not joined.endswith((".", ":", "!", "?", ")")):
            continue
        plain = sum(char.isalpha() or char in " .,;'" for char in joined)
        if plain < _PROSE_SHARE * len(joined):
            continue
        for sentence in _SENTENCE_END.split(joined):
            if len(sentence.split()) >= _MIN_WORDS:
                found.append(sentence.lower())
    return found
