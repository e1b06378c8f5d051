"""The runtimes that are compared with."""
