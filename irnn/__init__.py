"""irnn: recurrent networks that run on integers alone.

``prepare`` -> train -> ``convert`` -> ``Program``::

    model = irnn.LanguageModel(irnn.LanguageModelConfig(vocabulary_size=10000, embedding_size=300, hidden_size=300))
    irnn.prepare(model, irnn.QuantConfig(), irnn.PwlConfig())
    irnn.calibrate(model, batches)
    irnn.set_stage(model, "all")
    program = irnn.convert(model)
    program.save("program")
    logits_i32, state = irnn.load("program").step(ids)
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "GRU": "irnn.nn.drop_in",
    "IrnnError": "irnn.errors",
    "LSTM": "irnn.nn.drop_in",
    "LanguageModel": "irnn.models",
    "LanguageModelConfig": "irnn.models",
    "Program": "irnn.program",
    "PwlConfig": "irnn.stages",
    "QuantConfig": "irnn.quant.config",
    "STAGES": "irnn.stages",
    "calibrate": "irnn.qat",
    "compensate": "irnn.qat",
    "convert": "irnn.conversion",
    "explain": "irnn.qat",
    "float_program": "irnn.conversion",
    "load": "irnn.program.storage",
    "prepare": "irnn.qat",
    "sensitivity": "irnn.matrix_sensitivity",
    "set_stage": "irnn.qat",
    "wiring_of": "irnn.wiring.network",
}
_MODULES = {
    "fixed_point": "irnn.arithmetic.fixed_point",
    "metrics": "irnn.metrics",
    "pwl": "irnn.quant.pwl",
    "qat": "irnn.qat",
}
__all__ = [*_EXPORTS, *_MODULES]


def __getattr__(name: str) -> Any:
    """Import on first use: a program can be loaded and described without waiting for PyTorch."""
    if name in _EXPORTS:
        value = getattr(import_module(_EXPORTS[name]), name)
        if callable(value):
            globals()[name] = value
        return value
    if name in _MODULES:
        return import_module(_MODULES[name])
    raise AttributeError(f"module 'irnn' has no attribute {name!r}")
