"""The copy task: cross-entropy a step, and the share of the pattern's symbols that come back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from irnn.data.copy_memory import SPLITS, VOCABULARY, CopyBatch, CopyBatches, evaluation_batches
from irnn.errors import IrnnError
from irnn.metrics import cross_entropy_sum
from irnn.models.language_model import LanguageModel, LanguageModelConfig
from irnn.program import Program, equality
from pipelines.config import RunConfig
from pipelines.core.manifest import write_json
from pipelines.core.orthogonality import measured
from pipelines.core.problem import Score, TaskSettings, derived_seed
from pipelines.problems.copy_memory.copy_task import CopyTask
from pipelines.sections import architecture_inputs, read_section

SYMBOLS_FILE = "symbols.json"
_EXAMPLES = 3
# Of the timing: both libraries take turns, a second each in all.
_ROUNDS = 20
_SECONDS = 1.0

# ids [batch, steps] -> real logits [batch, steps, symbols]
Logits = Callable[[torch.Tensor], torch.Tensor]


class CopyProblem:
    """A generated task and a network that reads and writes symbols; see `pipelines.core.problem.Problem`."""

    def __init__(self, config: RunConfig) -> None:
        self.seed, self.data = config.seed, config.data
        self.batch_size, self.compared = config.evaluation.batch_size, config.evaluation.interpreter_sequences
        if "vocabulary_size" in config.model:
            raise IrnnError("model.vocabulary_size follows from the task; leave it out")
        model = {**config.model, "vocabulary_size": len(VOCABULARY)}
        self.architecture = read_section(LanguageModelConfig, model, "model.")
        if (count := self.architecture.softmaxes) > 1:
            raise IrnnError(
                f"model.softmaxes={count}: recalled symbols are read off integers, a mixture has none; take 1"
            )
        task = {"delay": self.data.delay, "length": self.data.length}
        self.origin = {"model": architecture_inputs(self.architecture), "data": task}
        self.evaluation = {"compared": self.compared, "sequences": self.data.evaluation_sequences}

    def batching(self, stage: str) -> dict[str, Any]:
        """See `Problem`."""
        return {"batch_size": self.data.batch_size, "train_sequences": self.data.train_sequences}

    def build(self) -> LanguageModel:
        """See `Problem`."""
        return LanguageModel(self.architecture)

    def calibration(self) -> Iterable[torch.Tensor]:
        """See `Problem`."""
        # One: every sequence starts at zero, and calibration carries the state from one batch to the next.
        seed = derived_seed(self.seed, "calibration", 0)
        return (batch.ids for batch in CopyBatches(self.data, self.data.batch_size, self.data.batch_size, seed))

    def task(self, model: LanguageModel, settings: TaskSettings) -> CopyTask:
        """See `Problem`."""
        return CopyTask(model, settings, self.data, derived_seed(self.seed, f"{settings.stage} batches", 0))

    @torch.no_grad()
    def score(self, model: LanguageModel, folder: Path) -> Score:
        """Cross-entropy and recall of dev and test."""
        return Score(self._figures(lambda ids: model(ids)[0]))

    def metadata(self) -> dict[str, Any]:
        """The task that the program was made for."""
        return {"delay": self.data.delay, "length": self.data.length}

    def save_vocabulary(self, folder: Path) -> None:
        """What the ids stand for, in their order."""
        write_json(folder / SYMBOLS_FILE, list(VOCABULARY))

    def bench(self, program: Program, artefacts: Mapping[str, Path]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Time a step of a stream through both libraries, one step a call, one thread."""
        from deploy_tvm.bench.measure import Case, Settings, measure

        case = Case.random(program, None, dict(artefacts), {"time": 1}, "step")
        measured = measure(case, Settings(rounds=_ROUNDS, seconds=_SECONDS), lambda text: None)
        return {"us_per_step": measured["us"]}, {name: measured[name] for name in ("spread", "machine", "measured")}

    @torch.no_grad()
    def evaluate(
        self, program: Program, model: LanguageModel, runner: Any | None, baseline: Path, folder: Path
    ) -> Score:
        """QAT, interpreter and TVM are compared on the first sequences of dev and test; all are scored."""
        executors = {"interpreter_vs_qat": model.frozen(), "tvm_vs_interpreter": runner}
        mismatches = {
            name: None if executor is None else self._mismatch(program, executor)
            for name, executor in executors.items()
        }
        executor = model.frozen() if runner is None else runner

        def logits(ids: torch.Tensor) -> torch.Tensor:
            (found,), _ = executor.run_all(ids.numpy())
            return torch.as_tensor(found) * program.logits_scale

        metrics = {
            "mismatches": mismatches,
            **self._figures(logits),
            "baseline": {"test_cross_entropy": self.data.baseline},
            "examples": self._examples(logits),
        }
        orthogonal = measured(model, folder)
        return Score(metrics | orthogonal.metrics, orthogonal.files)

    def _mismatch(self, program: Program, executor: Any) -> dict[str, int]:
        """Integers of logits and states that differ from the interpreter's."""
        found = equality.Comparison()
        for split in SPLITS:
            for batch in evaluation_batches(self.data, split, self.compared, self.compared):
                ours, theirs = (equality.named(program, *one.run_all(batch.ids.numpy())) for one in (executor, program))
                found += equality.compare("the executor", ours, theirs)
        return found.figures()

    def _figures(self, logits: Logits) -> dict[str, float]:
        figures = {}
        for split in SPLITS:
            nats, right, count = 0.0, 0, 0
            for batch in evaluation_batches(self.data, split, self.batch_size):
                found = logits(batch.ids)
                nats += cross_entropy_sum(found.flatten(0, 1), batch.targets.flatten().numpy())
                right += int((self._recalled(found) == batch.targets[:, -self.data.length :]).sum())
                count += len(batch.ids)
            figures[f"{split}_cross_entropy"] = nats / (count * self.data.steps)
            figures[f"{split}_recall"] = right / (count * self.data.length)
        return figures

    def _recalled(self, logits: torch.Tensor) -> torch.Tensor:
        """What stands where the pattern is to come back: int64 ``[batch, length]``."""
        return logits[:, -self.data.length :].argmax(-1)

    def _examples(self, logits: Logits) -> list[dict[str, str]]:
        """Patterns of the test split, what was wanted, and what the integers say."""
        batch: CopyBatch = next(iter(evaluation_batches(self.data, "test", _EXAMPLES, _EXAMPLES)))
        rows = zip(batch.ids, batch.targets, self._recalled(logits(batch.ids)), strict=True)
        length = self.data.length
        return [
            {"input": _shown(ids[:length]), "target": _shown(targets[-length:]), "output": _shown(output)}
            for ids, targets, output in rows
        ]


def _shown(ids: torch.Tensor) -> str:
    return " ".join(map(str, ids.tolist()))
