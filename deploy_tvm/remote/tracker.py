"""What TVM's tracker is asked: which devices there are, and to hand one out for a session."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class RefusedError(Exception):
    """A cause that is known, in words for the user."""


def reason(error: OSError) -> str:
    """Why a connection could not be made."""
    if isinstance(error, TimeoutError):
        return "no answer: is the device on, and is the address right?"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: no server listens there (start one with  python -m deploy_tvm serve)"
    return f"cannot connect: {error.strerror or error}"


def ask_tracker(host: str, port: int, key: str, timeout: float) -> tuple[str, int, str]:
    """(host, port, key for one session) of a free device of kind ``key``."""
    with _asking(host, port, timeout) as ask:
        _need_key(key, _keys(ask))
        try:
            return tuple(ask("REQUEST", key, "", 1))
        except TimeoutError:
            raise RefusedError(
                f"no device with the key {key!r} became free within {timeout:g} s: all are busy"
            ) from None


def registered(host: str, port: int, key: str, timeout: float) -> int:
    """How many devices of kind ``key``, which is at least one, the tracker knows, busy ones included."""
    with _asking(host, port, timeout) as ask:
        keys = _keys(ask)
        _need_key(key, keys)
        return keys.count(key)


@contextmanager
def _asking(host: str, port: int, timeout: float) -> Iterator[Callable[..., Any]]:
    """A connection to a tracker, as a function that asks it (name of the message, its values)."""
    from tvm.rpc import base

    def ask(name: str, *values: Any) -> Any:
        base.sendjson(tracker, [getattr(base.TrackerCode, name), *values])
        status, value = base.recvjson(tracker)
        if status != base.TrackerCode.SUCCESS:
            raise RefusedError(f"the tracker refused {name}: {value}")
        return value

    try:
        tracker = socket.create_connection((host, port), timeout)
    except OSError as error:
        raise RefusedError(f"the tracker: {reason(error)}") from None
    with tracker:
        try:
            tracker.sendall(struct.pack("<i", base.RPC_TRACKER_MAGIC))
            if struct.unpack("<i", base.recvall(tracker, 4))[0] != base.RPC_TRACKER_MAGIC:
                raise RefusedError("it is no TVM tracker")
            yield ask
        except TimeoutError:
            raise RefusedError(f"the tracker does not answer within {timeout:g} s") from None
        except OSError as error:
            raise RefusedError(f"the tracker hung up: {error}") from None


def _keys(ask: Callable[..., Any]) -> list[str]:
    """The keys of all devices, sorted."""
    return sorted(info["key"].removeprefix("server:") for info in ask("SUMMARY")["server_info"])


def _need_key(key: str, keys: list[str]) -> None:
    if key not in keys:
        known = f"it knows {', '.join(dict.fromkeys(keys))}" if keys else "no device is registered"
        raise RefusedError(f"the tracker has no device with the key {key!r}: {known}")
