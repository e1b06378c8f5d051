"""Activations of float programs; integer ones have ``pwl`` and the low end of a ``requantize``."""

from irnn.program.ops.base import FloatOperation


class Relu(FloatOperation):
    """max(x, 0)."""

    name = "relu"
    documentation = "max(x, 0)"


class Sigmoid(FloatOperation):
    """1 / (1 + exp(-x))."""

    name = "sigmoid"
    documentation = "1 / (1 + exp(-x))"


class Tanh(FloatOperation):
    """Hyperbolic tangent."""

    name = "tanh"
    documentation = "hyperbolic tangent"
