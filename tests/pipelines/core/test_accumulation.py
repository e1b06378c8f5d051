"""Gradients of several batches make one step, in their order."""

import json
from pathlib import Path

import pytest
import torch

from pipelines.core.checkpoints import load_weights
from pipelines.core.problem import derived_seed
from pipelines.run import problem_of, run
from tests.support.tiny_run import stages_of, tiny_config

SETTINGS = ["until=float", "recipe=sgd40", "recipe.float.epochs=2", "model.dropout=0.2"]


@pytest.fixture(autouse=True)
def one_thread() -> object:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_step_is_the_mean_gradient_of_its_batches(accumulate: int, tmp_path: Path) -> None:
    """Against the loop written out, bit for bit."""
    config = tiny_config(tmp_path, *SETTINGS, f"recipe.accumulate={accumulate}")
    run(config)
    problem, recipe = problem_of(config), config.recipe
    torch.manual_seed(derived_seed(config.seed, "initial weights", 0))
    model = problem.build().train()
    stage = stages_of(config)["float"]
    task = stage.run._task(stage, model)
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    steps = 0
    for epoch, rate in enumerate(recipe.rates("float")):
        torch.manual_seed(derived_seed(config.seed, "float", epoch))
        optimizer.param_groups[0]["lr"] = rate
        batches = list(task.train_dataloader())
        assert len(batches) % 4  # the last step of an epoch is of fewer batches
        state = None
        for number, (ids, targets) in enumerate(batches, start=1):
            loss, state = model.loss(ids, targets, state)
            (loss / accumulate).backward()
            if number % accumulate == 0 or number == len(batches):
                torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
                optimizer.step()
                optimizer.zero_grad()
                steps += 1
    found = load_weights(stage.folder)
    for name, parameter in model.named_parameters():
        assert torch.equal(found[name], parameter), name
    curve = json.loads((stage.folder / "manifest.json").read_text())["curve"]
    assert curve[-1]["step"] == steps


def test_it_is_part_of_what_a_stage_is_unless_it_is_one(tmp_path: Path) -> None:
    digests = [stages_of(tiny_config(tmp_path, f"recipe.accumulate={n}"))["float"].digest for n in (1, 2)]
    assert digests[0] == stages_of(tiny_config(tmp_path))["float"].digest
    assert digests[0] != digests[1]
