"""Programs on emulated boards over RPC: the same integers, and what is printed about it."""

import json
import signal
import subprocess
import sys

import pytest

import irnn
from deploy_tvm import targets
from deploy_tvm.__main__ import main
from deploy_tvm.cli import options
from deploy_tvm.remote import emulated
from deploy_tvm.remote.bench import bench_device
from deploy_tvm.remote.cache import cached
from deploy_tvm.remote.device import Device, default_target, from_config, is_loopback
from deploy_tvm.remote.server import serve
from deploy_tvm.remote.workload import Lengths
from irnn.errors import IrnnError
from tests.support import models
from tests.support.boards import need
from tests.support.interrupts import heed_interrupts

TOKENS = 24


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    model = models.language_model()
    irnn.float_program(model).save(folder / "run" / "float_program")
    irnn.convert(models.quantized(model)).save(folder / "run" / "program")
    small = irnn.QuantConfig(weight=4, embedding=4, logits_weight=4)
    irnn.convert(models.quantized(models.language_model(norm="mad"), small)).save(folder / "norm_w4")
    irnn.convert(models.quantized_layer(bidirectional=True)).save(folder / "bidirectional")
    return folder


@pytest.fixture(scope="module")
def long_programs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    models.long_programs(folder)
    return folder


def measure(folder, target, lengths=Lengths(tokens=TOKENS)):  # noqa: B008 (frozen)
    need(target, emulated.QEMU, cxx=True)
    chosen = targets.find(target)
    device = Device("emulated", cpu=emulated.cpu_of(chosen.mcpu), number=1, repeat=2, warmup=0)
    return bench_device(folder, None, chosen, device, lengths, lambda text: None)


@pytest.mark.parametrize(
    ("program", "target"),
    [("run/program", "cortex_a76"), ("norm_w4", "cortex_a53"), ("bidirectional", "cortex_a76")],
)
def test_an_emulated_board_computes_the_same_integers(programs, program, target):
    lengths = Lengths(steps=TOKENS) if program == "bidirectional" else Lengths(tokens=TOKENS)
    result = measure(programs / program, target, lengths)
    entry = result["targets"][target]
    assert entry["mismatches"]["count"] == 0
    assert entry["mismatches"]["compared"] > TOKENS * 30
    assert entry["emulated"] is True
    # A rate or a ratio of times under emulation would be taken for a device's.
    assert entry[f"{result['timed']}s_per_second"] is None
    assert "speed_up" not in entry


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cortex_a76", "cortex_a53", "aarch64"])
@pytest.mark.parametrize("program", models.LONG)
def test_two_thousand_tokens(long_programs, program, target):
    found = measure(long_programs / program, target, Lengths(tokens=2000))["targets"][target]["mismatches"]
    assert found["count"] == 0
    assert found["compared"] > 2000 * models.VOCABULARY


