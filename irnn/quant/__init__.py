"""From float to integers: roles and bits, sites and observers, tables of piecewise-linear functions."""
