"""Random lives of a model: prepared, loaded, trained, saved, copied, changed and converted in any order.

Beside each model goes what its weights were trained for.  After every act the integers that the model evaluates with
are those of its program, and two ways to one point give equal integers, or one of them was refused in one line.
"""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

import irnn
from irnn import qat
from irnn.errors import IrnnError
from irnn.stages import STAGES
from tests.support.models import ids, language_model, quantized

TOKENS = ids(2, 5)
# Tables on grids of 10 bits are fitted in a few milliseconds.
NARROW = irnn.QuantConfig(preactivation=10, norm=10)
QUANTS = (NARROW, replace(NARROW, weight="ternary"), replace(NARROW, cell=12, hidden=6))
PWLS = (irnn.PwlConfig(), irnn.PwlConfig(pieces=4))
PLAIN = ("lstm", None)
KINDS = (PLAIN, ("lstm", "mad"), ("lstm", "layer"), ("gru", None), ("gru", "mad"))  # cell, norm
Kind = tuple[str, str | None]


def fresh(kind: Kind, seed: int = 0) -> irnn.LanguageModel:
    cell, norm = kind
    return language_model(cell=cell, norm=norm, size=8, dropout=0.0, seed=seed)


def prepared(kind: Kind, quant: irnn.QuantConfig, pwl: irnn.PwlConfig, stage: str, seed: int = 0):
    """As training reaches it: float, calibrated, then stage by stage with a step in each."""
    return copy.deepcopy(_prepared(kind, quant, pwl, stage, seed))


@cache
def _prepared(kind: Kind, quant: irnn.QuantConfig, pwl: irnn.PwlConfig, stage: str, seed: int):
    if stage == "float":
        model = fresh(kind, seed)
    else:
        model = prepared(kind, quant, pwl, STAGES[STAGES.index(stage) - 1], seed)
    qat.prepare(model, quant, pwl, stage)
    if stage == "pwl":
        calibrate(model)
    train_a_step(model)
    return model


def calibrate(model: irnn.LanguageModel) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random networks of 8 units are served badly
        qat.calibrate(model, [TOKENS])


def train_a_step(model: irnn.LanguageModel) -> None:
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    loss, _ = model.loss(TOKENS[:, :-1], TOKENS[:, 1:])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()


def integers(model: irnn.LanguageModel) -> np.ndarray:
    """The program's logits; in stage "all", what ``eval()`` computes is exactly that."""
    program = irnn.convert(model)
    logits, _ = program.run(TOKENS.numpy())
    if model.stage == "all":
        evaluated, _ = model.eval()(TOKENS)
        assert torch.equal(evaluated, torch.from_numpy(logits) * program.logits_scale)
    return logits


# --- ways in which weights travel: each gives a model that has them ---


def by_state_dict(model, target):
    target.load_state_dict(model.state_dict())
    return target


def by_torch_save(model, target):
    stream = io.BytesIO()
    torch.save(model.state_dict(), stream)
    stream.seek(0)
    target.load_state_dict(torch.load(stream, weights_only=True))
    return target


def by_safetensors(model, target):
    state = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    target.load_state_dict(load(save(state)))
    return target


def by_assigning(model, target):
    target.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    return target


def by_wrapper(model, target):
    wrapped = torch.nn.Sequential()
    wrapped.add_module("module", model)
    target.load_state_dict(wrapped.state_dict())
    return target


def by_whole(model, target):
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


