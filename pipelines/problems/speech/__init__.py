"""Recognizers: error rates."""
