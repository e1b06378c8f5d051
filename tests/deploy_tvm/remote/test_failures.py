"""Devices that fail: one line that names the cause, within the time-out, and the next run works."""

import shutil
import socket
import struct
import subprocess
import threading
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

import deploy_tvm
import irnn
from deploy_tvm import targets
from deploy_tvm.artefact.artefact import read_manifest, sha256
from deploy_tvm.remote import session
from deploy_tvm.remote.bench import bench_device
from deploy_tvm.remote.device import Device
from deploy_tvm.remote.report import report
from deploy_tvm.remote.server import serve
from deploy_tvm.remote.server.build import BINARY, server_folder
from deploy_tvm.remote.session import DeviceError
from deploy_tvm.remote.workload import Lengths
from tests.support import models, needs
from tests.support.boards import need
from tests.support.trackers import Tracker, wait_for

TIMEOUT = 3.0
# Starting the worker (it imports TVM) does not count as the device's time.
MARGIN = 60.0


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    need("host", cxx=True)
    program = irnn.convert(models.quantized(models.language_model()))
    return deploy_tvm.build(program, tmp_path_factory.mktemp("artefact") / "artefact")


@contextmanager
def server(*arguments):
    """(device, process) of a server on this machine."""
    with serve.running(serve.server_command(None), list(arguments)) as (host, port, process):
        yield Device("rpc", host=host, port=port, timeout=TIMEOUT, number=1, repeat=2, warmup=0), process


def measure(artefact, device):
    return bench_device(artefact, None, targets.find("host"), device, Lengths(tokens=20), lambda text: None)


def works(artefact, device):
    return measure(artefact, device)["mismatches"]["count"] == 0


def failure(artefact, device, pattern):
    """The message of a run that has to fail in time: within the device's own patience, and what it takes to say why."""
    start = time.monotonic()
    with pytest.raises(DeviceError, match=pattern) as caught:
        measure(artefact, device)
    assert time.monotonic() - start < device.timeout + session.AUTOPSY_SECONDS + MARGIN
    assert "\n" not in str(caught.value)
    assert device.name in str(caught.value)
    return str(caught.value)


def free_port():
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return listener.getsockname()[1]


def test_nobody_listens(artefact):
    failure(artefact, Device("rpc", host="127.0.0.1", port=free_port(), timeout=TIMEOUT), "connection refused")


def test_a_host_without_a_name(artefact):
    failure(artefact, Device("rpc", host="no-such-board.invalid", port=9090, timeout=TIMEOUT), "cannot connect")


def test_a_server_that_never_answers(artefact):
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        device = Device("rpc", host="127.0.0.1", port=silent.getsockname()[1], timeout=TIMEOUT)
        failure(artefact, device, "no answer within 3 s while connecting")


def test_a_wrong_key_and_then_the_right_one(artefact):
    with server("--key", "pixel") as (device, _):
        failure(artefact, replace(device, key="nexus"), "does not serve the key 'nexus'")
        assert works(artefact, replace(device, key="pixel"))


def test_another_version_of_tvm(artefact, tmp_path, monkeypatch):
    folder = shutil.copytree(server_folder("x86_64-linux-gnu"), tmp_path / "server")
    version = read_manifest(artefact)["tvm"].encode()
    other = version[:-1] + b"x"
    binary = (folder / BINARY).read_bytes()
    assert binary.count(version) >= 1
    (folder / BINARY).write_bytes(binary.replace(version, other))
    with serve.running([str(folder / BINARY)]) as (host, port, _):
        device = Device("rpc", host=host, port=port, timeout=TIMEOUT)
        failure(artefact, device, f"the device has TVM {other.decode()}, here is TVM")


def test_a_library_for_another_machine(artefact, tmp_path):
    need("aarch64")
    folder = deploy_tvm.build(irnn.load(artefact / "program"), tmp_path / "arm", target="aarch64")
    with server() as (device, _), pytest.raises(DeviceError, match="is x86_64, the library was built for aarch64"):
        bench_device(folder, None, targets.find("aarch64"), device, Lengths(tokens=20), lambda text: None)


