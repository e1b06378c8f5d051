"""A process that trains with another one: `python -m pipelines.core.follow PORT RANK`, which only that one starts.

It reads the composed configuration, as JSON, from its standard input.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from typing import NoReturn

import torch
from omegaconf import OmegaConf

from irnn.errors import IrnnError
from pipelines.config import RunConfig, read_config
from pipelines.core.memory import keep_freed_memory
from pipelines.core.plan import plan
from pipelines.core.team import Follower, follower_at, launched, lost_connection, team_of
from pipelines.core.training import Training

_LOOK_SECONDS = 1.0


def _end_with(parent: int) -> None:
    """End this process once its parent is gone, whatever it waits for: Gloo gives up after half an hour."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def follow(config: RunConfig, team: Follower) -> None:
    """Train what the leader announces, until it lets go.

    An `IrnnError` is the leader's to tell.  Where the leader is gone, so is this.
    """
    _end_with(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leader's business
    keep_freed_memory()
    torch.set_num_threads(config.trainer.threads)
    try:
        problem = config.kind.open(config)
        stages = {stage.digest: stage for stage in plan(config, problem, team=team)}
        for announcement in team.announcements():
            stage = stages.get(announcement.digest)
            if stage is None:
                raise IrnnError(
                    "the processes that train together see different data or versions; all machines need the same"
                )
            assert isinstance(stage.run, Training)  # what is announced
            stage.run.follow(stage, announcement)
    except IrnnError as error:
        team.fail(str(error))
        _leave()
    except Exception as error:
        # Of a lost connection the leader tells, if it is not itself the one that is gone.
        if not (isinstance(error, RuntimeError) and lost_connection(error)):
            traceback.print_exc()
        _leave()


def _leave() -> NoReturn:
    """End without freeing anything, which may wait for ever (see `pipelines.core.team`)."""
    sys.stderr.flush()
    os._exit(1)


def follows(sweep: str | None) -> bool:
    """Whether torchrun has started this process to follow another one; in a sweep that is an `IrnnError`."""
    if not launched():
        return False
    if sweep is not None:
        raise IrnnError("torchrun starts the processes of one run, not of a sweep: give the sweep trainer.processes=N")
    return os.environ["RANK"] != "0"


def follow_launched(config: RunConfig) -> None:
    """`follow`, in a process of torchrun."""
    team = team_of(config)
    assert isinstance(team, Follower)  # who does not lead
    follow(config, team)


def main() -> None:
    """What `pipelines.core.team` starts."""
    port, rank = (int(argument) for argument in sys.argv[1:])
    config = read_config(OmegaConf.create(json.load(sys.stdin)))
    follow(config, follower_at(port, rank, config))


if __name__ == "__main__":
    main()
