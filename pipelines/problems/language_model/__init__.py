"""Language models: perplexity of the next word."""
