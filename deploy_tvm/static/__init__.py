"""What can be said about a compiled program without the board that it is for: instructions, and cycles by a model."""
