"""Training stages: resume is exact, seeds and modes are right, sweeps share what they can."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import irnn
from irnn.errors import IrnnError
from pipelines.config import RunConfig, read_config
from pipelines.core import checkpoints, deploy, problem
from pipelines.core.checkpoints import load_weights
from pipelines.recipe import QAT_STAGES
from pipelines.run import run
from tests.support.places import ROOT
from tests.support.tiny_run import WORDS, composed, stages_of, tiny_config, tiny_overrides


@pytest.fixture(autouse=True)
def one_thread() -> object:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


# Runs in a process of its own: kills itself with SIGKILL as soon as the named stage has written its n-th checkpoint.
KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from tests.support.tiny_run import composed
from pipelines.core import checkpoints
from pipelines.config import read_config
from pipelines.recipe import QAT_STAGES
from pipelines.run import problem_of, run
save, seen = checkpoints.AtomicCheckpointIO.save_checkpoint, []
def save_and_die(self, checkpoint, path, storage_options=None):
    save(self, checkpoint, path, storage_options)
    seen.append(path)
    if sum("{stage}-" in name for name in map(str, seen)) == {count}:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoints.AtomicCheckpointIO.save_checkpoint = save_and_die
run(read_config(composed(*sys.argv[1:])))
"""


def run_and_kill(stage: str, count: int, overrides: list[str]) -> None:
    script = KILLED.format(root=str(ROOT), stage=stage, count=count)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script, *overrides], env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(
    ("stage", "checkpoint"),
    [
        pytest.param("float", 1, marks=pytest.mark.slow),
        pytest.param("float", 3, marks=pytest.mark.slow),
        ("activations", 1),
    ],
)
def test_a_killed_run_ends_bit_equal_to_an_unbroken_one(tmp_path: Path, stage: str, checkpoint: int) -> None:
    # Dropout, two epochs a stage and moving ranges: whatever could differ after a resume is in play.
    more = ["model.dropout=0.3", "recipe.activations.epochs=2", f"until={stage}"]
    unbroken = tiny_config(tmp_path / "unbroken", *more)
    run(unbroken)
    broken = tiny_overrides(tmp_path / "broken")
    run_and_kill(stage, checkpoint, [*broken, *more])
    config = tiny_config(tmp_path / "broken", *more)
    folder = stages_of(config)[stage].folder
    assert (folder / "resume.ckpt").is_file()
    assert not (folder / "manifest.json").exists()
    run(config)
    expected = load_weights(stages_of(unbroken)[stage].folder)
    resumed = load_weights(folder)
    assert expected.keys() == resumed.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, resumed[name]) or (tensor.isnan() & resumed[name].isnan()).all(), name
    manifests = [json.loads((stages_of(c)[stage].folder / "manifest.json").read_text()) for c in (unbroken, config)]
    assert manifests[0]["metrics"] == manifests[1]["metrics"]
    assert len(manifests[0]["curve"]) == manifests[0]["epochs"] > 1
    assert manifests[0]["curve"] == manifests[1]["curve"]
    assert not (folder / "resume.ckpt").exists()


def test_the_seed_decides(tmp_path: Path) -> None:
    weights = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        config = tiny_config(tmp_path / name, f"seed={seed}", "until=float", "recipe.float.epochs=1")
        run(config)
        weights[name] = load_weights(stages_of(config)["float"].folder)["decoder.weight"]
    assert torch.equal(weights["a"], weights["b"])
    assert not torch.equal(weights["a"], weights["c"])


def test_every_stage_trains_in_training_mode_from_the_previous_weights(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "until=activations", "recipe.float.epochs=1")
    run(config)
    stages = stages_of(config)
    for name in ("float", "float_matched", *QAT_STAGES):
        model = stages[name].run._starting_model(stages[name])
        assert all(module.training for module in model.modules()), name
        if name != "float":
            before = load_weights(stages[name].previous.folder)["decoder.weight"]
            assert torch.equal(model.decoder.weight, before)


