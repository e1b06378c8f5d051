"""Exact float paths and gradients that are quicker than autograd over single operations."""
