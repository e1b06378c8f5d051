"""One stage's training steps, each made when it is asked for: ``worker STAGE CORE ARGUMENTS``.

The protocol is that of ``peer_worker``.  Lightning's loop runs in a thread, which waits before every step.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from deploy_tvm.peers.peer_worker.peer_serving import Runtime, serve
from pipelines.composed import compose_run
from pipelines.core.memory import keep_freed_memory
from pipelines.core.plan import plan
from pipelines.core.training import Training
from pipelines.run import problem_of


class _Steps(Callback):
    """Hands a step's end over, and waits until another one is wanted."""

    def __init__(self) -> None:
        self._wanted, self._made = queue.SimpleQueue[bool](), queue.SimpleQueue[Exception | None]()

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        self._wanted.get()

    def on_train_batch_end(self, *arguments: Any) -> None:
        self._made.put(None)

    def ended(self, error: Exception) -> None:
        """Instead of a step."""
        self._made.put(error)

    def step(self) -> list[np.ndarray]:
        """Make one step."""
        self._wanted.put(True)
        error = self._made.get()
        if error is not None:
            raise error
        return [np.zeros(0)]


def load(stage: str, arguments: list[str]) -> Runtime:
    """The stage's network of a run with these arguments, in training."""
    config, _ = compose_run(arguments, [])
    keep_freed_memory()
    steps = _Steps()

    def train() -> None:
        torch.set_num_threads(1)
        try:
            problem = problem_of(config)
            (chosen,) = (found for found in plan(config, problem) if found.name == stage)
            Training(config, problem).keep_stepping(chosen, steps)
        except Exception as error:  # of the thread, told by the one that asks
            steps.ended(error)

    threading.Thread(target=train, daemon=True).start()
    return Runtime(steps.step, {"torch": torch.__version__})


def main(arguments: list[str]) -> None:
    """See the module."""
    stage, core, *rest = arguments
    serve(lambda: load(stage, rest), int(core) if core else None)
    os._exit(0)  # in the middle of a training


if __name__ == "__main__":
    main(sys.argv[1:])
