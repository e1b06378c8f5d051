"""``python -m deploy_tvm.publish``: figures of ARM without a board, or with ``--suite`` those of this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from deploy_tvm.bench.measure import Settings
from deploy_tvm.peers.peers import PEERS, parse_against
from deploy_tvm.publish import arm, orthogonal, speed, suite
from irnn.errors import IrnnError

ARM_ONLY = ("program", "layer", "recognizer")
SUITE_ONLY = ("only", "kernels", "against", "rounds", "seconds")


def main(arguments: list[str]) -> int:
    """Exit code: 0, 1 for bad input (one line on stderr), 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy_tvm.publish", description=__doc__)
    parser.add_argument("--peers-python", metavar="PATH", help="a Python that has the other runtimes")
    boards = parser.add_argument_group("ARM, without a board: docs/results/arm.json and docs/devices.md")
    boards.add_argument("program", type=Path, nargs="?", help="a program, its float program beside it")
    boards.add_argument("--layer", metavar="CELLS", help=f"static figures of: {','.join(arm.LAYERS)}")
    boards.add_argument("--recognizer", type=Path, metavar="PROGRAMS", help="the programs of a recognizer")
    here = parser.add_argument_group(
        "this machine: docs/results/bench_KIND.json and the tables of docs/speed.md and docs/orthogonal.md"
    )
    here.add_argument(
        "--suite", nargs="?", const=suite.LAYERS, choices=tuple(suite.SUITES),
        help="measure the rows that are not there yet: of LSTM and GRU (the default), orthogonal layers, products",
    )  # fmt: skip
    here.add_argument("--only", metavar="KEY=VALUE,...", help=f"of the rows those of: {', '.join(suite.Suite.keys())}")
    here.add_argument("--kernels", metavar="NAME", help="a set that this CPU can run, though it has better ones")
    here.add_argument("--against", metavar="NAMES", help=",".join(PEERS))
    here.add_argument("--rounds", type=int, help="interleaved rounds of a row (default 20)")
    here.add_argument("--seconds", type=float, help="for each runtime of a row (default 4)")
    parsed = parser.parse_args(arguments)
    try:
        with Console(stderr=True).status("") as status:
            print((_suite if parsed.suite else _arm)(parsed, status.update))
    except IrnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _arm(parsed: argparse.Namespace, progress: suite.Progress) -> Path:
    _refuse(parsed, SUITE_ONLY, "--suite")
    cells = arm.cells(parsed.layer or "")
    return arm.publish(parsed.program, cells, parsed.recognizer, parsed.peers_python, progress)


def _suite(parsed: argparse.Namespace, progress: suite.Progress) -> Path:
    _refuse(parsed, ARM_ONLY, "the figures of ARM, not to --suite")
    given = {name: getattr(parsed, name) for name in ("rounds", "seconds") if getattr(parsed, name) is not None}
    settings = Settings(against=parse_against(parsed.against or ""), peers_python=parsed.peers_python, **given)
    whole = suite.SUITES[parsed.suite]
    chosen = whole if parsed.only is None else whole.only(parsed.only)
    path = suite.run(chosen, parsed.kernels, settings, suite.RESULTS, progress)
    speed.write(speed.PAGE, suite.RESULTS)
    orthogonal.write(orthogonal.PAGE, suite.RESULTS)
    return path


def _refuse(parsed: argparse.Namespace, names: tuple[str, ...], owner: str) -> None:
    for name in names:
        if getattr(parsed, name) is not None:
            raise IrnnError(f"{name if name == 'program' else f'--{name}'} belongs to {owner}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