LOADING: tuple[Callable, ...] = (by_state_dict, by_torch_save, by_safetensors, by_assigning, by_wrapper)
COPYING: tuple[Callable, ...] = (
    lambda model, target: copy.deepcopy(model),
    lambda model, target: pickle.loads(pickle.dumps(model)),
    by_whole,
)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(KINDS),
    stage=st.sampled_from(STAGES),
    quant=st.sampled_from(QUANTS),
    pwl=st.sampled_from(PWLS),
    other_quant=st.sampled_from(QUANTS),
    other_pwl=st.sampled_from(PWLS),
    other_kind=st.sampled_from(KINDS),
    start=st.sampled_from((None, *STAGES)),
    end=st.sampled_from(STAGES[1:]),
    way=st.sampled_from(LOADING + COPYING),
    used=st.booleans(),
)
def test_two_ways_to_one_point_give_equal_integers_or_one_line(
    kind, stage, quant, pwl, other_quant, other_pwl, other_kind, start, end, way, used
) -> None:
    """Weights of ``stage`` arrive in a model that is prepared before (``start``), after (``end``), or both."""
    trained = prepared(kind, quant, pwl, stage)
    target = fresh(other_kind, seed=5)
    if start is not None:
        qat.prepare(target, other_quant, other_pwl, start)
    if used and start not in (None, "float"):
        calibrate(target)
        train_a_step(target)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    try:
        loaded = way(trained, target)
    except IrnnError as refusal:
        one_line(refusal)
        assert all(_equal(a, b) for a, b in pairs(before, target))
        otherwise = start is not None and trained.settings.difference(target.settings) is not None
        assert otherwise or kind != other_kind
        return
    reference = copy.deepcopy(trained)
    try:
        qat.prepare(loaded, other_quant, other_pwl, end)
    except IrnnError as refusal:
        one_line(refusal)
        assert trained.settings.difference(irnn.qat.Settings(end, other_quant, other_pwl)) is not None
        return
    if stage == "float":
        return  # no ranges yet: nothing to convert
    # The same settings, reached without any detour.
    qat.prepare(reference, other_quant, other_pwl, end)
    assert np.array_equal(integers(loaded), integers(reference))


def one_line(error: IrnnError) -> None:
    assert "\n" not in str(error)


def pairs(before: dict[str, torch.Tensor], model: torch.nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    after = model.state_dict()
    assert before.keys() == after.keys()
    return [(before[name], after[name]) for name in before]


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return np.array_equal(a.numpy(), b.numpy(), equal_nan=a.is_floating_point())


ACTS = (
    "eval",
    "train mode",
    "step",
    "prepare",
    "reload",
    "copy",
    "convert",
    "change in place",
    "change through data",
    "change a range",
    "replace",
)


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(KINDS), acts=st.lists(st.sampled_from(ACTS), min_size=3, max_size=8), seed=st.integers(0, 9)
)
def test_integers_are_never_stale(kind, acts, seed) -> None:
    """Whatever was done, evaluation in stage "all" is the program of the present weights and ranges."""
    model = prepared(kind, QUANTS[0], PWLS[0], "all", seed)
    kept = copy.deepcopy(model.state_dict())
    integers(model)
    for act in acts:
        weight = model.recurrent.layers[0].cells.forward_cell.w_h.weight
        hidden = model.recurrent.layers[0].hidden
        if act == "eval":
            model.eval()
        elif act == "train mode":
            model.train()
        elif act == "step":
            train_a_step(model)
        elif act == "prepare":
            qat.prepare(model, QUANTS[0], PWLS[0], "all")
        elif act == "reload":
            model.load_state_dict(kept)
        elif act == "copy":
            model = copy.deepcopy(model)
        elif act == "convert":
            irnn.convert(model)
        elif act == "change in place":
            with torch.no_grad():
                weight[1, 2] += 0.25
        elif act == "change through data":
            weight.data.mul_(1.1)
        elif act == "change a range":
            hidden.observed_max.mul_(1.05)
        else:
            model.decoder.bias_0 = torch.nn.Parameter(model.decoder.bias_0.detach() + 0.5)
        if not model.training:
            evaluated, _ = model(TOKENS)
            program = irnn.convert(model)
            logits, _ = program.run(TOKENS.numpy())
            assert torch.equal(evaluated, torch.from_numpy(logits) * program.logits_scale), act
    integers(model)


# --- the cases by name ---


def test_a_mad_norm_is_scaled_once_in_either_order() -> None:
    trained = quantized(language_model(norm="mad"))
    expected = integers(trained)
    after, before = language_model(norm="mad", seed=3), language_model(norm="mad", seed=3)
    after.load_state_dict(trained.state_dict())
    qat.prepare(after, irnn.QuantConfig(), irnn.PwlConfig(), "all")
    qat.prepare(before, irnn.QuantConfig(), irnn.PwlConfig(), "all")
    before.load_state_dict(trained.state_dict())
    assert np.array_equal(integers(after), expected)
    assert np.array_equal(integers(before), expected)


