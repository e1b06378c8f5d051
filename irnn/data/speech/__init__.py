"""Speech corpora: audio, features, units, batches."""
