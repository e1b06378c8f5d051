"""Start the RPC server of this machine; with out=FOLDER, write the server for a target's board instead."""

from __future__ import annotations

import argparse

from deploy_tvm.cli import options
from irnn.errors import IrnnError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arguments", nargs="*", metavar="device=emulated target=NAME out=FOLDER")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine)")
    parser.add_argument("--port", type=int, default=9090, help="port (default 9090; 0: any free one)")
    parser.add_argument("--key", default="", help="the kind of device; clients give the same device.key")
    parser.add_argument("--tracker", metavar="HOST:PORT", help="register with this TVM tracker")
    parser.add_argument("--advertise", metavar="HOST", help="address that the tracker hands out (default: as it sees)")


def execute(parsed: argparse.Namespace, free: list[str], chosen: options.Options) -> None:
    """Start the RPC server of this machine; with out=FOLDER, write the server for a target's board instead."""
    from deploy_tvm.remote.server.serve import export_server, serve

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
