"""The golden comparison counts every integer that differs, and says where."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from irnn.errors import IrnnError
from irnn.program.equality import Comparison, compare, named, total
from tests.support.random_programs import Spec, random_inputs, random_program


def results() -> dict[str, np.ndarray]:
    program = random_program(Spec(hidden=3))
    output, state = program.run(random_inputs(program, 2, 3))
    return named(program, [output], state)


def test_every_wrong_integer_is_counted_and_named() -> None:
    expected = results()
    found = {name: array.copy() for name, array in expected.items()}
    compared = sum(array.size for array in expected.values())
    assert compare("the device", found, expected) == Comparison(compared)
    found["logits.acc"][0, 1, 5] += 1
    found["logits.acc"][1, 2, 0] -= 1
    found["state layer0.forward.h"][0, 0] ^= 1
    wrong = compare("the device", found, expected)
    assert wrong.figures() == {"count": 3, "compared": compared}
    assert str(wrong) == (f"3 of {compared} integers differ: 2 of logits.acc, 1 of state layer0.forward.h")


def test_another_shape_dtype_or_name_is_refused() -> None:
    expected = results()
    logits = expected["logits.acc"]
    for wrong in (logits[:, :2], logits.astype(np.int64)):
        with pytest.raises(IrnnError, match=r"the device gives int.* as logits\.acc, the reference int32"):
            compare("the device", expected | {"logits.acc": wrong}, expected)
    with pytest.raises(IrnnError, match=r"the device gives logits, the reference logits\.acc"):
        compare("the device", {"logits": logits}, {"logits.acc": logits})


def test_comparisons_add_up() -> None:
    first, second = Comparison(5, {"a": 2}), Comparison(7, {"a": 1, "b": 1})
    assert total([first, second, Comparison(1)]) == Comparison(13, {"a": 3, "b": 1})
    assert total([]) == Comparison()
    assert str(Comparison(4)) == "0 of 4 integers differ"


def test_states_come_by_name_or_in_the_programs_order() -> None:
    program = random_program(Spec(hidden=3))
    output, state = program.run(random_inputs(program, 1, 2))
    listed = named(program, [output], [state[name] for name in program.states])
    tensors = named(program, [torch.from_numpy(output)], {name: torch.from_numpy(v) for name, v in state.items()})
    for other in (listed, tensors):
        assert compare("the other", other, named(program, [output], state)).count == 0
