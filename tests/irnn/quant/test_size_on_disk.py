"""How much smaller than the bare fp32 weights a program on disk is: description, scales, tables and biases counted."""

from pathlib import Path

import pytest
import torch

import irnn
from irnn.models.language_model import LanguageModel, LanguageModelConfig
from irnn.qat import PwlConfig, QuantConfig

AT_300 = {"ternary": 12.0, "midrise:2": 12.0, "alternating:2": 12.0, "denseshift:3": 8.0, "midrise:3": 8.0}
AT_1024 = {"alternating:2": 14.0, "denseshift:3": 9.5}


@pytest.mark.parametrize(
    ("row", "words", "code", "smaller"),
    [
        *((300, 4000, code, smaller) for code, smaller in AT_300.items()),
        *((1024, 100, code, smaller) for code, smaller in AT_1024.items()),
    ],
)
def test_few_bits_are_few_bytes(tmp_path: Path, row: int, words: int, code: str, smaller: float) -> None:
    torch.manual_seed(0)
    config = LanguageModelConfig(vocabulary_size=words, embedding_size=row, hidden_size=row, cell="gru")
    model = LanguageModel(config)
    # Tied matrices count once, as they are stored once.
    floating = sum(parameter.numel() * 4 for parameter in model.parameters())
    irnn.prepare(model, QuantConfig(weight=code, embedding=code, logits_weight=code), PwlConfig(), stage="all")
    irnn.calibrate(model, [torch.randint(words, (2, 3))])
    irnn.convert(model.eval()).save(tmp_path / "program")
    stored = sum(path.stat().st_size for path in (tmp_path / "program").iterdir())
    assert floating / stored >= smaller
