"""What a run prints and publishes."""