def test_a_server_killed_in_the_middle_and_started_again(artefact):
    with server() as (device, process):
        killer = threading.Timer(0, lambda: None)

        def progress(stage):
            nonlocal killer
            if "timing, 1 of" in stage:
                killer = threading.Timer(0.1, process.kill)
                killer.start()

        slow = replace(device, repeat=10_000, cooldown=0.02)
        with pytest.raises(DeviceError, match=r"(failed|broke) while timing") as caught:
            bench_device(artefact, None, targets.find("host"), slow, Lengths(tokens=20), progress)
        killer.join()
        assert "connection refused" in str(caught.value)
    with server() as (device, _):
        assert works(artefact, device)


def test_a_program_that_crashes_is_named_and_the_server_lives_on(artefact, tmp_path):
    """The library's code is overwritten by instructions that no CPU has."""
    manifest = read_manifest(artefact)
    broken = tmp_path / manifest["library"]
    shutil.copy(artefact / manifest["library"], broken)
    table = subprocess.run(["nm", str(broken)], capture_output=True, text=True, check=True).stdout
    address = next(int(line.split()[0], 16) for line in table.splitlines() if line.endswith(" T __tvm_ffi_kernel"))
    code = bytearray(broken.read_bytes())
    code[address : address + 2] = b"\x0f\x0b"
    broken.write_bytes(code)
    with server() as (device, _):
        program = irnn.load(artefact / "program")
        job = job_for(program, broken, tmp_path)
        with pytest.raises(DeviceError, match=r"signal 4 .*choose another target"):
            session.run_job(device, job)
        assert works(artefact, device)


def job_for(program, library, folder):
    state = program.initial_state(1)
    states = {f"state_{k}": array for k, array in enumerate(state.values())}
    np.savez(folder / "in.npz", input_0=np.zeros((1, 4), np.int32), **states)
    return {
        "library": str(library), "sha256": sha256(library), "machine": "x86_64", "entry": "run", "timed_steps": 1,
        "inputs": str(folder / "in.npz"), "outputs": str(folder / "out.npz"), "steps": 4,
        "steps_a_call": 4, "walked": [True], "states": len(state),
    }  # fmt: skip


def test_a_damaged_upload_is_noticed(artefact, tmp_path):
    library = artefact / read_manifest(artefact)["library"]
    with server() as (device, _):
        job = {**job_for(irnn.load(artefact / "program"), library, tmp_path), "sha256": "0" * 64}
        with pytest.raises(DeviceError, match="arrived damaged"):
            session.run_job(device, job)


