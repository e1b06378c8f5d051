"""The commands about other devices: ``bench ... device=``, ``serve``, ``doctor``, ``bundle``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from deploy_tvm.cli.options import Options
from irnn.errors import IrnnError

GOLDEN_TOKENS = 64


def add_serve_options(serving: argparse.ArgumentParser) -> None:
    serving.add_argument("arguments", nargs="*", metavar="device=emulated target=NAME out=FOLDER")
    serving.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine)")
    serving.add_argument("--port", type=int, default=9090, help="port (default 9090; 0: any free one)")
    serving.add_argument("--key", default="", help="the kind of device; clients give the same device.key")
    serving.add_argument("--tracker", metavar="HOST:PORT", help="register with this TVM tracker")
    serving.add_argument("--advertise", metavar="HOST", help="address that the tracker hands out (default: as it sees)")


def add_doctor_options(examining: argparse.ArgumentParser) -> None:
    examining.add_argument("arguments", nargs="*", metavar="device=NAME device.host=HOST target=NAME")


def add_bundle_options(bundling: argparse.ArgumentParser) -> None:
    bundling.add_argument("arguments", nargs="*", metavar="PROGRAM_OR_ARTEFACT target=NAME out=FILE.tar.gz")
    bundling.add_argument("--tokens", type=int, default=GOLDEN_TOKENS, help="golden steps to compare (default 64)")


def bench(folder: Path, parsed: argparse.Namespace, chosen: Options) -> tuple[dict[str, Any], Any]:
    """(result, table) of programs or artefacts on the chosen device."""
    from deploy_tvm.remote.bench import Golden, bench_device
    from deploy_tvm.remote.report import report
    from deploy_tvm.targets import from_config

    golden = Golden(parsed.tokens, parsed.frames, parsed.units)
    with Console(stderr=True).status("") as status:
        result = bench_device(folder, parsed.float, from_config(chosen.target), chosen.remote, golden, status.update)
    return result, report(result)


def serve_device(parsed: argparse.Namespace, free: list[str], chosen: Options) -> None:
    """Start the RPC server of this machine; with out=FOLDER, write the server for a target's board instead."""
    from deploy_tvm.remote.serve import export_server, serve

    if free:
        raise IrnnError(f"serve takes no folder, but {free[0]!r} was given")
    if chosen.out is not None:
        export_server(chosen.target["mtriple"], chosen.out)
        print(f"{chosen.out}: copy it to the board and start  ./irnn-rpc-server --host ADDRESS --port 9090")
        return
    if chosen.remote is not None and not chosen.remote.emulated:
        raise IrnnError(f"serve starts a server on this machine, not on device={chosen.remote.kind}: start it there")
    cpu = None if chosen.remote is None else chosen.remote.cpu
    code = serve(parsed.host, parsed.port, parsed.key, parsed.tracker, parsed.advertise, cpu)
    if code:
        raise IrnnError(f"the server ended with code {code}")


def examine(parsed: argparse.Namespace, free: list[str], chosen: Options) -> None:
    """Say what is wrong with a device: compiler, connection, key, versions, CPU, governor, memory."""
    from deploy_tvm.remote.doctor import examine
    from deploy_tvm.targets import from_config

    if free:
        raise IrnnError(f"doctor takes a device, not {free[0]!r}: doctor device=rpc device.host=HOST")
    findings = examine(from_config(chosen.target), chosen.remote)
    for finding in findings:
        print(f"{finding.verdict:<7}{finding.text}")
    bad = sum(finding.verdict == "wrong" for finding in findings)
    if bad:
        raise IrnnError(f"{bad} of {len(findings)} checks failed")


def bundle(parsed: argparse.Namespace, free: list[str], chosen: Options) -> None:
    """Write one archive for a board without RPC: library, parameters, golden vectors and a runner."""
    from deploy_tvm.bundle.bundle import bundle
    from deploy_tvm.targets import from_config

    if len(free) != 1:
        raise IrnnError(f"bundle takes one program or artefact, not {len(free)}: bundle PROGRAM target=cortex_a72")
    folder, target = Path(free[0]), from_config(chosen.target)
    archive = chosen.out or Path(f"{folder.resolve().name}-{target.name}.tar.gz")
    bundle(folder, target, archive, parsed.tokens)
    name = archive.name.removesuffix(".tar.gz")
    print(f"{archive}: {archive.stat().st_size / 1e6:.2f} MB; on the board: tar xzf {archive.name} && {name}/runner")
