"""Drop-ins for torch's recurrent modules: the same arguments in the same places."""

from __future__ import annotations

import torch

from irnn.nn.recurrent import Recurrent


class LSTM(Recurrent):
    """Drop-in for ``torch.nn.LSTM``: same arguments, inputs, attributes, state_dict and results, and quantizable."""

    KERNEL = torch.lstm

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        norm: str | None = None,
    ) -> None:
        super().__init__(
            "lstm", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype,
            norm=norm, proj_size=proj_size,
        )  # fmt: skip


class GRU(Recurrent):
    """Drop-in for ``torch.nn.GRU``: same arguments, inputs, attributes, state_dict and results, and quantizable."""

    KERNEL = torch.gru

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        norm: str | None = None,
    ) -> None:
        super().__init__(
            "gru", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype,
            norm=norm,
        )  # fmt: skip
