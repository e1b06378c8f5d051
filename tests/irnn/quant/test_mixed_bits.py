"""Bits and codes of single matrices, by their names: what a pattern fits, what travels, what is refused."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import irnn
from irnn import qat
from irnn.errors import IrnnError
from pipelines.config import RunConfig, read_config
from pipelines.core.plan import plan
from pipelines.core.training import QAT_STAGES
from pipelines.run import problem_of, run
from tests.irnn.wiring.test_converted_programs import assert_equal_to_evaluator
from tests.support.models import ids, language_model, quantized
from tests.support.tiny_run import call_run, composed, recorded_runs, tiny_config, tiny_overrides


def test_a_matrix_a_layer_or_a_pattern() -> None:
    """The longest key that fits decides; keys nest, as a command line's dots do."""
    of = {"lstm": {0: 6, "1.w_h": "ternary"}, "*.w_h": 4, "lstm.0.w_x": 3}
    quant = irnn.QuantConfig(of=of)
    assert quant.of == {"lstm.0": 6, "lstm.1.w_h": "ternary", "*.w_h": 4, "lstm.0.w_x": 3}
    names = ("embedding", "lstm.0.w_x", "lstm.0.w_h", "lstm.1.w_x", "lstm.1.w_h", "lstm.0_reverse.w_h")
    found = [quant.choice("weight", name) for name in names]
    assert found == [8, 3, 6, 8, "ternary", 4]
    model = quantized(language_model(layers=2), quant)
    bits = {row.name: row.bits for row in qat.sites(model) if row.role in ("weight", "embedding")}
    assert bits == {"embedding": 8, "lstm.0.w_x": 3, "lstm.0.w_h": 6, "lstm.1.w_x": 8, "lstm.1.w_h": 2}
    assert_equal_to_evaluator(irnn.convert(model))


def test_bits_there_mean_the_configured_code_too() -> None:
    quant = irnn.QuantConfig("alternating", 2, 2, 2, hidden=2, of={"lstm.0.w_h": 3, "lstm.0.w_x": "uniform:4"})
    assert quant.choice("weight", "lstm.0.w_h") == "alternating:3"
    program = irnn.convert(quantized(language_model(), quant))
    assert len([n for n in program.walk() if n.op == "linear" and n.output.startswith("lstm.0.w_h")]) == 3
    assert program.tensors["lstm.0.w_x.weight"].encoding == "int4"
    assert_equal_to_evaluator(program)


def test_they_travel_with_the_weights() -> None:
    quant = irnn.QuantConfig(of={"lstm.0.w_h": "denseshift:3"})
    model = quantized(language_model(), quant)
    fresh = language_model(seed=1)
    fresh.load_state_dict(model.state_dict())
    assert fresh.settings.quant == quant
    assert torch.equal(fresh.eval()(ids())[0], model(ids())[0])
    other = language_model(seed=1)
    qat.prepare(other, irnn.QuantConfig(of={"lstm.0.w_h": 4}), irnn.PwlConfig(), "all")
    with pytest.raises(IrnnError, match=r"trained for of={'lstm.0.w_h': 'denseshift:3'}, not {'lstm.0.w_h': 4}"):
        other.load_state_dict(model.state_dict())


