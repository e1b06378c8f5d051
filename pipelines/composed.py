"""The configuration of commands beside `run.py` that take its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from irnn.errors import IrnnError
from pipelines.config import RunConfig, read_config


def compose_run(arguments: Sequence[str], own: Sequence[str]) -> tuple[RunConfig, dict[str, Any]]:
    """(the run's configuration, values of the command's `own` keys); bad arguments are an `IrnnError`."""
    mine = [argument for argument in arguments if argument.partition("=")[0] in own]
    try:
        given = OverridesParser.create().parse_overrides(mine)
        with initialize_config_module("conf", version_base="1.3"):
            composed = compose("config", [argument for argument in arguments if argument not in mine])
    except HydraException as error:
        raise IrnnError(f"{' '.join(arguments)}: {str(error).splitlines()[0]}") from None
    return read_config(composed, None), {str(override.key_or_group): override.value() for override in given}
