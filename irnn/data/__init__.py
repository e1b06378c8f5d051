"""Text corpora for language models: where the words come from, the vocabulary, and the batches."""

from irnn.data.text.batching import TextBatches
from irnn.data.text.corpus import Corpus, TextConfig, load_corpus
from irnn.data.text.vocabulary import EOS, UNK, Vocabulary

__all__ = ["EOS", "UNK", "Corpus", "TextBatches", "TextConfig", "Vocabulary", "load_corpus"]
