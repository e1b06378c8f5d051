"""``target=... device=... out=...`` after a sub-command: Hydra overrides on ``conf/deploy.yaml``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy_tvm.remote.device import KINDS, Device, default_target, from_config
from irnn.errors import IrnnError
from irnn.extras import extra

GROUPS = ("target", "device")
LOCAL = "local"
LOCAL_KEYS = {"kind", "core"}
_OVERRIDE = re.compile(r"[+~]*[A-Za-z_][\w.@/]*=")
_OWN = re.compile(r"[+~]*(target|device|out)\b[\w.@/]*=")


@dataclass(frozen=True)
class Options:
    """The composed options: the keys of the target and of the device, and the output folder."""

    target: dict[str, Any]
    device: dict[str, Any]
    out: Path | None

    @property
    def core(self) -> int | None:
        """The core of a local device; None: the first one allowed."""
        return self.device["core"]

    @property
    def remote(self) -> Device | None:
        """The device that is not this machine; None: it is."""
        return None if self.device["kind"] == LOCAL else from_config(self.device, self.target["mcpu"])


def split(arguments: Sequence[str], *, words: bool = False) -> tuple[list[str], list[str]]:
    """(folders or words, overrides).  Among ``words`` only our own options count, elsewhere whatever has a ``=``."""
    pattern = _OWN if words else _OVERRIDE
    overrides = [a for a in arguments if pattern.match(a)]
    return [a for a in arguments if not pattern.match(a)], overrides


def compose(overrides: Sequence[str]) -> Options:
    """Compose ``conf/deploy.yaml``; whatever is unknown is one line that says what is allowed.

    A device that is not this machine has a target of its own, which holds unless ``target=`` is given.
    """
    chosen = {key: value for key, _, value in (override.partition("=") for override in overrides)}
    for group in GROUPS:
        if group in chosen and chosen[group] not in available(group):
            raise IrnnError(f"{group}={chosen[group]}: unknown; allowed are {', '.join(available(group))}")
    content = _composed(overrides)
    device = _device(content["device"])
    if device["kind"] != LOCAL and "target" not in chosen:
        content = _composed([*overrides, f"target={default_target(device, available('target'))}"])
    out = content["out"]
    return Options(content["target"], device, None if out is None else Path(str(out)))


def _composed(overrides: Sequence[str]) -> dict[str, Any]:
    with extra("tvm"):
        from hydra import compose as hydra_compose
        from hydra import initialize_config_module
        from hydra.errors import HydraException
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_module(config_module="conf", version_base="1.3"):
            composed = hydra_compose("deploy", overrides=list(overrides))
        return OmegaConf.to_container(composed, resolve=True)  # type: ignore[return-value]
    except (HydraException, OmegaConfBaseException) as error:
        line = str(error).split(". To append")[0].splitlines()[0]
        raise IrnnError(
            f"cannot use the options {' '.join(overrides)}: {line}; there are target=NAME, device=NAME, out=FOLDER and "
            "the keys of conf/target and conf/device"
        ) from None


def exactly(free: list[str], problem: str, example: str) -> list[str]:
    """The one folder that a command takes; an error with an example where there are none or several."""
    if len(free) != 1:
        raise IrnnError(f"{problem}, not {len(free)}: python -m deploy_tvm {example}")
    return free


def available(group: str) -> list[str]:
    """The names in one group of ``conf/``."""
    import conf

    return sorted(path.stem for path in (Path(conf.__file__).parent / group).glob("*.yaml"))


def group_file(group: str, name: str) -> Path:
    """The file of one choice in ``conf/``."""
    import conf

    return Path(conf.__file__).parent / group / f"{name}.yaml"


def _device(device: dict[str, Any]) -> dict[str, Any]:
    kind = device.get("kind")
    if kind in KINDS:
        return device
    if kind != LOCAL:
        raise IrnnError(f"device.kind={kind}: allowed are {', '.join((LOCAL, *KINDS))}")
    unknown = sorted(set(device) - LOCAL_KEYS)
    if unknown:
        raise IrnnError(f"device.{unknown[0]}: a local device has {', '.join(sorted(LOCAL_KEYS))}")
    core = device["core"]
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if core is not None and core not in allowed:
        raise IrnnError(f"device.core={core}: allowed are null and {', '.join(map(str, allowed))}")
    return device