def test_the_bench_command_prints_a_table_and_writes_json(programs, tmp_path, capsys):
    need("cortex_a53", emulated.QEMU, cxx=True)
    arguments = ["bench", str(programs / "run" / "program"), "device=emulated", "device.cpu=cortex-a53"]
    assert main([*arguments, "--tokens", "20", "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    assert "cortex_a53 on emulated cortex-a53" in printed
    assert "say nothing about a device" in printed
    assert "0 mismatches" in printed
    result = json.loads((tmp_path / "out.json").read_text())
    entry = result["targets"]["cortex_a53"]
    assert entry["mismatches"] == {"count": 0, "compared": 20 * models.VOCABULARY + 2 * 24}
    assert entry["us_per_token"] > 0
    assert entry["emulated"] is True
    assert entry["bytes"] > 10_000
    assert entry["float"]["us_per_token"] > 0


def test_an_emulated_server_says_so_to_whoever_connects(programs, capsys):
    need("cortex_a53", emulated.QEMU, cxx=True)
    with serve.running(serve.server_command("cortex-a53")) as (host, port, _):
        device = Device("rpc", host=host, port=port, number=1, repeat=2, warmup=0)
        folder, target = programs / "run" / "program", targets.find("cortex_a53")
        result = bench_device(folder, None, target, device, Lengths(tokens=5), lambda text: None)
        assert main(["doctor", "device=rpc", f"device.host={host}", f"device.port={port}", "target=cortex_a53"]) == 0
    assert "emulated: integers count, times do not" in capsys.readouterr().out
    entry = result["targets"]["cortex_a53"]
    assert result["device"]["emulated"] is entry["emulated"] is True
    assert entry["tokens_per_second"] is entry["memory_peak"] is None
    assert "speed_up" not in entry


def test_doctor_on_a_good_and_on_a_wrong_set_up(capsys):
    need("cortex_a53", emulated.QEMU, cxx=True)
    assert main(["doctor", "device=emulated", "target=cortex_a53"]) == 0
    good = capsys.readouterr()
    assert "TVM 0." in good.out
    assert "part 0xd03" in good.out
    assert "wrong" not in good.out
    assert main(["doctor", "device=emulated", "target=cortex_a76", "device.cpu=cortex-a53"]) == 1
    bad = capsys.readouterr()
    assert "target=cortex_a76 uses dotprod, which this CPU lacks" in bad.out
    assert "1 of" in bad.err


def test_serve_listens_on_loopback_and_warns_where_it_does_not(tmp_path):
    need("host", cxx=True)
    command = [sys.executable, "-m", "deploy_tvm", "serve", "--port", "0"]
    for host, warned in (("127.0.0.1", False), ("0.0.0.0", True)):
        with open(tmp_path / "log", "w+") as log:
            process = subprocess.Popen(
                [*command, "--host", host],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                preexec_fn=heed_interrupts,
            )
            try:
                assert process.stdout.readline().startswith(f"listening on {host}:")
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(60)
                process.stdout.close()
            log.seek(0)
            assert ("whoever can reach this port can run any code" in log.read()) == warned


def test_a_server_folder_for_a_board(tmp_path, capsys):
    need("aarch64", cxx=True)
    assert main(["serve", "target=aarch64", f"out={tmp_path / 'server'}"]) == 0
    assert {path.name for path in (tmp_path / "server").iterdir()} == {
        "irnn-rpc-server", "libtvm_ffi.so", "libtvm_runtime.so", "libtvm_runtime_extra.so",
    }  # fmt: skip
    assert main(["serve", "target=aarch64", f"out={tmp_path / 'server'}"]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert main(["serve", "target=armv7a", f"out={tmp_path / 'other'}"]) == 1
    assert "bundle" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "target", "cpu"),
    [
        (["device=emulated"], "cortex_a76", "cortex-a76"),
        (["device=emulated", "device.cpu=cortex-a53"], "cortex_a53", "cortex-a53"),
        (["device=emulated", "device.cpu=neoverse-n1"], "aarch64", "neoverse-n1"),
        (["device=emulated", "target=cortex_a55"], "cortex_a55", "cortex-a76"),
        (["device=emulated", "target=aarch64"], "aarch64", "cortex-a53"),
        (["device=emulated", "target=armv7a"], "armv7a", "cortex-a7"),
        (["device=emulated", "device.cpu=cortex-a7"], "armv7a", "cortex-a7"),
        (["device=rpc", "device.host=board"], "aarch64", None),
        (["device=rpc", "device.host=board", "target=cortex_a72"], "cortex_a72", None),
    ],
)
def test_a_device_has_a_target(overrides, target, cpu):
    chosen = options.compose(overrides)
    assert chosen.target["name"] == target
    assert chosen.remote.cpu == cpu


def test_the_tracker_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("TVM_TRACKER_HOST", "somewhere")
    monkeypatch.setenv("TVM_TRACKER_PORT", "9191")
    monkeypatch.setenv("TVM_TRACKER_KEY", "pixel")
    device = options.compose(["device=tracker"]).remote
    assert (device.host, device.port, device.key) == ("somewhere", 9191, "pixel")
    device = options.compose(["device=tracker", "device.key=7", "device.host=here"]).remote
    assert (device.host, device.key) == ("here", "7")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "rpc", "port": 9090}, "needs device.host="),
        ({"kind": "tracker", "host": "a", "port": 9190}, "needs device.key="),
        ({"kind": "rpc", "host": "a", "port": 70000}, "device.port=70000"),
        ({"kind": "rpc", "host": "a", "port": "x"}, "device.port=x: must be a number"),
        ({"kind": "rpc", "host": "a", "port": 1, "timeout": 0}, "device.timeout=0.0: must lie in 1 to"),
        ({"kind": "rpc", "host": "a", "port": 1, "repeat": 0}, "device.repeat=0"),
        ({"kind": "rpc", "host": "a", "port": 1, "color": 1}, "device.color"),
        ({"kind": "emulated", "cpu": "z80"}, "device.cpu=z80: allowed are cortex-a53"),
    ],
)
def test_bad_devices_are_one_line(values, message):
    with pytest.raises(IrnnError, match=message) as caught:
        from_config(values, "generic")
    assert "\n" not in str(caught.value)


