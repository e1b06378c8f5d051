"""``python -m deploy_tvm COMMAND``: build a program's library, use it, measure it here and on devices.

    python -m deploy_tvm compile PROGRAM_FOLDER target=host out=FOLDER
    python -m deploy_tvm plan PROGRAM_FOLDER target=cortex_a76
    python -m deploy_tvm run ARTEFACT the company said
    python -m deploy_tvm bench ARTEFACT --against onnxruntime --json out.json
    python -m deploy_tvm bench --layer lstm --input 650 --hidden 650 --steps 35 --weight-bits 8 --against onnxruntime
    python -m deploy_tvm bench --recognizer speech_espresso --frames 1000 --units 40 --against onnxruntime
    python -m deploy_tvm bench PROGRAM_OR_ARTEFACT device=rpc device.host=board target=cortex_a72 --json out.json
    python -m deploy_tvm bench --static --layer lstm --input 650 --hidden 650 target=cortex_a76 --json out.json
    python -m deploy_tvm profile PROGRAM_OR_ARTEFACT --kernels avx2
    python -m deploy_tvm serve --host 0.0.0.0 --key pixel --tracker host:9190
    python -m deploy_tvm bundle PROGRAM_OR_ARTEFACT target=armv7a out=network.tar.gz
    python -m deploy_tvm doctor device=tracker device.host=host device.key=pixel

``target=``, ``device=`` and ``out=`` are Hydra overrides on ``conf/deploy.yaml``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import deploy_tvm
from deploy_tvm.cli import bench, bundle, compile, doctor, options, plan, profile, run, serve
from irnn.errors import IrnnError

PROGRAM = "python -m deploy_tvm"
COMMANDS = {
    "compile": compile,
    "plan": plan,
    "run": run,
    "bench": bench,
    "profile": profile,
    "serve": serve,
    "doctor": doctor,
    "bundle": bundle,
}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line: ``command``, its options, and as ``arguments`` the folders, words and overrides among them."""
    top = argparse.ArgumentParser(prog=PROGRAM, description="Build, run and measure integer programs.")
    top.add_argument("command", choices=COMMANDS, help="`COMMAND --help` says more")
    top.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    first = top.parse_args(arguments)
    command = COMMANDS[first.command]
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} {first.command}", description=command.__doc__)
    command.add_options(parser)
    # Options, folders and overrides may stand in any order.
    return parser.parse_intermixed_args(first.rest, argparse.Namespace(command=first.command))


def main(arguments: Sequence[str]) -> int:
    """Exit code: 0, 1 for bad input (one line on stderr), 2 for a wrong command line."""
    parsed = parse(arguments)
    try:
        deploy_tvm.need_tvm()
        free, overrides = options.split(parsed.arguments, words=parsed.command == "run")
        COMMANDS[parsed.command].execute(parsed, free, options.compose(overrides))
    except IrnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was kept", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
