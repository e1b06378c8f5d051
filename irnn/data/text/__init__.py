"""Text corpora: lines of words, their vocabulary, batches."""
