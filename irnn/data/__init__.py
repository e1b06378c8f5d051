"""Text corpora for language models: where the words come from, the vocabulary, and the batches."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irnn.data.text.batching import TextBatches
    from irnn.data.text.corpus import Corpus, TextConfig, load_corpus
    from irnn.data.text.vocabulary import EOS, UNK, Vocabulary

__all__ = ["EOS", "UNK", "Corpus", "TextBatches", "TextConfig", "Vocabulary", "load_corpus"]

_PLACES = {"EOS": "vocabulary", "UNK": "vocabulary", "Vocabulary": "vocabulary", "TextBatches": "batching"}


def __getattr__(name: str) -> Any:
    """Import on first use: what runs a built program reads its words or units, and needs no PyTorch for it."""
    if name in __all__:
        return getattr(import_module(f"irnn.data.text.{_PLACES.get(name, 'corpus')}"), name)
    raise AttributeError(f"module 'irnn.data' has no attribute {name!r}")
