"""``python -m deploy_tvm COMMAND``: build a program's library, use it, measure it here and on devices.

    python -m deploy_tvm compile PROGRAM_FOLDER target=host out=FOLDER
    python -m deploy_tvm run ARTEFACT the company said
    python -m deploy_tvm bench ARTEFACT --against onnxruntime --json out.json
    python -m deploy_tvm bench --layer lstm --input 650 --hidden 650 --steps 35 --weight-bits 8 --against onnxruntime
    python -m deploy_tvm bench --recognizer speech_espresso --frames 1000 --units 40 --against onnxruntime
    python -m deploy_tvm bench PROGRAM_OR_ARTEFACT device=rpc device.host=board target=cortex_a72 --json out.json
    python -m deploy_tvm bench --static --layer lstm --input 650 --hidden 650 target=cortex_a76 --json out.json
    python -m deploy_tvm serve --host 0.0.0.0 --key pixel --tracker host:9190
    python -m deploy_tvm bundle PROGRAM_OR_ARTEFACT target=armv7a out=network.tar.gz
    python -m deploy_tvm doctor device=tracker device.host=host device.key=pixel

``target=``, ``device=`` and ``out=`` are Hydra overrides on ``conf/deploy.yaml``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

import deploy_tvm
from deploy_tvm.cli import device_commands, options
from irnn.errors import IrnnError
from irnn.places import need_file

PROGRAM = "python -m deploy_tvm"
STEPS = 35
MAX_TOP = 1000
LAYER_ONLY = ("input", "hidden", "layers", "bidirectional", "norm", "weight_bits")
RECOGNIZER_ONLY = ("recognizer", "frames", "units")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line: ``command``, its options, and as ``arguments`` the folders, words and overrides among them."""
    top = argparse.ArgumentParser(prog=PROGRAM, description="Build, run and measure integer programs.")
    top.add_argument("command", choices=COMMANDS, help="`COMMAND --help` says more")
    top.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    first = top.parse_args(arguments)
    function, add_options = COMMANDS[first.command]
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} {first.command}", description=function.__doc__)
    add_options(parser)
    # Options, folders and overrides may stand in any order.
    return parser.parse_intermixed_args(first.rest, argparse.Namespace(command=first.command))


def _add_compile_options(compiling: argparse.ArgumentParser) -> None:
    compiling.add_argument("arguments", nargs="*", metavar="PROGRAM target=NAME out=FOLDER")


def _add_run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("arguments", nargs="*", metavar="ARTEFACT WORD_OR_ID")
    run.add_argument("--vocabulary", metavar="FILE", help="the words (default: those of the program)")
    run.add_argument("--top", type=int, default=5, help="candidates to show (default 5)")


