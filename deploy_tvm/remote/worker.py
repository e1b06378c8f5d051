"""One session with a device, in a process of its own: ``python -m deploy_tvm.remote.worker JOB.json``.

TVM's client waits for ever for a device that has vanished, and may abort when a connection breaks; the parent
(``session``) reads one JSON line a stage and ends this process when none comes within the device's time-out.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from deploy_tvm.remote.tracker import RefusedError, ask_tracker, reason

DESCRIBE, SHA256, PIN = "irnn.device.describe", "irnn.device.sha256", "irnn.device.pin"
SAVED = "timed"


def say(**line: Any) -> None:
    """One line to the parent."""
    print(json.dumps(line), flush=True)


def main(arguments: list[str]) -> None:
    """Run the job; the last line is ``{"result": ...}`` or ``{"error": ...}``."""
    job: dict[str, Any] = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    # TVM imports PyTorch where it finds it: seconds, for nothing that a session needs.
    sys.modules["torch"] = None  # type: ignore[assignment]
    import tvm  # noqa: F401  (now, before the device's time-out counts)

    say(stage="connecting")
    try:
        session = connect(job["device"], job.get("reserved"))
        peer = describe(session)
        result = {"device": peer} if job["library"] is None else measure(session, peer, job)
        say(result=result)
    except RefusedError as error:
        say(error=str(error), known=True)
    except Exception as error:
        text = str(error).strip()
        # TVM puts its traceback in front of the message.
        say(error=(text.splitlines()[-1] if text else repr(error)), known=False)


def connect(device: dict[str, Any], reserved: list[Any] | None) -> Any:
    """A TVM RPC session with ``device`` (host, port, key, tracker, timeout), where the tracker has been asked for it
    with what it said (``ask_tracker``)."""
    from tvm import rpc

    host, port, key = device["host"], device["port"], device["key"]
    if device["kind"] == "tracker":
        host, port, key = reserved or ask_tracker(host, port, key, device["timeout"])
        say(stage="connecting", server=f"{host}:{port}")
    else:
        try:
            socket.create_connection((host, port), device["timeout"]).close()
        except OSError as error:
            raise RefusedError(reason(error)) from None
    try:
        return rpc.connect(host, port, key)
    except Exception as error:
        text = str(error)
        if "mismatch" in text.lower() and "version" in text.lower():
            raise RefusedError(
                f"it speaks another version of TVM's RPC protocol than TVM {_tvm_version()} here: install the same "
                "TVM on both sides"
            ) from None
        if "key" in text.lower() or "mismatch" in text.lower():
            raise RefusedError(
                f"it does not serve the key {device['key']!r}: give the server's --key as device.key"
            ) from None
        raise


def describe(session: Any) -> dict[str, Any] | None:
    """What our server tells of its device; None on TVM's own server."""
    try:
        function = session.get_function(DESCRIBE)
    except Exception:
        return None
    return json.loads(str(function()))


def measure(session: Any, peer: dict[str, Any] | None, job: dict[str, Any]) -> dict[str, Any]:
    """Upload, verify, run the golden sequence, time."""
    from tvm.runtime.vm import VirtualMachine

    device = session.cpu(0)
    if peer is not None and peer["tvm"] != _tvm_version():
        raise RefusedError(
            f"the device has TVM {peer['tvm']}, here is TVM {_tvm_version()}: build its server again (python -m "
            "deploy_tvm serve)"
        )
    if peer is not None and peer["machine"] != job["machine"]:
        raise RefusedError(
            f"the device is {peer['machine']}, the library was built for {job['machine']}: choose another target="
        )
    if job["device"]["core"] is not None:
        if peer is None:
            raise RefusedError("device.core needs our server on the device; this is TVM's own, which cannot pin")
        session.get_function(PIN)(job["device"]["core"])
    library = Path(job["library"])
    say(stage="uploading", bytes=library.stat().st_size)
    session.upload(str(library))
    say(stage="verifying the upload")
    verify(session, peer, library.name, job["sha256"])
    say(stage="loading the library")
    machine = VirtualMachine(session.load_module(library.name), device)
    arrays = dict(np.load(job["inputs"], allow_pickle=False))
    inputs = [arrays[f"input_{k}"] for k in range(len(job["walked"]))]
    states = [arrays[f"state_{k}"] for k in range(job["states"])]
    run_golden(machine, job, device, inputs, states)
    us = time_call(machine, job, device, inputs, states)
    peak = None
    if peer is not None:
        peak = json.loads(str(session.get_function(DESCRIBE)()))["memory_peak"]
    return {"device": peer, "us": us, "memory_peak": peak}