def test_the_learning_rate_rises_where_it_is_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    step = torch.optim.Adam.step

    def recorded(self: torch.optim.Adam, *given: object, **named: object) -> object:
        seen.append(self.param_groups[0]["lr"])
        return step(self, *given, **named)

    monkeypatch.setattr(torch.optim.Adam, "step", recorded)
    plain = tiny_config(tmp_path, "until=float")
    warm = tiny_config(tmp_path, "recipe.pwl.warmup=0.5", "recipe.pwl.epochs=2", "until=pwl")
    run(plain)
    batches = len(seen) // plain.recipe.float.epochs
    assert set(seen) == set(plain.recipe.float.rates())
    run(warm)
    rate = warm.recipe.pwl.lr
    rising = round(0.5 * batches)
    assert 2 <= rising < batches
    expected = [rate * (k + 1) / (rising + 1) for k in range(rising)] + [rate] * (2 * batches - rising)
    assert seen[-2 * batches :] == pytest.approx(expected)
    assert seen[-2 * batches - 1] == warm.recipe.all.lr  # float_matched went before
    assert stages_of(warm)["float"].digest == stages_of(plain)["float"].digest
    assert stages_of(warm)["pwl"].digest != stages_of(tiny_config(tmp_path, "recipe.pwl.epochs=2"))["pwl"].digest


def test_the_float_stage_hands_on_the_mean_of_its_last_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    start = problem.StageTask.on_train_batch_end

    def recorded(self: problem.StageTask, *given: object) -> None:
        seen.append({name: parameter.detach().clone() for name, parameter in self.model.named_parameters()})
        return start(self, *given)

    monkeypatch.setattr(problem.StageTask, "on_train_batch_end", recorded)
    plain = tiny_config(tmp_path, "until=float")
    averaged = tiny_config(tmp_path, "recipe.float.average=1", "until=float")
    run(averaged)
    batches = len(seen) // plain.recipe.float.epochs
    handed_on = load_weights(stages_of(averaged)["float"].folder)
    for name in seen[-1]:
        mean = torch.stack([weights[name] for weights in seen[-batches:]]).double().mean(dim=0)
        assert torch.allclose(handed_on[name].double(), mean, rtol=0, atol=1e-6)
    assert max(float((handed_on[name] - seen[-1][name]).abs().max()) for name in seen[-1]) > 1e-3
    assert stages_of(averaged)["float"].digest != stages_of(plain)["float"].digest


def test_a_mean_of_weights_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    found = []
    for name in ("killed", "whole"):
        overrides = [*tiny_overrides(tmp_path / name), "until=float", "recipe.float.epochs=3", "recipe.float.average=2"]
        if name == "killed":
            run_and_kill("float", 2, overrides)
        config = read_config(composed(*overrides))
        run(config)
        found.append(load_weights(stages_of(config)["float"].folder))
    assert all(torch.equal(found[0][name], tensor) for name, tensor in found[1].items() if "observed" not in name)


def test_a_checkpoint_of_another_stage_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path, "until=float")
    save = checkpoints.AtomicCheckpointIO.save_checkpoint

    def save_and_fail(*given: object, **named: object) -> None:
        save(*given, **named)
        raise OSError("broken off")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.AtomicCheckpointIO, "save_checkpoint", save_and_fail)
        with pytest.raises(OSError, match="broken off"):
            run(config)
    checkpoint = stages_of(config)["float"].folder / "resume.ckpt"
    other = tiny_config(tmp_path, "until=float", "seed=2")
    target = stages_of(other)["float"].folder
    target.mkdir()
    (target / "resume.ckpt").write_bytes(checkpoint.read_bytes())
    with pytest.raises(IrnnError, match="the checkpoint belongs to float-"):
        run(other)
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(IrnnError, match="is not a readable checkpoint"):
        run(config)


