"""Records a network's wiring as a program: ``convert`` the integer-only one, ``float_program`` its float baseline.

Both recorders are executors of the same wiring (``lstm``, ``irnn.models``).  All constants are computed here, on
the CPU in float64: integer weights, biases, multipliers, shifts, tables.  Nothing downstream recomputes one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from irnn.program import Program
from irnn.program.sets import ProgramSet
from irnn.wiring.executor import Network, ProgramExecutor
from irnn.wiring.network import wiring_of
from irnn.wiring.record_float import FloatRecorder
from irnn.wiring.record_integer import IntegerRecorder

__all__ = ["convert", "convert_part", "float_program"]


def convert(model: Network | nn.Module) -> Program | ProgramSet:
    """The integer-only program of a prepared and calibrated model, checked; of a model in parts a set of them.

    Weights, scales and tables are those of this moment.  In stage "all" a model in ``eval()`` computes with these very
    programs, so its accuracy is theirs.
    """
    network = wiring_of(model)
    programs = {name: convert_part(network, name) for name in network.program_wires()}
    return programs[""] if set(programs) == {""} else ProgramSet(programs)


def convert_part(model: Network, part: str) -> Program:
    """One of the integer programs that :func:`convert` gives; a model of one program has the part ""."""
    program = _record(IntegerRecorder(model), model.program_wires()[part])
    program.metadata |= model.program_metadata()
    program.check()
    return program


def float_program(model: Network | nn.Module) -> Program | ProgramSet:
    """The same network in float32, with exact sigmoid and tanh and its norms as they stand."""
    network = wiring_of(model)
    programs = {name: _record(FloatRecorder(network), wire) for name, wire in network.program_wires().items()}
    return programs[""] if set(programs) == {""} else ProgramSet(programs)


def _record(recorder: IntegerRecorder | FloatRecorder, wire: Callable[[ProgramExecutor[Any]], None]) -> Program:
    with torch.no_grad():
        wire(recorder)
    return recorder.program()