def test_a_float_norm_loaded_into_a_prepared_model_becomes_mad() -> None:
    floating, expected = language_model(norm="mad"), language_model(norm="mad")
    qat.prepare(expected, irnn.QuantConfig(), irnn.PwlConfig(), "pwl")
    target = qat.prepare(language_model(norm="mad", seed=3), irnn.QuantConfig(), irnn.PwlConfig(), "pwl")
    target.load_state_dict(floating.state_dict())
    for name, norm in target.norms().items():
        assert norm.kind == "mad"
        assert torch.equal(norm.weight, expected.norms()[name].weight)


def test_a_model_that_is_not_prepared_takes_the_settings_over() -> None:
    trained = quantized(language_model(), irnn.QuantConfig(weight=4))
    target = language_model(seed=3)
    target.load_state_dict(trained.state_dict())
    assert target.settings == trained.settings
    assert np.array_equal(integers(target), integers(trained))


def test_other_bits_are_refused_in_either_order_unless_through_float() -> None:
    trained = quantized(language_model(), irnn.QuantConfig(weight=4))
    prepared_otherwise = qat.prepare(language_model(), irnn.QuantConfig(), irnn.PwlConfig(), "all")
    with pytest.raises(IrnnError, match=r"trained for weight=4, not 8, as this model is prepared"):
        prepared_otherwise.load_state_dict(trained.state_dict())
    target = language_model(seed=3)
    target.load_state_dict(trained.state_dict())
    with pytest.raises(IrnnError, match=r"loaded weights were trained for weight=4, not 8"):
        qat.prepare(target, irnn.QuantConfig(), irnn.PwlConfig(), "all")
    with pytest.raises(IrnnError, match=r"trained for pieces=16, not 8"):
        qat.prepare(target, irnn.QuantConfig(weight=4), irnn.PwlConfig(pieces=8), "all")
    qat.prepare(target, irnn.QuantConfig(), irnn.PwlConfig(), "float")
    qat.prepare(target, irnn.QuantConfig(), irnn.PwlConfig(), "all")
    assert target.lstm.layers[0].cells.forward_cell.w_h.bits == 8


def test_weights_bits_are_free_until_their_stage() -> None:
    """A sweep over them shares stage "pwl"."""
    trained = prepared(PLAIN, QUANTS[0], PWLS[0], "pwl")
    for bits in (2, 4, 8):
        target = fresh(PLAIN)
        qat.prepare(target, replace(NARROW, weight=bits), PWLS[0], "pwl")
        target.load_state_dict(trained.state_dict())
        qat.prepare(target, replace(NARROW, weight=bits), PWLS[0], "weights")


def test_tables_follow_the_ranges_that_are_loaded() -> None:
    trained = prepared(PLAIN, QUANTS[0], PWLS[0], "pwl").eval()
    loss, _ = trained.loss(TOKENS[:, :-1], TOKENS[:, 1:])
    target = prepared(PLAIN, QUANTS[0], PWLS[0], "pwl", seed=4).eval()
    target.loss(TOKENS[:, :-1], TOKENS[:, 1:])
    target.load_state_dict(trained.state_dict())
    assert torch.equal(target.loss(TOKENS[:, :-1], TOKENS[:, 1:])[0], loss)
    target.train()
    trained.train()
    trained.refresh()
    assert torch.equal(target.loss(TOKENS[:, :-1], TOKENS[:, 1:])[0], trained.loss(TOKENS[:, :-1], TOKENS[:, 1:])[0])


