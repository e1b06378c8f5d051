"""Search: greedy and beam decoding over a recognizer."""
