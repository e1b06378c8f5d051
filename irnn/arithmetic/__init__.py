"""The integer arithmetic: every rounding and saturation, once, and the namespaces that it runs in."""
