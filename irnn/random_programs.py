"""Programs of networks with random weights, for benchmarks: calibrated on Gaussian features, never trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from irnn import qat
from irnn.conversion import convert, float_program
from irnn.data.speech.speech_batches import collate
from irnn.errors import IrnnError
from irnn.models.sequence import random_layer
from irnn.models.speech import SpeechModel, SpeechModelConfig
from irnn.nn.cells import cell_class
from irnn.program import Program
from irnn.program.sets import ProgramSet
from irnn.quant.codes import CODES, UNIFORM, weight_code
from irnn.quant.config import QuantConfig
from irnn.stages import PwlConfig

MAX_SIZE = 1 << 14
LINEAR = "linear"
CALIBRATION_STEPS, CALIBRATION_FRAMES = 256, 100
# Of a random recognizer: filterbanks and SentencePiece units as in Espresso's LibriSpeech recipe.
FEATURES, VOCABULARY = 80, 5000


@dataclass(frozen=True)
class Layer:
    """A recurrent stack; sizes in elements, ``norm`` None, "layer" or "mad", ``cell`` one of ``nn.cells.CELLS``, or
    "linear": a product input -> hidden alone, of which a stack is made.

    code: one of ``irnn.quant.codes.CODES``.  weight_bits: None becomes 8, or what the code has of its own; other bits
    than a code has are an ``IrnnError``.  codes: how many binary codes what a layer reads is written in at run time;
    None: it is read as it is.  hadamard: the recurrent matrix is HadamRNN's, binary signs times a Hadamard matrix, of
    the cell ornn alone.
    """

    input: int
    hidden: int
    layers: int = 1
    bidirectional: bool = False
    norm: str | None = None
    weight_bits: int | None = None
    cell: str = "lstm"
    code: str = UNIFORM
    codes: int | None = None
    hadamard: bool = False

    def __post_init__(self) -> None:
        if self.cell == LINEAR:
            alone: dict[str, Any] = {"layers": 1, "bidirectional": False, "norm": None, "codes": None}
            for name, only in alone.items():
                if getattr(self, name) != only:
                    raise IrnnError(f"{name}={getattr(self, name)}: a product alone ({LINEAR}) has none; leave it out")
        else:
            cell_class(self.cell)
        if self.hadamard and self.cell != "ornn":
            raise IrnnError(f"hadamard=true: the cell {self.cell} has no such matrix; take ornn")
        for name in ("input", "hidden", "layers"):
            value = getattr(self, name)
            if not 1 <= value <= MAX_SIZE:
                raise IrnnError(f"{name}={value}: must lie in 1 to {MAX_SIZE}")
        if self.code not in CODES:
            raise IrnnError(f"code={self.code}: is no weight code; there are {', '.join(CODES)}")
        choices = CODES[self.code].BITS
        if choices and (8 if self.weight_bits is None else self.weight_bits) not in choices:
            given = (
                f"code={self.code}: needs"
                if self.weight_bits is None
                else f"weight_bits={self.weight_bits}: allowed are"
            )
            raise IrnnError(f"{given} weight bits of {', '.join(map(str, choices))}, which the code {self.code} has")
        own = None if choices else weight_code(self.code, per_row=True).bits
        if own is not None and self.weight_bits not in (None, own):
            raise IrnnError(f"weight_bits={self.weight_bits}: the weight code {self.code} has {own}, without a choice")
        if self.weight_bits is None:
            object.__setattr__(self, "weight_bits", own or 8)
        self.quant()  # refuses other bits of other roles

    def quant(self) -> QuantConfig:
        """How the stack is quantized."""
        assert self.weight_bits is not None  # since the layer was made
        coded = f"{self.code}:{self.weight_bits}" if CODES[self.code].BITS else self.code
        weight = self.weight_bits if self.code == UNIFORM else coded
        hidden = 8 if self.codes is None else f"alternating:{self.codes}"
        if self.cell == LINEAR:
            return QuantConfig(weight=weight, logits_weight=weight)
        of = {"*.w_h": "binary"} if self.hadamard else {}
        return replace(QuantConfig(weight=weight, hidden=hidden, of=of), **cell_class(self.cell).QUANT)


def layer_programs(layer: Layer, seed: int = 0) -> tuple[Program, Program]:
    """(integer program, float program) of one stack, or of a product."""
    features = np.random.default_rng(seed).standard_normal((1, CALIBRATION_STEPS, layer.input)).astype(np.float32)
    example = torch.from_numpy(features)
    if layer.cell == LINEAR:
        return _product_programs(layer, example, seed)
    model = random_layer(
        layer.input, layer.hidden, cell=layer.cell, num_layers=layer.layers, bidirectional=layer.bidirectional,
        norm=layer.norm, seed=seed, **({"orthogonal": "hadamard"} if layer.hadamard else {}),
    )  # fmt: skip
    qat.prepare(model, layer.quant(), PwlConfig(), "all")
    qat.calibrate(model, [example])
    return _one(convert(model)), _one(float_program(model))


def _product_programs(layer: Layer, example: torch.Tensor, seed: int) -> tuple[Program, Program]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(layer.input, layer.hidden)).eval()
    qat.prepare(model, layer.quant(), PwlConfig(), example_inputs=example)
    qat.calibrate(model, [example])
    floating = _one(float_program(model))
    qat.set_stage(model, "all")
    return _one(convert(model.eval())), floating


def recognizer_programs(config: Mapping[str, Any], seed: int = 0) -> tuple[ProgramSet, ProgramSet]:
    """(integer programs, float programs) of a recognizer; config: the fields of ``SpeechModelConfig`` but the sizes of
    features and vocabulary."""
    torch.manual_seed(seed)
    model = SpeechModel(SpeechModelConfig(VOCABULARY, FEATURES, **config))
    qat.prepare(model, QuantConfig(), PwlConfig(), "all")
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((CALIBRATION_FRAMES, FEATURES)).astype(np.float32)
    qat.calibrate(model, [collate([features], [rng.integers(3, VOCABULARY, 8)], np.zeros(1, np.int64))])
    return _several(convert(model.eval())), _several(float_program(model))


def _one(made: Program | ProgramSet) -> Program:
    assert isinstance(made, Program)  # a stack is one program
    return made


def _several(made: Program | ProgramSet) -> ProgramSet:
    assert isinstance(made, ProgramSet)  # an encoder and a decoder
    return made
