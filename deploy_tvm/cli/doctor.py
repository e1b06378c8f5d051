"""Say what is wrong with a device: compiler, connection, key, versions, CPU, governor, memory."""

from __future__ import annotations

import argparse

from deploy_tvm.cli import options
from irnn.errors import IrnnError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arguments", nargs="*", metavar="device=NAME device.host=HOST target=NAME")


def execute(parsed: argparse.Namespace, free: list[str], chosen: options.Options) -> None:
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
