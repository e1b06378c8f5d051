"""What a run shows while it runs: its lines, its progress, its loggers."""
