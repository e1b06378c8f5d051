"""Labelled sequences for classifiers: recordings with one label each, their features, splits and batches."""
