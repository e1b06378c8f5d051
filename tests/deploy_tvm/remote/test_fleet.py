"""Several devices of a tracker's key at once: each keeps its device, the spread is that of their figures."""

import json
from contextlib import ExitStack, closing

import pytest

import deploy_tvm
import irnn
from deploy_tvm import targets
from deploy_tvm.__main__ import main
from deploy_tvm.remote import fleet
from deploy_tvm.remote.device import Device
from deploy_tvm.remote.fleet import Fleet, bench_devices, spread_of
from deploy_tvm.remote.server import serve
from deploy_tvm.remote.session import DeviceError
from deploy_tvm.remote.workload import Lengths
from irnn.errors import IrnnError
from tests.support import models
from tests.support.boards import need
from tests.support.trackers import Tracker, wait_for

KEY = "pixel"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run's folder: both artefacts beside each other."""
    need("host", cxx=True)
    model = models.language_model()
    place = tmp_path_factory.mktemp("run")
    deploy_tvm.build(irnn.float_program(model), place / "float_artefact")
    return deploy_tvm.build(irnn.convert(models.quantized(model)), place / "artefact")


@pytest.fixture
def tracker():
    with closing(Tracker()) as started:
        yield started


@pytest.fixture
def boards(tracker):
    """Starts so many servers, and gives their addresses."""
    with ExitStack() as stack:

        def start(count):
            arguments = ["--key", KEY, "--tracker", f"127.0.0.1:{tracker.port}"]
            started = [stack.enter_context(serve.running(serve.server_command(None), arguments)) for _ in range(count)]
            wait_for(lambda: len(tracker.offers) == count)
            return {f"127.0.0.1:{port}" for _, port, _ in started}

        yield start


def device(tracker, count):
    return Device(
        "tracker", host="127.0.0.1", port=tracker.port, key=KEY, timeout=20, number=1, repeat=2, warmup=0, count=count
    )


def test_the_bench_command_measures_two_boards_and_their_spread(folder, tracker, boards, tmp_path, capsys):
    addresses = boards(2)
    arguments = ["device=tracker", "device.host=127.0.0.1", f"device.port={tracker.port}", f"device.key={KEY}"]
    few = ["device.count=2", "device.number=1", "device.repeat=2", "target=host", "--tokens", "12"]
    assert main(["bench", str(folder), *arguments, *few, "--json", str(tmp_path / "out.json")]) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert set(result["boards"]) == addresses
    one = 12 * models.VOCABULARY + 2 * 24
    for board in result["boards"].values():
        assert board["mismatches"] == {"count": 0, "compared": one}
        assert board["us_per_token"] > 0
        assert board["float"]["us_per_token"] > 0
    assert result["mismatches"] == {"count": 0, "compared": 2 * one}
    times = sorted(board["us_per_token"] for board in result["boards"].values())
    found = result["spread"]["us_per_token"]
    assert [found["min"], found["max"]] == times
    assert found["spread"] == pytest.approx((times[1] - times[0]) / (sum(times) / 2), abs=1e-4)
    printed = capsys.readouterr().out
    assert "host on 2 devices of tracker 127.0.0.1:" in printed
    assert f"0 mismatches with the interpreter in {2 * one} integers (12 tokens each)" in printed
    wait_for(lambda: len(tracker.offers) == 2)  # both are free again


def test_a_board_keeps_its_device_where_the_tracker_has_more(folder, tracker, boards):
    """Two of three: every session of a board goes to one device, and the third is offered again in the end."""
    addresses = boards(3)
    result = bench_devices(folder, None, targets.find("host"), device(tracker, 2), Lengths(tokens=8), lambda text: None)
    assert len(result["boards"]) == 2
    assert set(result["boards"]) < addresses
    assert all("float" in board for board in result["boards"].values())
    wait_for(lambda: len(tracker.offers) == 3)


def test_more_boards_than_devices_are_one_line(folder, tracker, boards):
    boards(1)
    with pytest.raises(DeviceError, match=r"device\.count=2, but it has 1 such devices; lower it"):
        bench_devices(folder, None, targets.find("host"), device(tracker, 2), Lengths(tokens=8), lambda text: None)
    with pytest.raises(IrnnError, match=r"device\.count=2: only a tracker has several devices"):
        Device("rpc", host="board", port=9090, count=2)
    with pytest.raises(IrnnError, match=r"device\.count=0: must lie in 1 to 256"):
        Device("tracker", host="board", port=9190, key=KEY, count=0)


def test_devices_are_never_shared_and_never_swapped(monkeypatch):
    """Whatever order the tracker hands them out in."""
    offered = [("a", 1, "x"), ("b", 1, "y"), ("c", 1, "z"), ("b", 1, "y2"), ("a", 1, "x2"), ("b", 1, "y3")]
    monkeypatch.setattr(fleet, "_asked", lambda device: offered.pop(0))
    taken = Fleet(Device("tracker", host="t", port=1, key=KEY, count=2))
    assert [taken.reserve(board) for board in (0, 1)] == [("a", 1, "x"), ("b", 1, "y")]
    assert taken.reserve(0) == ("a", 1, "x2")  # c and b were offered before
    assert taken.reserve(1) == ("b", 1, "y2")
    assert taken.reserve(1) == ("b", 1, "y3")
    assert taken._kept == [("c", 1, "z")]


def test_the_spread_is_that_of_times_and_rates_alone():
    parts = [{"us_per_step": t, "float": {"us_per_step": 3.0}, "bytes": 7, "emulated": False} for t in (2.0, 4.0, 3.0)]
    assert spread_of(parts) == {
        "us_per_step": {"min": 2.0, "median": 3.0, "max": 4.0, "spread": 0.6667},
        "float/us_per_step": {"min": 3.0, "median": 3.0, "max": 3.0, "spread": 0.0},
    }
    # A rate that an emulated board does not have is none of all.
    assert "tokens_per_second" not in spread_of([{"tokens_per_second": 2.0}, {"tokens_per_second": None}])
