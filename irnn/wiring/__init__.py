"""Executors of a network's wiring: the simulation that trains, the recorders of programs."""
