"""docs/orthogonal.md shows a program as it is."""

from __future__ import annotations

import re
from pathlib import Path

from irnn.program.storage import load
from irnn.random_programs import Layer, layer_programs

PAGE = Path(__file__).parents[2] / "docs" / "orthogonal.md"


def without_numbers(text: str) -> list[list[str]]:
    """Words of each line; scales and ranges follow from a calibration in float, whose last digits are the machine's."""
    return [re.sub(r"-?\d+\.\d+|-?\d{4,}|zero point -?\d+", "#", line).split() for line in text.strip().splitlines()]


def test_the_listing_is_that_of_the_program(tmp_path: Path) -> None:
    program, _ = layer_programs(Layer(128, 128, cell="ornn", code="full_range", weight_bits=4))
    program.save(tmp_path / "program")
    shown = re.search(r"```\n(integer program\n.*?)```", PAGE.read_text(), re.DOTALL)
    assert shown is not None
    assert without_numbers(shown[1]) == without_numbers(load(tmp_path / "program").describe())