def test_a_target_that_is_not_emulated():
    with pytest.raises(IrnnError, match="no emulated board has a cortex-m4: choose target=aarch64, armv7a or another"):
        from_config({"kind": "emulated", "cpu": None}, "cortex-m4")


def test_a_32_bit_board_runs_the_bundle(programs, tmp_path, capsys):
    need("armv7a", emulated.QEMU32)
    arguments = ["bench", str(programs / "run" / "program"), "device=emulated", "target=armv7a", "--tokens", "20"]
    assert main([*arguments, "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    assert "armv7a on emulated cortex-a7" in printed
    assert "say nothing about a device" in printed
    assert "the bundle's own runner" in printed
    entry = json.loads((tmp_path / "out.json").read_text())["targets"]["armv7a"]
    assert entry["mismatches"] == {"count": 0, "compared": 20 * models.VOCABULARY + 2 * 24}
    assert entry["us_per_token"] > 0
    assert entry["emulated"] is True
    assert entry["bytes"] > 10_000
    assert (
        main(["bench", str(programs / "run" / "program"), "target=cortex_a53", *arguments[2:3], "device.cpu=cortex-a7"])
        == 1
    )
    assert "target=cortex_a53 does not run on an emulated cortex-a7" in capsys.readouterr().err


def test_doctor_says_that_a_32_bit_board_takes_bundles(capsys):
    need("armv7a", emulated.QEMU32)
    assert main(["doctor", "device=emulated", "target=armv7a"]) == 0
    assert "no TVM runtime is published for it; take `bundle`" in capsys.readouterr().out
    with pytest.raises(IrnnError, match="take `bundle`"):
        serve.server_command(emulated.CPU32)


def test_what_only_this_machine_can_reach():
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "board", "10.0.0.2")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
    assert default_target({"target": "cortex_a72"}, ["cortex_a72"]) == "cortex_a72"


def test_missing_tools_are_named(monkeypatch):
    monkeypatch.setattr(emulated.shutil, "which", lambda name: None)
    with pytest.raises(IrnnError, match="apt-get install --no-install-recommends qemu-user"):
        emulated.find_qemu("qemu-aarch64")
    with pytest.raises(IrnnError, match="take `bundle`"):
        serve.server_folder("armv7a-linux-gnueabihf")


def test_the_cache_holds_whole_folders_only(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def fails(folder):
        (folder / "part").write_text("x")
        raise IrnnError("no network")

    with pytest.raises(IrnnError, match="no network"):
        cached("thing/one", fails)
    assert not (tmp_path / "irnn" / "thing" / "one").exists()
    made = []
    for _ in range(2):
        folder = cached("thing/one", lambda folder: made.append((folder / "whole").write_text("x")))
    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert len(made) == 1
