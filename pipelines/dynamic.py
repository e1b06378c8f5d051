"""`python -m pipelines.dynamic`: dynamic evaluation of a run's float network, beside its static one.

Arguments are those of `run.py`, and `rate=0.002 decay=0.02 epsilon=0.001 steps=5` (`irnn.dynamic_evaluation`) and
`tokens=N`, of each text the first N alone.

The run's matched float network is trained where it has not been, and its perplexity of the validation and the test text
is measured twice, each as one stream: with its weights as they are (static), and learning as it reads (dynamic). Both
are written beside its stage as `dynamic.json`. Integer programs have a static perplexity alone, that of `run.py`.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from itertools import islice
from typing import Any

from irnn.errors import IrnnError
from irnn.extras import extra

# Batches of the training text whose gradients say how large gradients are.
_BATCHES = 50
_STAGE = "float_matched"


def main(arguments: list[str]) -> int:
    """Exit code: 0, 1 for bad input (one line on stderr)."""
    try:
        with extra("train"):
            from pipelines.composed import compose_run
            from pipelines.core.manifest import write_json
            from pipelines.core.plan import plan
            from pipelines.core.stages import run_stages, stages_until
            from pipelines.core.training import Training
            from pipelines.run import problem_of
            from pipelines.watch.console import console
        settings, tokens = _settings({})
        names = [field.name for field in dataclasses.fields(settings)]
        config, own = compose_run(arguments, [*names, "tokens"])
        settings, tokens = _settings(own)
        if config.problem.name != "language_model":
            raise IrnnError(
                f"problem={config.problem.name}: only the text of problem=language_model is read dynamically"
            )
        problem = problem_of(config)
        stages = stages_until(plan(config, problem), _STAGE)
        run_stages(stages)
        model = Training(config, problem).trained_model(stages[-1])
        found = _measured(problem, model, settings, tokens)
        console.print_json(data=found)
        write_json(stages[-1].folder / "dynamic.json", found)
    except IrnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _settings(own: dict[str, Any]) -> tuple[Any, int | None]:
    """How weights move, and how many tokens of a text are read (None: all)."""
    from irnn.dynamic_evaluation import DynamicConfig
    from pipelines.sections import read_section

    defaults = dataclasses.asdict(DynamicConfig())
    tokens = own.get("tokens")
    if tokens is not None and (not isinstance(tokens, int) or tokens < 1):
        raise IrnnError(f"tokens={tokens!r}: must be a whole number, at least 1")
    given = {name: value for name, value in own.items() if name != "tokens"}
    return read_section(DynamicConfig, defaults | given, ""), tokens


def _measured(problem: Any, model: Any, settings: Any, tokens: int | None) -> dict[str, Any]:
    """Static and dynamic perplexity of both texts, each under its own key."""
    import torch

    from irnn.dynamic_evaluation import dynamic_cross_entropy, gradient_scales
    from irnn.metrics import stream_cross_entropy

    def run(ids: Any, state: Any) -> tuple[list[Any], Any]:
        with torch.no_grad():
            logits, state = model(torch.from_numpy(ids), state)
        return [logits], state

    eos = problem.corpus.vocabulary.eos
    scales = gradient_scales(model, islice(problem.batches(), _BATCHES))
    found: dict[str, Any] = {"network": _STAGE, "static": {}, "dynamic": dataclasses.asdict(settings)}
    for split in ("valid", "test"):
        text = getattr(problem.corpus, split)[:tokens]
        nats, count = stream_cross_entropy(run, text, eos)
        found["static"][f"{split}_perplexity"] = math.exp(nats / count)
        nats, count = dynamic_cross_entropy(model, text, eos, scales, settings)
        found["dynamic"][f"{split}_perplexity"] = math.exp(min(nats / count, 700))
    return found | {"tokens": tokens}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
