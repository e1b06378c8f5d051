"""The last word of a run: its program on a board (`device=rpc`, `tracker` or `emulated`), integer for integer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deploy_tvm
from irnn.errors import IrnnError
from pipelines.core import deploy
from pipelines.core.export import FLOAT_PROGRAM, PROGRAM
from pipelines.core.manifest import write_json
from pipelines.watch.console import console


@dataclass(frozen=True)
class Board:
    """A device (`deploy_tvm.remote.device.Device`) and the target (`deploy_tvm.targets.Target`) to build for."""

    target: Any
    device: Any

    def measure(self, folder: Path) -> None:
        """Compare and time the program in a run's folder, print the table, leave `device_<target>.json` there.

        It is not cached: a device is another one each time, warmer or busier.
        """
        from deploy_tvm.remote.fleet import bench_devices
        from deploy_tvm.remote.report import report
        from deploy_tvm.remote.workload import Lengths

        with console.status("") as status:
            result = bench_devices(
                folder / PROGRAM, str(folder / FLOAT_PROGRAM), self.target, self.device, Lengths(), status.update
            )
        console.print(report(result))
        write_json(folder / f"device_{self.target.name}.json", result)
        if result["mismatches"]["count"]:
            raise IrnnError(f"the device's integers differ from the interpreter's: {json.dumps(result['mismatches'])}")


def board_of(target: dict[str, Any], device: dict[str, Any]) -> Board | None:
    """The board of a configuration, checked before anything is trained; None: this machine alone."""
    if device["kind"] == "local":
        if target["name"] != "host":
            raise IrnnError(
                f"target={target['name']} needs a device: add device=rpc, device=tracker or device=emulated"
            )
        return None
    if not deploy.available():
        raise IrnnError(f"device.kind={device['kind']} needs TVM: pip install 'irnn[tvm]'")
    deploy_tvm.need_tvm()
    from deploy_tvm.cli.options import available
    from deploy_tvm.remote.device import default_target, from_config
    from deploy_tvm.targets import find, toolchain
    from deploy_tvm.targets import from_config as target_from_config

    own = find(default_target(device, available("target")))
    chosen = own if target["name"] == "host" else target_from_config(target)
    toolchain.find(chosen.mtriple)
    return Board(chosen, from_config(device, chosen.mcpu))
