"""Activations of float programs; integer ones have ``pwl`` and the ends of a ``requantize``."""

from irnn.program.ops.base import FloatOperation


class Relu(FloatOperation):
    """max(x, 0)."""

    name = "relu"
    documentation = "max(x, 0)"


class Clamp(FloatOperation):
    """min(max(x, low), high)."""

    name = "clamp"
    documentation = "min(max(x, low), high); an end that is not said is none (low, high)"


class Scale(FloatOperation):
    """factor x."""

    name = "scale"
    documentation = "x times (factor); integer programs read the same integers at another scale"


class Sigmoid(FloatOperation):
    """1 / (1 + exp(-x))."""

    name = "sigmoid"
    documentation = "1 / (1 + exp(-x))"


class Tanh(FloatOperation):
    """Hyperbolic tangent."""

    name = "tanh"
    documentation = "hyperbolic tangent"


class Curve(FloatOperation):
    """Any other function of one number."""

    name = "curve"
    documentation = "gelu, silu, softplus and their like (function)"
