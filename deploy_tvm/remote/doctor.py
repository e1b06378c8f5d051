"""What is wrong with a device's set-up, check by check."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any, Literal

import tvm

from deploy_tvm.remote import emulated, session
from deploy_tvm.remote.device import Device
from deploy_tvm.remote.server.serve import reachable
from deploy_tvm.targets import Target, toolchain
from irnn.errors import IrnnError

# LLVM's names of the instructions that our kernels use, and Linux's.
INSTRUCTIONS = {"dotprod": "asimddp", "i8mm": "i8mm"}


@dataclass(frozen=True)
class Finding:
    """One line: "wrong" must be mended, "note" is worth knowing."""

    verdict: Literal["ok", "note", "wrong"]
    text: str


def examine(target: Target, device: Device | None) -> list[Finding]:
    """The findings about ``device`` (None: this machine) as one to run libraries for ``target`` on."""
    target = target.resolve()
    findings = [_compiler(target)]
    if target.mtriple.startswith("armv7"):
        findings.append(Finding("note", f"{target.name}: no TVM runtime is published for it; take `bundle`"))
    if device is not None and device.cpu == emulated.CPU32:
        return [*findings, _emulator(device.cpu)]
    if device is None:
        return [*findings, _this_machine(target)]
    try:
        with reachable(device) as board:
            told = session.describe(board)
    except IrnnError as error:
        return [*findings, Finding("wrong", str(error))]
    key = f", serves the key {device.key}" if device.key else ""
    findings.append(Finding("ok", f"{device.name}: reachable{key}"))
    if told is None:
        text = "TVM's own server runs there: TVM version, CPU features, governor and free memory are not available"
        return [*findings, Finding("note", f"{text}; the server of  python -m deploy_tvm serve  tells them")]
    return [*findings, *_device(target, told, device.emulated)]


def _this_machine(target: Target) -> Finding:
    if target.mtriple.split("-")[0] != platform.machine():
        text = f"no device was examined: this machine is {platform.machine()}, target={target.name} needs a device="
        return Finding("note", text)
    return Finding("ok", f"this machine: TVM {tvm.__version__}, {target.mcpu}")


def _emulator(cpu: str) -> Finding:
    try:
        return Finding("ok", f"emulated {cpu}: {emulated.command(cpu)[0]} runs the bundle")
    except IrnnError as error:
        return Finding("wrong", str(error))


def _compiler(target: Target) -> Finding:
    try:
        return Finding("ok", f"{target.name} is linked by {' '.join(toolchain.find(target.mtriple).command)}")
    except IrnnError as error:
        return Finding("wrong", str(error))


def _device(target: Target, told: dict[str, Any], emulated: bool) -> list[Finding]:
    findings = []
    if told["tvm"] == tvm.__version__:
        findings.append(Finding("ok", f"TVM {told['tvm']} on both sides"))
    else:
        text = f"TVM {told['tvm']} there, {tvm.__version__} here: build its server again (python -m deploy_tvm serve)"
        findings.append(Finding("wrong", text))
    wanted = target.mtriple.split("-")[0]
    if told["machine"] == wanted:
        findings.append(Finding("ok", f"{told['machine']}, {told['cpu']}, {told['cores']} cores, {told['system']}"))
    else:
        findings.append(Finding("wrong", f"it is {told['machine']}, target={target.name} is {wanted}: choose another"))
    missing = [name for name in _needed(target) if INSTRUCTIONS[name] not in told["features"].split()]
    if missing:
        text = f"target={target.name} uses {', '.join(missing)}, which this CPU lacks ({told['features']})"
        findings.append(Finding("wrong", f"{text}: choose another target"))
    else:
        findings.append(Finding("ok", f"CPU features: {told['features']}"))
    if emulated or told.get("emulated"):
        return [*findings, Finding("note", "emulated: integers count, times do not")]
    governor = told["governor"]
    if governor in ("performance", ""):
        findings.append(Finding("ok" if governor else "note", f"governor: {governor or 'not available'}"))
    else:
        findings.append(Finding("note", f"governor {governor}: times vary with the clock; `performance` keeps it high"))
    findings.append(Finding("ok", f"free memory: {told['memory_available'] or 'not available'}"))
    if told["last_failure"]:
        findings.append(Finding("note", f"its last session failed: {told['last_failure']}"))
    return findings


def _needed(target: Target) -> list[str]:
    has = tvm.target.codegen.llvm_cpu_has_features
    return [name for name in INSTRUCTIONS if target.mtriple.startswith("aarch64") and has(name, target.tvm())]