@contextmanager
def cut_after(device, limit):
    """A way to ``device`` that breaks after ``limit`` bytes towards it: the device behind it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, sink, left):
        with suppress(OSError):
            while left > 0 and (data := source.recv(min(left, 4096))):
                sink.sendall(data)
                left -= len(data)
        for end in (source, sink):
            with closing(end), suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            there = socket.create_connection((device.host, device.port))
            for ends in ((client, there, limit), (there, client, 1 << 40)):
                threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with closing(listener):
        yield replace(device, port=listener.getsockname()[1])


def test_an_upload_that_is_cut_short(artefact):
    size = (artefact / read_manifest(artefact)["library"]).stat().st_size
    with server() as (device, _):
        with cut_after(device, size // 2) as fragile:
            failure(artefact, fragile, "while uploading.*the connection was cut")
        assert works(artefact, device)


def test_a_busy_device(artefact):
    """One session at a time: the second client is told after its time-out, the device is free again afterwards."""
    with server() as (device, _):
        with closing(socket.create_connection((device.host, device.port))) as first:
            key = b"client:"
            first.sendall(struct.pack("<ii", 0xFF271, len(key)) + key)
            assert struct.unpack("<i", first.recv(4))[0] == 0xFF271
            failure(artefact, device, "busy with another session")
        assert works(artefact, device)


def need_tvms_own(*modules):
    needs.packages("dev", *modules)


@pytest.mark.slow
def test_tvms_own_server_cannot_describe_itself(artefact):
    """The upload is verified by reading it back; what needs our server is refused in words."""
    need_tvms_own("cloudpickle", "psutil")
    from tvm import rpc

    own = rpc.Server("127.0.0.1", 9400, 9499, key="board", silent=True)
    try:
        device = Device("rpc", host="127.0.0.1", port=own.port, key="board", timeout=30, number=1, repeat=2)
        assert works(artefact, device)
        assert session.describe(device) is None
        failure(artefact, replace(device, core=0), "device.core needs our server")
        failure(artefact, replace(device, key="other"), "does not serve the key 'other'")
    finally:
        own.terminate()


@pytest.mark.slow
def test_tvms_own_tracker(artefact):
    need_tvms_own("tornado", "cloudpickle", "psutil")
    from tvm.rpc.tracker import Tracker as OwnTracker

    own = OwnTracker("127.0.0.1", 9500, 9599, silent=True)
    try:
        device = Device("tracker", host="127.0.0.1", port=own.port, key="pixel", timeout=30, number=1, repeat=2)
        failure(artefact, device, "no device is registered")
        with server("--key", "pixel", "--tracker", f"127.0.0.1:{own.port}"):
            assert works(artefact, device)
            assert works(artefact, device)
    finally:
        own.terminate()


def tracked(tracker):
    return Device("tracker", host="127.0.0.1", port=tracker.port, key="pixel", timeout=TIMEOUT, number=1, repeat=2)


def test_a_tracker_with_two_servers_of_which_one_is_killed(artefact):
    with closing(Tracker()) as tracker:
        device = Device(
            "tracker", host="127.0.0.1", port=tracker.port, key="pixel", timeout=TIMEOUT, number=1, repeat=2
        )
        failure(artefact, device, "no device is registered")
        arguments = ("--key", "pixel", "--tracker", f"127.0.0.1:{tracker.port}")
        with server(*arguments) as (one, first), server(*arguments) as (two, second):
            wait_for(lambda: len(tracker.offers) == 2)
            failure(artefact, replace(device, key="nexus"), "no device with the key 'nexus': it knows pixel")
            assert works(artefact, device)
            processes = {one.port: first, two.port: second}
            killed = []

            def progress(stage):
                if "timing, 1 of" in stage and not killed:
                    # Whose offer is missing is at work.
                    (busy,) = set(processes) - {offer[2][1] for offer in tracker.offers}
                    killed.append(busy)
                    processes[busy].kill()

            wait_for(lambda: len(tracker.offers) == 2)
            slow = replace(device, repeat=10_000, cooldown=0.02)
            with pytest.raises(DeviceError, match=r"at 127.0.0.1:\d+: .*while timing") as caught:
                bench_device(artefact, None, targets.find("host"), slow, Lengths(tokens=20), progress)
            assert f"127.0.0.1:{killed[0]}" in str(caught.value)
            # The other server saw no failure, and is not taken for the one that was killed.
            assert "afterwards the tracker gave another device at 127.0.0.1:" in str(caught.value)
            wait_for(lambda: len(tracker.servers) == 1)
            assert works(artefact, device)


def _text(shown):
    console = Console(width=300)
    with console.capture() as captured:
        console.print(shown)
    return captured.get()


def test_times_of_two_devices_of_a_tracker_are_told_apart(artefact, tmp_path):
    folder = deploy_tvm.build(irnn.float_program(models.language_model()), tmp_path / "float")
    with closing(Tracker()) as tracker:
        arguments = ("--key", "pixel", "--tracker", f"127.0.0.1:{tracker.port}")
        with server(*arguments) as (one, _), server(*arguments) as (two, _):
            wait_for(lambda: len(tracker.offers) == 2)
            given = tracked(tracker), Lengths(tokens=20), lambda text: None
            result = bench_device(artefact, str(folder), targets.find("host"), *given)
            assert set(result["device"]["servers"]) == {f"127.0.0.1:{one.port}", f"127.0.0.1:{two.port}"}
            assert "the tracker gave 2 devices (127.0.0.1:" in _text(report(result))
            wait_for(lambda: len(tracker.offers) == 2)
            alone = bench_device(artefact, None, targets.find("host"), *given)
            assert len(alone["device"]["servers"]) == 1
            assert "the tracker gave" not in _text(report(alone))


def test_a_server_finds_a_tracker_that_was_restarted(artefact):
    tracker = Tracker()
    with server("--key", "pixel", "--tracker", f"127.0.0.1:{tracker.port}"):
        wait_for(lambda: tracker.offers)
        tracker.close()
        for connection in list(tracker.servers):
            connection.shutdown(socket.SHUT_RDWR)
        wait_for(lambda: not tracker.servers)
        tracker.listener = socket.create_server(("127.0.0.1", tracker.port))
        threading.Thread(target=tracker.accept, daemon=True).start()
        with closing(tracker):
            wait_for(lambda: tracker.offers)
            assert works(artefact, replace(tracked(tracker), timeout=20))
