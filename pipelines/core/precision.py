"""What `trainer.precision` costs on the processor that trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator

from pipelines.config import TrainerConfig

X86 = "x86_64"
BF16_PRODUCTS = ("avx512_bf16", "amx_bf16")


def slow_precision(trainer: TrainerConfig, cpu: Mapping[str, Any] | None = None) -> str | None:
    """The line that says so where bf16 is asked for and the x86 CPU that trains has no instructions for it.

    cpu: what PyTorch says of the processor (`torch.cpu.get_capabilities`); None: of this one.  Without instructions
    bf16 is rounded and multiplied in software: the float stage of an LSTM 300 ran at 0.19 steps a second in place of
    3.06 on an AVX2 CPU (AMD EPYC, family 25).
    """
    if trainer.precision != "bf16" or trainer.accelerator == "gpu":
        return None
    if trainer.accelerator == "auto" and (CUDAAccelerator.is_available() or MPSAccelerator.is_available()):
        return None
    known = torch.cpu.get_capabilities() if cpu is None else cpu
    if known.get("architecture") != X86 or any(known.get(name) for name in BF16_PRODUCTS):
        return None
    return (
        f"trainer.precision=bf16: this CPU ({known['cpu_name']}) has no instructions for bf16, so that training takes "
        "many times as long as in fp32; set trainer.precision=fp32"
    )
