"""A recognizer that starts with the encoder of another one."""

import shutil
from pathlib import Path

import pytest
import torch

from irnn.errors import IrnnError
from pipelines.config import RunConfig, read_config
from pipelines.core.checkpoints import load_weights
from pipelines.core.plan import plan
from pipelines.core.stages import Stage
from pipelines.run import problem_of, run
from tests.support.tiny_run import composed
from tests.support.tiny_speech import tiny_speech

OTHER_UNITS = ("data.units.kind=characters", "model.ctc_weight=0.5")


def float_stage(config: RunConfig) -> Stage:
    return plan(config, problem_of(config))[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The float stage of a recognizer of other units and another loss."""
    config = tiny_speech(tmp_path_factory.mktemp("trained"), "until=float", "recipe.float.epochs=1", *OTHER_UNITS)
    run(config)
    return float_stage(config).folder


def encoder_of(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The encoder's tensors but for ranges, which are NaN before anything is observed."""
    return {name: x for name, x in tensors.items() if name.startswith("encoder.") and "observed" not in name}


def test_training_starts_with_the_encoder_and_with_nothing_else(trained: Path, tmp_path: Path) -> None:
    config = tiny_speech(tmp_path, f"problem.pretrained_encoder={trained}", "seed=2")
    start, expected = problem_of(config).build().state_dict(), load_weights(trained)
    assert all(torch.equal(start[name], x) for name, x in encoder_of(expected).items())
    assert start["ctc.weight"].shape != expected["ctc.weight"].shape  # its units are others
    assert not torch.equal(start["decoder.attention.query.weight"], expected["decoder.attention.query.weight"])


def test_a_run_trains_on_from_the_encoder(trained: Path, tmp_path: Path) -> None:
    """Weights that are hardly trained stay near the other recognizer's; the results say whose they are."""
    slow = ("seed=2", "until=float", "recipe.float.epochs=1", "recipe.float.lr=1e-6", "recipe.float.final_lr=1e-6")
    farthest = []
    for pretrained in (str(trained), "null"):
        config = tiny_speech(tmp_path, f"problem.pretrained_encoder={pretrained}", *slow)
        results = run(config)
        assert ("pretrained_encoder" in results) == (pretrained != "null")
        assert results.get("pretrained_encoder", {"epochs": 1})["epochs"] == 1
        found, before = load_weights(float_stage(config).folder), encoder_of(load_weights(trained))
        weights = [name for name in before if name.endswith("weight") and "norm" not in name]
        farthest.append(max(float((found[name] - before[name]).abs().max()) for name in weights))
    assert farthest[0] < 1e-4 < 0.1 < farthest[1]


def test_the_stage_is_identified_by_the_weights_wherever_they_lie(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "copy")
    digests = [
        float_stage(tiny_speech(tmp_path, f"problem.pretrained_encoder={folder}")).digest
        for folder in (trained, tmp_path / "copy", "null")
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.encoder_size=9", r"does not fit this model: layers.0.*weight is \(32, 8\) there, \(36, 9\) here; "),
        ("data.features.num_mel_bins=39", "was trained on FeatureConfig.*num_mel_bins=40.*this run has.*=39"),
    ],
)
def test_an_encoder_that_does_not_fit_is_one_line(trained: Path, tmp_path: Path, override: str, message: str) -> None:
    config = tiny_speech(tmp_path, f"problem.pretrained_encoder={trained}", override)
    with pytest.raises(IrnnError, match=message):
        problem_of(config).build()


def test_a_folder_without_a_trained_recognizer_is_refused(trained: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    shutil.copytree(trained, unfinished)
    (unfinished / "manifest.json").unlink()
    for folder in (tmp_path, unfinished):
        with pytest.raises(IrnnError, match=f"{folder} holds no trained recognizer; problem.pretrained_encoder takes"):
            problem_of(tiny_speech(tmp_path, f"problem.pretrained_encoder={folder}"))


def test_a_language_model_has_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(IrnnError, match=r"problem\.pretrained_encoder is no key of the configuration; allowed: name"):
        read_config(composed("experiment=quickstart", f"+problem.pretrained_encoder={tmp_path}"))