def _add_bench_options(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("arguments", nargs="*", metavar="ARTEFACT device=NAME")
    bench.add_argument("--layer", metavar="CELL", help="lstm: a layer with random weights in place of an artefact")
    bench.add_argument("--input", type=int, help="input size of the layer")
    bench.add_argument("--hidden", type=int, help="hidden size of the layer")
    bench.add_argument("--layers", type=int, help="layers on each other (default 1)")
    bench.add_argument("--bidirectional", action="store_const", const=True, help="both directions")
    bench.add_argument("--norm", choices=("mad", "layer"), help="a norm on W_x x, W_h h and c")
    bench.add_argument("--weight-bits", type=int, help="bits of the layer's weights, 2 to 8 (default 8)")
    bench.add_argument("--recognizer", metavar="NAME", help="a model of conf/model, with random weights")
    bench.add_argument("--frames", type=int, help="of 10 ms, of a recognizer's utterance (1000; with device=: 200)")
    bench.add_argument("--units", type=int, help="that a recognizer decodes for it (40; with device=: 10)")
    bench.add_argument("--steps", type=int, default=STEPS, help=f"time steps or tokens a call (default {STEPS})")
    bench.add_argument("--threads", type=int, default=1, help="threads (1)")
    bench.add_argument("--float", metavar="FOLDER", help="float program or artefact of the model (default: beside it)")
    bench.add_argument("--against", default="", metavar="NAMES", help="onnxruntime,openvino,litert,torch")
    bench.add_argument("--peers-python", metavar="PATH", help="a Python that has the runtimes of --against")
    bench.add_argument("--rounds", type=int, default=20, help="interleaved rounds (default 20)")
    bench.add_argument("--seconds", type=float, default=4.0, help="for each runtime, all rounds together (default 4)")
    bench.add_argument("--tokens", type=int, help="with device=: tokens compared with the interpreter (default 64)")
    bench.add_argument(
        "--static", action="store_true", help="instructions and modelled cycles for target=, an ARM core"
    )
    bench.add_argument("--json", metavar="FILE", help="write the result there")


def main(arguments: Sequence[str]) -> int:
    """Exit code: 0, 1 for bad input (one line on stderr), 2 for a wrong command line."""
    parsed = parse(arguments)
    try:
        deploy_tvm.need_tvm()
        free, overrides = options.split(parsed.arguments, words=parsed.command == "run")
        function, _ = COMMANDS[parsed.command]
        function(parsed, free, options.compose(overrides))
    except IrnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was kept", file=sys.stderr)
        return 1
    return 0


def compile_program(parsed: argparse.Namespace, free: list[str], chosen: options.Options) -> None:
    """Build the library of a program: `compile PROGRAM target=host out=FOLDER`."""
    from deploy_tvm.artefact import exported
    from deploy_tvm.targets import from_config
    from irnn.program import Program

    (folder,) = _exactly(free, "compile takes one program folder", "compile PROGRAM target=host out=FOLDER")
    if chosen.out is None:
        raise IrnnError("out=FOLDER is missing: name the folder for the compiled library")
    target = from_config(chosen.target)
    program = exported.build(Path(folder), chosen.out, target)
    size = sum(path.stat().st_size for path in chosen.out.rglob("*") if path.is_file())
    what = f"{program.kind} program" if isinstance(program, Program) else f"programs {', '.join(program)}"
    print(f"{chosen.out}: {what} for {target.name}, {size / 1e6:.2f} MB")
    if any(chosen.out.glob("**/objects")):
        print("object files only: set TVM_NDK_CC to the NDK's clang and compile again for a library")


def run_artefact(parsed: argparse.Namespace, free: list[str], chosen: options.Options) -> None:
    """Print the likeliest next tokens after words or ids, given as arguments or on standard input."""
    from deploy_tvm.artefact.exported import token_count
    from deploy_tvm.cli.prompt import candidates, find_vocabulary, token_ids

    if not free:
        raise IrnnError("run needs an artefact: python -m deploy_tvm run ARTEFACT WORD_OR_ID ...")
    if not 1 <= parsed.top <= MAX_TOP:
        raise IrnnError(f"--top {parsed.top}: must lie in 1 to {MAX_TOP}")
    runner = deploy_tvm.load(free[0])
    if isinstance(runner, Mapping):
        raise IrnnError(f"{free[0]} holds {' and '.join(runner)}: only a language model has next tokens to show")
    vocabulary = find_vocabulary(runner.program.metadata, parsed.vocabulary)
    ids = token_ids(free[1:] or [sys.stdin.read()], token_count(runner.program), vocabulary)
    for token, probability in candidates(runner, ids, parsed.top):
        print(f"{probability:8.4f}  {token if vocabulary is None else vocabulary.words[token]}")


def bench(parsed: argparse.Namespace, free: list[str], chosen: options.Options) -> None:
    """Time an artefact, or a layer with random weights (--layer), alone or against other runtimes."""
    from deploy_tvm.artefact.artefact import holds_set
    from deploy_tvm.bench.measure import Settings
    from deploy_tvm.bench.report import report
    from deploy_tvm.peers.peers import parse_against

    target = Path(parsed.json) if parsed.json else None
    if target is not None:
        need_file(target, f"--json {target}")
    if parsed.static:
        _finish(*_bench_static(parsed, free, chosen), target)
        return
    if chosen.remote is not None:
        local = next(
            (n for n in ("layer", *LAYER_ONLY, "recognizer", "peers_python", "against") if getattr(parsed, n)), None
        )
        if local is not None:
            raise IrnnError(f"--{local.replace('_', '-')} is for this machine; device={chosen.remote.kind} is another")
        (folder,) = _exactly(free, "bench takes one program or artefact", "bench PROGRAM device=emulated")
        _finish(*device_commands.bench(Path(folder), parsed, chosen), target)
        return
    if parsed.tokens is not None:
        raise IrnnError("--tokens belongs to another device: device=rpc, device=tracker or device=emulated")
    settings = Settings(
        rounds=parsed.rounds, seconds=parsed.seconds, threads=parsed.threads,
        against=parse_against(parsed.against), peers_python=parsed.peers_python, core=chosen.core,
    )  # fmt: skip
    console = Console(stderr=True)
    with console.status("") as status:
        if parsed.layer is not None:
            result = _bench_layer(parsed, free, settings, status.update)
        elif parsed.recognizer is not None or (len(free) == 1 and holds_set(Path(free[0]))):
            result = _bench_recognizer(parsed, free, settings, status.update)
        else:
            result = _bench_model(parsed, free, settings, status.update)
    _finish(result, report(result), target)


def _finish(result: dict[str, Any], table: Any, target: Path | None) -> None:
    Console(width=None if sys.stdout.isatty() else 150, highlight=False).print(table)
    if target is not None:
        target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if result["mismatches"]["count"]:
        raise IrnnError(f"the built program differs from the interpreter: {result['mismatches']}")


def _bench_layer(parsed: argparse.Namespace, free: list[str], settings: Any, progress: Any) -> dict[str, Any]:
    from deploy_tvm.bench.bench import bench_layer

    return bench_layer(_layer(parsed, free), parsed.steps, settings, progress)


def _layer(parsed: argparse.Namespace, free: list[str]) -> Any:
    from deploy_tvm.bench.bench import Layer

    _refuse(parsed, RECOGNIZER_ONLY, "a recognizer")
    if free:
        raise IrnnError(f"bench takes an artefact or --layer, not both: {free[0]}")
    if parsed.float is not None:
        raise IrnnError("--float belongs to an artefact; with --layer the float program is made with the integer one")
    sizes = {name: getattr(parsed, name) for name in LAYER_ONLY if getattr(parsed, name) is not None}
    for name in ("input", "hidden"):
        if name not in sizes:
            raise IrnnError(f"--layer needs --{name}: the {name} size, for example --{name} 650")
    return Layer(cell=parsed.layer, **sizes)


def _bench_model(parsed: argparse.Namespace, free: list[str], settings: Any, progress: Any) -> dict[str, Any]:
    from deploy_tvm.bench.bench import bench_folders

    _refuse(parsed, LAYER_ONLY, "--layer")
    _refuse(parsed, RECOGNIZER_ONLY, "a recognizer")
    (folder,) = _exactly(free, "bench takes one artefact or --layer", "bench ARTEFACT --against onnxruntime")
    return bench_folders(Path(folder), parsed.float, parsed.steps, settings, progress)


def _bench_recognizer(parsed: argparse.Namespace, free: list[str], settings: Any, progress: Any) -> dict[str, Any]:
    from deploy_tvm.bench.recognizer_bench import Utterance, bench_folders, bench_random

    _refuse(parsed, LAYER_ONLY, "--layer")
    sizes = {name: getattr(parsed, name) for name in ("frames", "units") if getattr(parsed, name) is not None}
    utterance = Utterance(**sizes)
    if parsed.recognizer is None:
        return bench_folders(Path(free[0]), parsed.float, utterance, settings, progress)
    if free or parsed.float is not None:
        raise IrnnError(f"bench takes a folder or --recognizer, not both: {free[0] if free else parsed.float}")
    return bench_random(parsed.recognizer, utterance, settings, progress)


def _refuse(parsed: argparse.Namespace, names: Sequence[str], owner: str) -> None:
    for name in names:
        if getattr(parsed, name) is not None:
            raise IrnnError(f"--{name.replace('_', '-')} belongs to {owner}")


def _bench_static(parsed: argparse.Namespace, free: list[str], chosen: options.Options) -> tuple[dict[str, Any], Any]:
    from deploy_tvm.peers.peers import parse_against
    from deploy_tvm.static.command import bench_static
    from deploy_tvm.static.report import report
    from deploy_tvm.targets import from_config

    if chosen.remote is not None:
        raise IrnnError("--static runs under an emulator of its own: leave device= out")
    layer = None if parsed.layer is None else _layer(parsed, free)
    folder = None if layer else Path(_exactly(free, "bench takes one program or --layer", "bench PROGRAM --static")[0])
    with Console(stderr=True).status("") as status:
        target = from_config(chosen.target)
        result = bench_static(
            layer, folder, parsed.float, target, parsed.steps,
            against=parse_against(parsed.against), peers_python=parsed.peers_python, progress=status.update,
        )  # fmt: skip
    return result, report(result)


def _exactly(free: list[str], problem: str, example: str) -> list[str]:
    if len(free) != 1:
        raise IrnnError(f"{problem}, not {len(free)}: python -m deploy_tvm {example}")
    return free


COMMANDS = {
    "compile": (compile_program, _add_compile_options),
    "run": (run_artefact, _add_run_options),
    "bench": (bench, _add_bench_options),
    "serve": (device_commands.serve_device, device_commands.add_serve_options),
    "doctor": (device_commands.examine, device_commands.add_doctor_options),
    "bundle": (device_commands.bundle, device_commands.add_bundle_options),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
