"""irnn.LSTM and GRU against torch.nn's over random arguments and inputs: the same result, or both refuse."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import irnn
from irnn.errors import IrnnError
from tests.support.models import wired
from tests.support.pairs import CELLS

# In float32 and float64 the two differ by roundings alone.  bfloat16 has 8 significant bits, and torch's kernel rounds
# once a step where the wiring rounds after every operation: the roundings of five steps and three layers add up.
TOLERANCE = {
    torch.float32: dict(rtol=1e-6, atol=1e-6),
    torch.float64: dict(rtol=1e-12, atol=1e-12),
    torch.bfloat16: dict(rtol=0.05, atol=0.05),
}
# A weight's gradient is a sum over all steps and sequences of products that are themselves rounded.
GRADIENT = {torch.float32: dict(rtol=2e-5, atol=2e-6), torch.float64: dict(rtol=1e-10, atol=1e-11)}


@dataclass(frozen=True)
class Case:
    """A module's arguments and what it is called with; ``fault`` names what is wrong with the call."""

    kind: str
    arguments: dict[str, Any]
    dtype: torch.dtype
    form: str
    steps: int
    batch: int
    with_state: bool
    fault: str | None
    training: bool
    wired: bool
    seed: int


STATE_FAULTS = ("state dims", "state layers", "state batch", "state batch 1", "h size", "c size", "state dtype", "one")
INPUT_FAULTS = ("input size", "input dtype", "input dims")


@st.composite
def cases(draw: st.DrawFn) -> Case:
    kind, hidden = draw(st.sampled_from(CELLS)), draw(st.integers(1, 5))
    arguments = dict(
        input_size=draw(st.integers(1, 4)),
        hidden_size=hidden,
        num_layers=draw(st.integers(1, 3)),
        bias=draw(st.booleans()),
        batch_first=draw(st.booleans()),
        bidirectional=draw(st.booleans()),
    )
    if kind == "LSTM":
        arguments["proj_size"] = draw(st.integers(0, hidden - 1))
    faults = [fault for fault in (*INPUT_FAULTS, *STATE_FAULTS) if kind == "LSTM" or fault != "c size"]
    form = draw(st.sampled_from(["batched", "unbatched", "packed", "packed unsorted"]))
    wired = draw(st.booleans())
    training = wired or draw(st.booleans())
    # The wiring draws its zeros elsewhere than torch's kernel: there only a certain one can be compared.
    arguments["dropout"] = draw(st.sampled_from([0.0, 1.0] if wired else [0.0, 0.5, 1.0]))
    packed = form.startswith("packed")  # such sequences have a step at least
    return Case(
        kind=kind,
        arguments=arguments,
        dtype=draw(st.sampled_from([torch.float32, torch.float32, torch.float64, torch.bfloat16])),
        form=form,
        steps=draw(st.integers(1 if packed else 0, 5)),
        batch=draw(st.integers(1 if packed else 0, 4)),
        with_state=draw(st.booleans()),
        fault=draw(st.sampled_from(faults)) if draw(st.integers(0, 3)) == 3 else None,
        training=training,
        wired=wired,
        seed=draw(st.integers(0, 1000)),
    )


