"""What every network shares: the stage it is in, and integer evaluation in the last one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from irnn.interpreter import Interpreter
from irnn.layers import Activation
from irnn.namespaces import TORCH


class RecurrentModel(nn.Module):
    """Base of the networks.  ``stage`` is set by :func:`irnn.qat.prepare`.

    In stage "all", ``eval()`` computes with the integers of the program that :func:`irnn.convert` gives: weights,
    tables and multipliers are frozen when the mode is entered, and thawed by ``train()`` or by loading weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stage = "float"
        self._frozen: dict[str, Interpreter] = {}
        self.register_load_state_dict_post_hook(lambda module, _: module.thaw())

    @property
    def integer(self) -> bool:
        """Whether a forward pass now computes with integers."""
        return self.stage == "all" and not self.training

    @property
    def _observing(self) -> bool:
        """Observers move in training, in the stages between the first and the last."""
        return self.training and self.stage not in ("float", "all")

    def frozen(self, part: str = "") -> Interpreter:
        """The program (of a model in parts: the named one) of this moment, bound to PyTorch's integers."""
        if part not in self._frozen:
            from irnn.export import convert_part

            self._frozen[part] = Interpreter(convert_part(self, part), TORCH, next(self.parameters()).device)
        return self._frozen[part]

    def thaw(self) -> None:
        """Forget the frozen programs: parameters or ranges are about to change."""
        self._frozen = {}

    def train(self, mode: bool = True) -> RecurrentModel:
        """As ``nn.Module.train``; either way the integers are frozen anew."""
        self.thaw()
        return super().train(mode)

    def refresh(self) -> None:
        """Fit the PWL tables to the ranges of this moment (an epoch's start; they stay until the next call)."""
        for module in self.modules():
            if isinstance(module, Activation) and module.pieces is not None:
                module.table()

    def program_wires(self) -> dict[str, Callable[[Any], None]]:
        """What an executor that records has to record: the name of each program and its network.

        Most models are one program, without a name.
        """
        return {"": self.program_wire}

    def program_wire(self, a: Any) -> None:
        """The whole network for an executor that records a program."""
        raise NotImplementedError