def verify(session: Any, peer: dict[str, Any] | None, name: str, expected: str) -> None:
    """Compare the uploaded file's sha256: our server computes it, from TVM's own the file comes back."""
    import hashlib

    if peer is not None:
        found = str(session.get_function(SHA256)(name))
    else:
        found = hashlib.sha256(bytes(session.download(name))).hexdigest()
    if found != expected:
        raise RefusedError(f"{name} arrived damaged (its sha256 differs): try again")


def run_golden(
    machine: Any, job: dict[str, Any], device: Any, inputs: list[np.ndarray], states: list[np.ndarray]
) -> None:
    """Run all steps in chunks, the states stay on the device; outputs and last states go to ``job["outputs"]``.

    A program of which parts of a sequence can be run gives outputs along time.
    """
    import tvm

    entry, steps, at_once = job["entry"], job["steps"], job["steps_a_call"]
    current = [tvm.runtime.tensor(state, device) for state in states]
    # What does not walk along time is sent once.
    fixed = [None if walked else tvm.runtime.tensor(x, device) for x, walked in zip(inputs, job["walked"], strict=True)]
    chunks = []
    for start in range(0, steps, at_once):
        say(stage=f"running the golden sequence, {start} of {steps} steps")
        given = [
            tvm.runtime.tensor(np.ascontiguousarray(x[:, start : start + at_once]), device) if whole is None else whole
            for x, whole in zip(inputs, fixed, strict=True)
        ]
        machine.set_input(entry, *given, *current)
        machine.invoke_stateful(entry)
        results = list(machine.get_outputs(entry))
        current = results[len(results) - len(states) :]
        chunks.append([output.numpy() for output in results[: len(results) - len(states)]])
    outputs = chunks[0] if len(chunks) == 1 else [np.concatenate(parts, 1) for parts in zip(*chunks, strict=True)]
    last = {f"state_{k}": state.numpy() for k, state in enumerate(current)}
    np.savez(job["outputs"], **{f"output_{k}": output for k, output in enumerate(outputs)}, **last)


def time_call(
    machine: Any, job: dict[str, Any], device: Any, inputs: list[np.ndarray], states: list[np.ndarray]
) -> list[float]:
    """Microseconds of a call of ``timed_steps``: ``repeat`` averages over ``number`` calls, by the device's clock."""
    import tvm

    settings = job["device"]
    first = [
        np.ascontiguousarray(x[:, : job["timed_steps"]]) if walked else x
        for x, walked in zip(inputs, job["walked"], strict=True)
    ]
    machine.save_function(job["entry"], SAVED, *(tvm.runtime.tensor(a, device) for a in (*first, *states)))
    say(stage="warming up")
    if settings["warmup"]:
        machine.time_evaluator(SAVED, device, number=settings["warmup"], repeat=1)()
    us = []
    for done in range(settings["repeat"]):
        time.sleep(settings["cooldown"])
        say(stage=f"timing, {done} of {settings['repeat']} measurements")
        us.append(machine.time_evaluator(SAVED, device, number=settings["number"], repeat=1)().mean * 1e6)
    return us


def _tvm_version() -> str:
    import tvm

    return tvm.__version__


if __name__ == "__main__":
    main(sys.argv[1:])
