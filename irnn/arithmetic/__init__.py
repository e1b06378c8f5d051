"""The integer arithmetic: every rounding and saturation, once, and the namespaces that it runs in."""

# Grows by one where an operation's integers change: results of before are then not found again.
VERSION = 1