REFUSED = [
    (dict(of={"lstm.1": 4}), r"of.lstm.1=4: no matrix of the network is called so; there are embedding, "
     r"lstm.0.w_x, lstm.0.w_h, decoder$"),
    (dict(of={"lstm.0.hidden": 4}), r"of.lstm.0.hidden=4: no matrix of the network is called so"),
    (dict(of={"embedding": 4}), r"of.embedding=4 and logits_weight=8 differ, but tie_weights=true makes"),
    (dict(of={"lstm.0": 12}), r"of.lstm.0=12: '12' is no number of bits of the weight code uniform"),
    (dict(of={"lstm.0": "trinary"}), r"of.lstm.0='trinary': 'trinary' is no weight code"),
    (dict(of=4), r"of=4: must map names of matrices to bits or codes, as in of.lstm.0.w_h=4"),
    (dict(code="denseshift", weight=3, embedding=3, logits_weight=3, of={"decoder": 8}),
     r"of.decoder=8 of code=denseshift: '8' is no number of bits of .* which has 2, 3, 4"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_fits_nothing_is_refused(settings: dict, message: str) -> None:
    model = language_model()
    with pytest.raises(IrnnError, match=message):
        qat.prepare(model, irnn.QuantConfig(**settings), irnn.PwlConfig(), "pwl")
    assert model.stage == "float"


def test_a_wrong_name_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "quant.of.lstm.7.w_h=4", "until=float")
    with pytest.raises(IrnnError, match=r"quant.of.lstm.7.w_h=4: no matrix of the network is called so; there are emb"):
        run(config)
    assert not list((tmp_path / "out").glob("stages/*/*"))


def digests(config: RunConfig) -> dict[str, str]:
    return {stage.name: stage.digest for stage in plan(config, problem_of(config))}


def test_stages_before_the_weights_are_shared(tmp_path: Path) -> None:
    """And settings that are said otherwise but mean the same are the same stage, of every version before."""
    plain = digests(tiny_config(tmp_path))
    mixed = digests(tiny_config(tmp_path, "quant.of.lstm.0.w_h=4"))
    assert all(plain[name] == mixed[name] for name in ("float", "float_matched", "pwl"))
    assert plain["weights"] != mixed["weights"]
    assert digests(tiny_config(tmp_path, "quant.weight=uniform:8")) == plain
    short = tiny_config(tmp_path, "quant=denseshift", "quant.weight=4")
    assert digests(short) == digests(tiny_config(tmp_path, *(f"quant.{r}=denseshift:4" for r in WEIGHTS)))


WEIGHTS = ("weight", "embedding", "logits_weight")


@pytest.mark.parametrize(
    ("group", "choice", "hidden"),
    [
        ("quant=ternary", "ternary", 8),
        ("quant=binary", "binary", 8),
        ("quant=denseshift", "denseshift:3", 8),
        ("quant=alternating", "alternating:2", "alternating:2"),
        ("quant=int4", 4, 8),
    ],
)
def test_a_group_takes_its_code_for_all_matrices(group: str, choice: str, hidden: str, tmp_path: Path) -> None:
    quant = tiny_config(tmp_path, group).quant
    assert [quant.choice(role) for role in (*WEIGHTS, "hidden")] == [choice, choice, choice, hidden]


def test_the_command_line_takes_names_without_a_plus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sweep too; each run's command repeats it alone."""
    configs = recorded_runs(monkeypatch)
    call_run(monkeypatch, "-m", *tiny_overrides(tmp_path), "quant.of.lstm.0.w_h=2,ternary")
    call_run(monkeypatch, *tiny_overrides(tmp_path), "quant.of={*.w_h: denseshift:3, decoder: 4}")
    found = [config.quant.of for config in configs]
    assert found == [{"lstm.0.w_h": 2}, {"lstm.0.w_h": "ternary"}, {"*.w_h": "denseshift:3", "decoder": 4}]
    _, _, *overrides = shlex.split(str(configs[0].command))
    assert read_config(composed(*overrides), configs[0].command) == replace(configs[0], sweep=None)


def test_post_training_quantization_trains_float_alone(tmp_path: Path) -> None:
    """The float stage's weights, calibrated and quantized; a run with QAT shares its float stages."""
    config = tiny_config(tmp_path, "post_training=true", "recipe.float.epochs=1", "until=all", "quant=alternating")
    results = run(config)
    assert list(results["stages"]) == ["float", "float_matched", "all"]
    assert results["epochs"]["all"] == 0
    stages = {stage.name: stage for stage in plan(config, problem_of(config))}
    assert not set(QAT_STAGES[:-1]) & set(stages)
    trained = digests(tiny_config(tmp_path, "recipe.float.epochs=1", "quant=alternating"))
    assert all(stages[name].digest == trained[name] for name in ("float", "float_matched"))
    assert stages["all"].digest != trained["all"]
    assert list(results["stages"]["all"]) == ["valid_perplexity", "test_perplexity"]