def modules(case: Case) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The two with the same weights."""
    torch.manual_seed(case.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # dropout without a second layer
        theirs = getattr(torch.nn, case.kind)(**case.arguments, dtype=case.dtype).train(case.training)
        ours = getattr(irnn, case.kind)(**case.arguments, dtype=case.dtype).train(case.training)
    ours.load_state_dict(theirs.state_dict())
    return theirs, wired(ours) if case.wired else ours


def call(case: Case) -> tuple[Tensor | PackedSequence, Tensor | tuple[Tensor, ...] | None, list[Tensor]]:
    """(input, state, the leaves among them) of a case, the same each time."""
    generator = torch.Generator().manual_seed(case.seed)
    arguments = case.arguments

    def random(*shape: int, dtype: torch.dtype = case.dtype) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype).requires_grad_(dtype.is_floating_point)

    fault = case.fault
    size = arguments["input_size"] + (fault == "input size")
    shape = [case.steps] if case.form == "unbatched" else [case.steps, case.batch]
    if fault == "input dims":
        shape = shape[1:] if case.seed % 2 or case.form == "unbatched" else [1, 1, *shape]
    elif case.form == "batched" and arguments["batch_first"]:
        shape.reverse()
    wrong = (torch.float16, torch.int64)[case.seed % 2]
    x = random(*shape, size, dtype=wrong if fault == "input dtype" else case.dtype)
    leaves, given = [x], x
    if case.form.startswith("packed") and fault != "input dims":
        lengths = torch.randint(1, case.steps + 1, (case.batch,), generator=generator)
        lengths[case.seed % case.batch] = case.steps
        if case.form == "packed":
            lengths = lengths.sort(descending=True).values
        given = pack_padded_sequence(x, lengths, enforce_sorted=case.form == "packed")
    if not (case.with_state or fault in STATE_FAULTS):
        return given, None, leaves
    rows = arguments["num_layers"] * (1 + arguments["bidirectional"]) + (fault == "state layers")
    batch = {"state batch": case.batch + 1, "state batch 1": 1 if case.batch != 1 else 2}.get(fault, case.batch)
    leading = [rows] if (case.form == "unbatched") != (fault == "state dims") else [rows, batch]
    dtype = torch.float16 if fault == "state dtype" else case.dtype
    h = random(*leading, (arguments.get("proj_size") or arguments["hidden_size"]) + (fault == "h size"), dtype=dtype)
    if case.kind == "GRU":
        return given, (h,) if fault == "one" else h, [x, h]
    c = random(*leading, arguments["hidden_size"] + (fault == "c size"), dtype=dtype)
    return given, (h,) if fault == "one" else (h, c), [x, h, c]


def outcome(module: torch.nn.Module, case: Case) -> dict[str, Tensor] | Exception:
    """Every tensor that comes out, gradients included; or the refusal."""
    x, state, leaves = call(case)
    torch.manual_seed(case.seed)  # dropout
    try:
        y, after = module(x, state)
    except (RuntimeError, ValueError, AttributeError, IndexError, TypeError) as error:
        return error
    assert isinstance(after, tuple) is (case.kind == "LSTM")
    found = dict(zip("hc", after, strict=True)) if isinstance(after, tuple) else {"h": after}
    if isinstance(y, PackedSequence):
        assert isinstance(x, PackedSequence)
        found |= {name: part for name, part in zip(y._fields, y, strict=True) if part is not None}
    else:
        found["y"] = y
    if case.dtype in GRADIENT:
        floats = [part for part in found.values() if part.is_floating_point()]
        generator = torch.Generator().manual_seed(case.seed)
        sum((part * torch.randn(part.shape, generator=generator).to(part)).sum() for part in floats).backward()
        found |= {f"gradient {k}": leaf.grad for k, leaf in enumerate(leaves)}
        found |= {f"gradient {name}": getattr(module, name).grad for name in module._flat_weights_names}
    return found


def torch_would_not_look(case: Case) -> bool:
    """With a packed sequence torch 2.13 checks neither state nor size: it reads beyond their end and may crash."""
    return case.form.startswith("packed") and case.fault in (*STATE_FAULTS, "input size")


def assert_both_refuse_or_neither(theirs: object, ours: object, what: object) -> None:
    assert isinstance(ours, Exception) == isinstance(theirs, Exception), f"{what}: torch {theirs!r}, irnn {ours!r}"
    if isinstance(ours, Exception):
        assert isinstance(ours, IrnnError), repr(ours)
        assert "\n" not in str(ours)


SEEN: dict[tuple[str, str], int] = {}


@settings(max_examples=600, deadline=None, derandomize=True)
@given(cases())
def compare(case: Case) -> None:
    theirs, ours = modules(case)
    expected = ValueError("not looked at") if torch_would_not_look(case) else outcome(theirs, case)
    actual = outcome(ours, case)
    assert_both_refuse_or_neither(expected, actual, case)
    refused = isinstance(expected, Exception)
    kinds = ["refused" if refused else "wired" if case.wired else "kernel"]
    if not refused and case.dtype in GRADIENT:
        kinds.append("gradients")
    for kind in kinds:
        SEEN[case.kind, kind] = SEEN.get((case.kind, kind), 0) + 1
    if refused:
        return
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        tolerance = GRADIENT[case.dtype] if name.startswith("gradient") else TOLERANCE[case.dtype]
        if value is None:
            assert actual[name] is None, name
        else:
            torch.testing.assert_close(actual[name], value, **tolerance, msg=lambda m, name=name: f"{name}: {m}")


def test_same_result_or_both_refuse() -> None:
    SEEN.clear()
    compare()
    # The examples reach each kind of outcome often enough to say something.
    assert min(SEEN[cell, kind] for cell in CELLS for kind in ("refused", "wired", "kernel", "gradients")) >= 40, SEEN


WHOLE = [-1, 0, 1, 2, 3, 2.0, "2", None, True, False, np.int64(2)]
SWITCH = [True, False, 0, 1, None, "no"]
PROBABILITY = [0, 0.5, 1, 1.5, -0.1, float("nan"), True, None, "half", np.float32(0.5), 1j, [0.5]]
DTYPES = [None, torch.float32, torch.float64, torch.bfloat16, torch.int32, float, "float64"]
OPTIONS = dict(
    input_size=WHOLE,
    hidden_size=WHOLE,
    num_layers=WHOLE,
    bias=SWITCH,
    batch_first=SWITCH,
    dropout=PROBABILITY,
    bidirectional=SWITCH,
    proj_size=WHOLE,
    device=[None, "cpu", torch.device("cpu"), "meta", "abacus", 1.5],
    dtype=DTYPES,
)
GOOD = dict(
    input_size=2, hidden_size=4, num_layers=2, bias=True, batch_first=False, dropout=0.0, bidirectional=True,
    proj_size=0, device=None, dtype=None,
)  # fmt: skip


def built(kind: type, values: dict[str, Any]) -> torch.nn.Module | Exception:
    """The module after a call (torch finds some faults then), or the refusal.

    What torch documents by place goes by place.  For its GRU, device and dtype are documented so, but an argument that
    only an LSTM has lies before them.
    """
    named = {} if "proj_size" in values else {name: values[name] for name in ("device", "dtype")}
    places = [value for name, value in values.items() if name not in named]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            module = kind(*places, **named)
        x = torch.zeros(3, 2, module.input_size, dtype=module.weight_ih_l0.dtype, device=module.weight_ih_l0.device)
        module(x)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        return error
    return module


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(CELLS), st.dictionaries(st.sampled_from(list(OPTIONS)), st.integers(0, 100), max_size=2))
def test_same_arguments_in_the_same_places(kind: str, choices: dict[str, int]) -> None:
    values = GOOD | {name: OPTIONS[name][k % len(OPTIONS[name])] for name, k in choices.items()}
    if kind == "GRU":
        del values["proj_size"]
    theirs, ours = (built(getattr(place, kind), values) for place in (torch.nn, irnn))
    assert_both_refuse_or_neither(theirs, ours, values)
    if isinstance(theirs, Exception):
        return
    for name in ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional", "mode"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.proj_size == theirs.proj_size
    assert ours.extra_repr() == theirs.extra_repr()
    assert [[w.shape for w in layer] for layer in ours.all_weights] == [
        [w.shape for w in layer] for layer in theirs.all_weights
    ]
    for name, parameter in theirs.named_parameters():
        mine = getattr(ours, name)
        assert (mine.shape, mine.dtype, mine.device) == (parameter.shape, parameter.dtype, parameter.device)
