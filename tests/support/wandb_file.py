"""What an offline run of Weights & Biases has written: records of protocol buffers in LevelDB's log format."""

import struct
import time
from pathlib import Path
from typing import Any

_BLOCK = 32768
_FULL, _LAST = 1, 4


def records(path: Path) -> list[Any]:
    """The records of a `.wandb` file whose run has ended: its service may still be writing the last of them."""
    deadline = time.monotonic() + 30
    while True:
        found = _records(path.read_bytes())
        if found and found[-1].HasField("exit"):
            return found
        assert time.monotonic() < deadline, f"{path} has no end"
        time.sleep(0.1)


def _records(content: bytes) -> list[Any]:
    """The whole records of a log."""
    from wandb.proto.wandb_internal_pb2 import Record

    assert content[:4] in (b"", b":W&B")
    found, place, whole = [], 7, b""
    while place + 7 <= len(content):
        left = _BLOCK - place % _BLOCK
        if left < 7:  # a header is never cut
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        place += 7 + length
        if place > len(content):
            break
        whole += content[place - length : place]
        if kind in (_FULL, _LAST):
            record = Record()
            record.ParseFromString(whole)
            found.append(record)
            whole = b""
    return found
