"""Time an artefact, or a network with random weights, alone or against other runtimes, here or on a device."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from deploy_tvm.cli import options
from deploy_tvm.peers.peers import PEERS
from deploy_tvm.remote.device import Device
from irnn.errors import IrnnError
from irnn.places import need_file
from irnn.program import Program

STEPS = 35
LAYER_ONLY = ("input", "hidden", "layers", "bidirectional", "norm", "weight_bits", "code", "codes", "hadamard")
LOCAL_ONLY = ("layer", *LAYER_ONLY, "recognizer", "peers_python", "against", "batch", "kernels")
RECOGNIZER_ONLY = ("recognizer", "frames", "units")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arguments", nargs="*", metavar="ARTEFACT device=NAME")
    parser.add_argument("--layer", metavar="CELL", help="lstm, gru, ornn, linear: of random weights, for an artefact")
    parser.add_argument("--input", type=int, help="input size of the layer")
    parser.add_argument("--hidden", type=int, help="hidden size of the layer")
    parser.add_argument("--layers", type=int, help="layers on each other (default 1)")
    parser.add_argument("--bidirectional", action="store_const", const=True, help="both directions")
    parser.add_argument("--norm", choices=("mad", "layer"), help="a norm on W_x x, W_h h and c")
    parser.add_argument("--weight-bits", type=int, help="bits of the layer's weights (default 8; uniform: 2 to 8)")
    parser.add_argument("--code", metavar="NAME", help="of the layer's weights: uniform, ternary, alternating, ...")
    parser.add_argument("--codes", type=int, help="binary codes of what the layer reads, found at run time (1 to 4)")
    parser.add_argument("--hadamard", action="store_const", const=True, help="of ornn: signs times a Hadamard matrix")
    parser.add_argument("--recognizer", metavar="NAME", help="a model of conf/model, with random weights")
    parser.add_argument("--frames", type=int, help="of 10 ms, of a recognizer's utterance (1000; with device=: 200)")
    parser.add_argument("--units", type=int, help="that a recognizer decodes for it (40; with device=: 10)")
    parser.add_argument("--steps", type=int, help=f"time steps or tokens a call ({STEPS}); with device=: compared (64)")
    parser.add_argument("--batch", type=int, help="sequences a call (default 1): times are a step and sequence")
    parser.add_argument(
        "--kernels", metavar="NAME", help="a set that this CPU can run: amx, avx512vnni, avxvnni, avx2, portable"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads (1)")
    parser.add_argument("--float", metavar="FOLDER", help="float program or artefact of the model (default: beside it)")
    parser.add_argument("--against", default="", metavar="NAMES", help=",".join(PEERS))
    parser.add_argument("--peers-python", metavar="PATH", help="a Python that has the runtimes of --against")
    parser.add_argument("--rounds", type=int, default=20, help="interleaved rounds (default 20)")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each runtime, all rounds together (default 4)")
    parser.add_argument("--tokens", type=int, help="with device=: of a language model, in place of --steps (64)")
    parser.add_argument(
        "--static", action="store_true", help="instructions and modelled cycles for target=, an ARM core"
    )
    parser.add_argument("--json", metavar="FILE", help="write the result there")


def execute(parsed: argparse.Namespace, free: list[str], chosen: options.Options) -> None:
    """Time an artefact, or a layer with random weights (--layer), alone or against other runtimes."""
    from deploy_tvm.bench.measure import Settings
    from deploy_tvm.bench.report import report
    from deploy_tvm.peers.peers import parse_against

    steps = STEPS if parsed.steps is None else parsed.steps
    target = Path(parsed.json) if parsed.json else None
    if target is not None:
        need_file(target, f"--json {target}")
    if parsed.static:
        _finish(*_bench_static(parsed, free, chosen, steps), target)
        return
    if chosen.remote is not None:
        local = next((name for name in LOCAL_ONLY if getattr(parsed, name)), None)
        if local is not None:
            raise IrnnError(f"--{local.replace('_', '-')} is for this machine; device={chosen.remote.kind} is another")
        (folder,) = options.exactly(free, "bench takes one program or artefact", "bench PROGRAM device=emulated")
        _finish(*_bench_device(Path(folder), parsed, chosen, chosen.remote), target)
        return
    if parsed.tokens is not None:
        raise IrnnError("--tokens belongs to another device: device=rpc, device=tracker or device=emulated")
    settings = Settings(
        rounds=parsed.rounds, seconds=parsed.seconds, threads=parsed.threads,
        against=parse_against(parsed.against), peers_python=parsed.peers_python, core=chosen.core,
        batch=1 if parsed.batch is None else parsed.batch,
    )  # fmt: skip
    with Console(stderr=True).status("") as status:
        result = _bench_here(parsed, free, steps, settings, status.update)
    _finish(result, report(result), target)


def _finish(result: dict[str, Any], table: Any, target: Path | None) -> None:
    Console(width=None if sys.stdout.isatty() else 150, highlight=False).print(table)
    if target is not None:
        target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if result["mismatches"]["count"]:
        raise IrnnError(f"the built program differs from the interpreter: {result['mismatches']}")


def _bench_here(
    parsed: argparse.Namespace, free: list[str], steps: int, settings: Any, progress: Any
) -> dict[str, Any]:
    """A layer or a recognizer with random weights, or what a folder holds."""
    from deploy_tvm.artefact.artefact import holds_set
    from deploy_tvm.bench.bench import bench
    from deploy_tvm.bench.subject import made, opened
    from deploy_tvm.bench.utterance import Utterance
    from deploy_tvm.targets.kernel_sets import host
    from irnn.random_programs import layer_programs, recognizer_programs

    target = None if parsed.kernels is None else host(parsed.kernels)
    utterance = Utterance(**{n: getattr(parsed, n) for n in ("frames", "units") if getattr(parsed, n) is not None})
    with tempfile.TemporaryDirectory(prefix="irnn-bench-") as scratch:
        if parsed.layer is not None:
            layer = _layer(parsed, free)
            subject = made(parsed.layer, *layer_programs(layer), Path(scratch), progress, target)
            result = bench(subject, steps, utterance, settings, progress)
            del result["name"]
            return result | {"kind": "layer", "layer": asdict(layer), "weight_bits": layer.weight_bits}
        _refuse(parsed, LAYER_ONLY, "--layer")
        if parsed.recognizer is not None:
            if free or parsed.float is not None:
                other = free[0] if free else parsed.float
                raise IrnnError(f"bench takes a folder or --recognizer, not both: {other}")
            programs = recognizer_programs(_recognizer_config(parsed.recognizer))
            subject = made(parsed.recognizer, *programs, Path(scratch), progress, target)
        else:
            example = "bench ARTEFACT --against onnxruntime"
            (folder,) = options.exactly(free, "bench takes one artefact or --layer", example)
            if not holds_set(Path(folder)):
                _refuse(parsed, RECOGNIZER_ONLY, "a recognizer")
            subject = opened(Path(folder), parsed.float, Path(scratch), progress, target)
        return bench(subject, steps, utterance, settings, progress)


def _recognizer_config(name: str) -> dict[str, Any]:
    """The model of ``conf/model/<name>.yaml``."""
    import yaml

    known = [stem for stem in options.available("model") if stem.startswith("speech_")]
    if name not in known:
        raise IrnnError(f"--recognizer {name}: unknown; allowed are {', '.join(known)}")
    return yaml.safe_load(options.group_file("model", name).read_text("utf-8"))


def _layer(parsed: argparse.Namespace, free: list[str]) -> Any:
    from irnn.random_programs import Layer

    _refuse(parsed, RECOGNIZER_ONLY, "a recognizer")
    if free:
        raise IrnnError(f"bench takes an artefact or --layer, not both: {free[0]}")
    if parsed.float is not None:
        raise IrnnError("--float belongs to an artefact; with --layer the float program is made with the integer one")
    sizes = {name: getattr(parsed, name) for name in LAYER_ONLY if getattr(parsed, name) is not None}
    for name in ("input", "hidden"):
        if name not in sizes:
            raise IrnnError(f"--layer needs --{name}: the {name} size, for example --{name} 650")
    try:
        return Layer(cell=parsed.layer, **sizes)
    except IrnnError as error:
        name, equals, rest = str(error).partition("=")
        if not equals or name not in LAYER_ONLY:
            raise
        raise IrnnError(f"--{name.replace('_', '-')} {rest}") from None


def _refuse(parsed: argparse.Namespace, names: Sequence[str], owner: str) -> None:
    for name in names:
        if getattr(parsed, name) is not None:
            raise IrnnError(f"--{name.replace('_', '-')} belongs to {owner}")


def _bench_static(
    parsed: argparse.Namespace, free: list[str], chosen: options.Options, steps: int
) -> tuple[dict[str, Any], Any]:
    from deploy_tvm.artefact.artefact import open_program
    from deploy_tvm.bench.subject import float_folder_of
    from deploy_tvm.peers.peers import parse_against
    from deploy_tvm.static.figures import static_figures
    from deploy_tvm.static.report import report
    from deploy_tvm.targets import from_config
    from irnn.random_programs import layer_programs

    if chosen.remote is not None:
        raise IrnnError("--static runs under an emulator of its own: leave device= out")
    for name in ("batch", "kernels"):
        if getattr(parsed, name) is not None:
            raise IrnnError(f"--static counts for target=, one sequence a call: leave --{name} out")
    described: dict[str, Any] = {}
    floating: Program | None
    if parsed.layer is not None:
        layer = _layer(parsed, free)
        described = {"layer": asdict(layer)}
        integer, floating = layer_programs(layer)
    else:
        folder = Path(options.exactly(free, "bench takes one program or --layer", "bench PROGRAM --static")[0])
        floats = float_folder_of(folder, parsed.float)
        integer = open_program(folder, "integer")
        floating = None if floats is None else open_program(floats, "float")
    with Console(stderr=True).status("") as status:
        result = static_figures(
            integer, floating, from_config(chosen.target), steps,
            against=parse_against(parsed.against), peers_python=parsed.peers_python, progress=status.update,
        )  # fmt: skip
    result |= described
    return result, report(result)


def _bench_device(
    folder: Path, parsed: argparse.Namespace, chosen: options.Options, device: Device
) -> tuple[dict[str, Any], Any]:
    """(result, table) of programs or artefacts on the chosen device."""
    from deploy_tvm.remote.fleet import bench_devices
    from deploy_tvm.remote.report import report
    from deploy_tvm.remote.workload import Lengths
    from deploy_tvm.targets import from_config

    lengths = Lengths(parsed.steps, parsed.tokens, parsed.frames, parsed.units)
    with Console(stderr=True).status("") as status:
        result = bench_devices(folder, parsed.float, from_config(chosen.target), device, lengths, status.update)
    return result, report(result)