def test_digests_share_what_does_not_depend_on_a_setting(tmp_path: Path) -> None:
    base = stages_of(tiny_config(tmp_path))

    def changed(*overrides: str) -> set[str]:
        other = stages_of(tiny_config(tmp_path, *overrides))
        return {name for name in base if base[name].digest != other[name].digest}

    everything = set(base)
    after_float = everything - {"float"}
    quantized = after_float - {"float_matched"}
    assert changed("trainer.threads=2", "trainer.progress=true", "logger=tensorboard", "name=other") == set()
    assert changed("seed=2") == changed("model.dropout=0.1") == changed("data.steps=9") == everything
    assert changed("recipe.float.epochs=4") == changed("trainer.precision=bf16") == everything
    assert changed("quant.weight=4") == quantized - {"pwl"}
    assert changed("quant.cell=12") == changed("pwl.pieces=4") == quantized
    assert changed("recipe.all.lr=0.05") == after_float - {"pwl", "weights", "activations"}
    assert changed("evaluation.interpreter_tokens=30") == {"evaluate"}


def test_an_unchanged_setting_keeps_the_trainings_made_before(tmp_path: Path) -> None:
    """Hours of training lie in folders of these names: a change of this digest throws them away."""
    assert stages_of(tiny_config(tmp_path))["float"].digest == "2b2a7c4a5196"


def test_a_diverging_training_says_so(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path, "until=float", "recipe=sgd40", "recipe.float.lr=1000", "recipe.float.final_lr=1000", "recipe.clip=1e9"
    )
    with pytest.raises(IrnnError, match=r"training has diverged; lower recipe\.float\.lr"):
        run(config)


def test_whole_run_without_tvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(deploy, "available", lambda: False)
    config = tiny_config(tmp_path, "recipe.float.epochs=1")
    results = run(config)
    printed = capsys.readouterr().out
    assert "not compiled, not timed: TVM is not installed (pip install 'irnn[tvm]')" in printed
    (folder,) = (config.output_dir / "quickstart").glob("*/")
    assert json.loads((folder / "results.json").read_text()) == results
    assert results["mismatches"]["interpreter_vs_qat"]["count"] == 0
    assert results["mismatches"]["interpreter_vs_qat"]["compared"] > 400
    assert results["mismatches"]["tvm_vs_interpreter"] is None
    assert results["stages"]["integer"] == pytest.approx(results["stages"]["all"], rel=1e-6)
    assert set(results["stages"]) == {"float", "float_matched", "pwl", "weights", "activations", "all", "integer"}
    stored = sum((folder / "program" / name).stat().st_size for name in ("program.json", "tensors.safetensors"))
    assert results["size_bytes"]["integer"] == stored
    assert {path.name for path in (folder / "program").iterdir()} == {
        "program.json", "tensors.safetensors", "vocabulary.json",
    }  # fmt: skip
    before = {path: path.stat().st_mtime_ns for path in (config.output_dir / "stages").glob("*/manifest.json")}
    assert run(config) == results
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_whole_run_with_tvm(whole_run: tuple[RunConfig, dict, Path]) -> None:
    import deploy_tvm

    config, results, folder = whole_run
    assert list((config.output_dir / "quickstart").glob("*/")) == [folder]
    assert {path.name for path in folder.iterdir()} == {
        "results.json",
        "report.html",
        "sites.json",
        "stages",
        "program",
        "float_program",
        "artefact",
    }
    for compared in ("interpreter_vs_qat", "tvm_vs_interpreter"):
        assert results["mismatches"][compared]["count"] == 0
        assert results["mismatches"][compared]["compared"] > 400
    assert results["stages"]["integer"] == pytest.approx(results["stages"]["all"], rel=1e-6)
    assert results["us_per_token"]["tvm_integer"] > 0
    assert results["us_per_token"]["tvm_float"] > 0
    program, runner = irnn.load(folder / "program"), deploy_tvm.load(folder / "artefact")
    ids = np.arange(len(WORDS))[None]
    assert np.array_equal(program.run(ids)[0], runner.run(ids)[0])
