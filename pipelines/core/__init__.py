"""Stages, their cache, training and deployment: what every problem shares."""
