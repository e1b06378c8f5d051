"""Timing beside other runtimes and the floor."""
