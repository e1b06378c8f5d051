"""Text corpora for language models: where the words come from, the vocabulary, and the batches."""

from irnn.data.batching import TextBatches
from irnn.data.text import Corpus, TextConfig, load_corpus
from irnn.data.vocabulary import EOS, UNK, Vocabulary

__all__ = ["EOS", "UNK", "Corpus", "TextBatches", "TextConfig", "Vocabulary", "load_corpus"]
