"""Devices as configuration: ``conf/device/{rpc,tracker,emulated}.yaml``."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, fields
from typing import Any

from deploy_tvm.remote import emulated
from irnn.errors import IrnnError

KINDS = ("rpc", "tracker", "emulated")
DEFAULT_CPU = "cortex-a76"
MAX_SECONDS, MAX_COUNT, MAX_FLEET = 86_400, 1_000_000, 256


@dataclass(frozen=True)
class Device:
    """A device and how it is measured.

    timeout: seconds after which a device that does not answer is given up.  number calls a measurement, ``repeat``
    measurements after ``warmup`` calls, ``cooldown`` seconds before each.  core: pinned to it (our server only).
    count: so many devices of a tracker at once.
    """

    kind: str
    host: str | None = None
    port: int | None = None
    key: str = ""
    cpu: str | None = None
    timeout: float = 30.0
    core: int | None = None
    number: int = 10
    repeat: int = 20
    warmup: int = 3
    cooldown: float = 0.0
    count: int = 1

    def __post_init__(self) -> None:
        if self.kind in ("rpc", "tracker") and not self.host:
            fallback = " (or the environment variable TVM_TRACKER_HOST)" * (self.kind == "tracker")
            raise IrnnError(f"device={self.kind} needs device.host=NAME_OR_ADDRESS{fallback}")
        if self.kind == "tracker" and not self.key:
            raise IrnnError("device=tracker needs device.key=KEY (or the environment variable TVM_TRACKER_KEY)")
        if self.kind != "emulated" and not 1 <= (self.port or 0) <= 65535:
            raise IrnnError(f"device.port={self.port}: must lie in 1 to 65535")
        for name, low, high in (
            ("timeout", 1, MAX_SECONDS), ("number", 1, MAX_COUNT), ("repeat", 1, MAX_COUNT), ("warmup", 0, MAX_COUNT),
            ("count", 1, MAX_FLEET), ("cooldown", 0, MAX_SECONDS), ("core", 0, 4095),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise IrnnError(f"device.{name}={value}: must lie in {low} to {high}")
        if self.count > 1 and self.kind != "tracker":
            raise IrnnError(f"device.count={self.count}: only a tracker has several devices (device=tracker)")
        if self.cpu is not None and self.cpu not in emulated.CPUS:
            raise IrnnError(f"device.cpu={self.cpu}: allowed are {', '.join(emulated.CPUS)}")

    @property
    def emulated(self) -> bool:
        """Whether its times say nothing about a device."""
        return self.kind == "emulated"

    @property
    def name(self) -> str:
        """For messages and tables."""
        if self.kind == "emulated":
            return f"emulated {self.cpu}"
        served = f" (key {self.key})" if self.key else ""
        return f"{'tracker ' if self.kind == 'tracker' else ''}{self.host}:{self.port}{served}"


def default_target(config: dict[str, Any], known: list[str]) -> str:
    """The target of a device's configuration where no ``target=`` was given, one of ``known``."""
    if config.get("target"):
        return config["target"]
    if config.get("cpu") == emulated.CPU32:
        return "armv7a"
    own = str(config.get("cpu") or DEFAULT_CPU).replace("-", "_")
    return own if own in known else "aarch64"


def from_config(config: dict[str, Any], mcpu: str) -> Device:
    """The device of a configuration, for a target's ``mcpu``; a wrong value is one line."""
    allowed = {f.name: str(f.type) for f in fields(Device)}
    values = {name: value for name, value in config.items() if name != "target"}
    unknown = sorted(set(values) - set(allowed))
    if unknown:
        raise IrnnError(f"device.{unknown[0]}: a {config.get('kind')} device has {', '.join(sorted(allowed))}")
    if values.get("kind") == "emulated" and values.get("cpu") is None:
        values["cpu"] = emulated.cpu_of(mcpu)
        if values["cpu"] not in emulated.CPUS:
            raise IrnnError(f"no emulated board has a {mcpu}: choose target=aarch64, armv7a or another ARM under Linux")
    for name, value in values.items():
        values[name] = _typed(name, value, allowed[name])
    return Device(**{name: value for name, value in values.items() if value is not None})


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _typed(name: str, value: Any, kind: str) -> Any:
    if value is None:
        return None
    wanted = int if kind.startswith("int") else float if kind.startswith("float") else str
    # Environment variables and keys of digits arrive as the other type.
    try:
        if isinstance(value, bool) or (wanted is int and isinstance(value, float)):
            raise ValueError
        return wanted(value)
    except (TypeError, ValueError):
        raise IrnnError(f"device.{name}={value}: must be {'a number' if wanted is not str else 'text'}") from None