def test_a_state_dict_without_a_record_is_one_of_before() -> None:
    """Loaded as the model is prepared; by itself it does not say what it was trained for."""
    trained = quantized(language_model(norm="mad"))
    legacy = {name: tensor for name, tensor in trained.state_dict().items() if not name.endswith("_extra_state")}
    with pytest.raises(IrnnError, match="has observed ranges and no record"):
        language_model(norm="mad").load_state_dict(legacy)
    target = qat.prepare(language_model(norm="mad", seed=3), irnn.QuantConfig(), irnn.PwlConfig(), "all")
    target.load_state_dict(legacy)
    assert np.array_equal(integers(target), integers(trained))
    floating = {n: t for n, t in language_model(norm="mad").state_dict().items() if not n.endswith("_extra_state")}
    language_model(norm="mad", seed=3).load_state_dict(floating)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.update(_extra_state=torch.zeros(4, dtype=torch.uint8)), "record of its settings is damaged"),
        (lambda s: s.update(_extra_state=torch.zeros(2)), "record of its settings is damaged"),
        (
            lambda s: s.update(_extra_state=torch.tensor(list(b'{"format": 9}'), dtype=torch.uint8)),
            "has the format 9, this version of irnn reads 1 to 2;",
        ),
        (lambda s: s.pop("embedding.weight"), "missing: embedding.weight"),
        (lambda s: s.update(x=torch.zeros(1)), "unexpected: x;"),
        (lambda s: s.update({"decoder.bias_0": torch.zeros(1)}), r"decoder\.bias_0 is \[1\], not \[60\]"),
        (lambda s: s.update({"decoder.weight": s["decoder.weight"] + 1}), "different values for embedding.weight and"),
    ],
    ids=["damaged", "float", "future", "missing", "unexpected", "shape", "tied"],
)
def test_a_state_dict_that_does_not_fit_is_one_line_and_changes_nothing(spoil, message) -> None:
    model = quantized(language_model())
    before, state = integers(model), dict(model.state_dict())
    spoil(state)
    with pytest.raises(IrnnError, match=message) as error:
        model.load_state_dict(state)
    assert "\n" not in str(error.value)
    assert np.array_equal(integers(model), before)


def of_format_1(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Its state as it was saved before format 2 of the record."""
    state = model.state_dict()
    text = bytes(state["_extra_state"].tolist()).replace(b'"format": 2', b'"format": 1')
    return state | {"_extra_state": torch.frombuffer(bytearray(text), dtype=torch.uint8)}


@pytest.mark.parametrize(
    ("quant", "said"),
    [
        (dict(weight=4), "weight=4"),
        (dict(embedding=3, logits_weight=3), "embedding=3"),
        (dict(of={"lstm.0.w_h": 2}), "of.lstm.0.w_h=2"),
    ],
)
def test_weights_of_few_bits_from_before_their_scale_of_least_squares_are_refused(quant, said) -> None:
    """They would stand for other integers than the ones that they were trained for."""
    trained = quantized(language_model(), irnn.QuantConfig(**quant))
    with pytest.raises(IrnnError, match=f"trained for {said} at the scale of the largest weight") as error:
        language_model().load_state_dict(of_format_1(trained))
    assert "\n" not in str(error.value)
    before = qat.prepare(quantized(language_model()), irnn.QuantConfig(**quant), irnn.PwlConfig(), "pwl")
    language_model().load_state_dict(of_format_1(before))  # no weight was quantized yet


def test_other_weights_of_format_1_are_what_they_were() -> None:
    trained = quantized(language_model(), irnn.QuantConfig(weight=5, embedding="midrise:3", logits_weight="midrise:3"))
    target = language_model()
    target.load_state_dict(of_format_1(trained))
    assert np.array_equal(integers(target), integers(trained))


def test_tied_weights_stay_tied_where_they_are_assigned() -> None:
    model = language_model()
    model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    assert model.decoder.weight is model.embedding.weight


def test_norms_of_another_kind_are_refused() -> None:
    trained = quantized(language_model(norm="mad"))
    with pytest.raises(IrnnError, match=r"a 'mad' norm at lstm\.0\.norm_x .* build it with norm='mad'"):
        language_model(norm="layer").load_state_dict(trained.state_dict())
    with pytest.raises(IrnnError, match=r"a 'layer' norm at .* build it with norm='layer'"):
        language_model(norm="mad").load_state_dict(quantized(language_model(norm="layer")).state_dict())


def test_a_float_model_with_ranges_has_no_program_yet() -> None:
    model = language_model()
    qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), "float")
    calibrate(model)
    with pytest.raises(IrnnError, match='has no table: prepare the model for stage "pwl"'):
        irnn.convert(model.eval())
