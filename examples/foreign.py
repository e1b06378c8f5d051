"""``python -m examples.foreign``: what becomes of the networks of ``examples.own_networks``.

Writes docs/results/foreign.json, row by row; networks that are not named keep theirs.

For each: its operations, how far the wiring in float is from the network, the error of integers by calibration alone
and after quantization-aware training (the float network is the teacher), and integers that differ between executors.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import deploy_tvm
import irnn
from examples.own_networks import NETWORKS, build, tensors
from irnn.nn.activation import Activation
from irnn.nn.attention import Exponential
from irnn.nn.linear import Weight
from irnn.quant.site import QuantSite

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "foreign.json"
BATCH, STEPS = 16, 20  # of calibration and training; the example has another batch and length
RATE = 2e-4


def measure(network: Any, steps: int) -> dict[str, Any]:
    """The figures of one network after ``steps`` steps of training."""
    teacher, model = build(network), build(network)
    nodes = len(irnn.explain(model, network.example()).rows)
    irnn.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(pieces=16), example_inputs=network.example())
    held_out = network.example(64, 30, 999)
    with torch.no_grad():
        wired, _ = irnn.wiring_of(model).simulate(held_out, observing=False)
        gap = max(float((a - b).abs().max()) for a, b in zip(tensors(wired), tensors(teacher(*held_out)), strict=True))
    irnn.calibrate(model, [network.example(BATCH, STEPS, seed) for seed in range(100, 116)])
    irnn.set_stage(model, "all").eval()
    calibrated = error(model, teacher, held_out)
    shares = parts(model, teacher, held_out)
    best = copy.deepcopy(model)
    train(best, teacher, network, steps)
    return {
        "network": network.__name__,
        "what": network.__doc__.strip(),
        "nodes": nodes,
        "float_gap": gap,
        "error_calibrated": calibrated,
        **shares,
        "error_trained": error(best, teacher, held_out),
        "steps": steps,
        **mismatches(best, held_out),
    }


def error(model: nn.Module, teacher: nn.Module, arguments: tuple[Any, ...]) -> float:
    """Root mean square, in shares of the output's range, of the worst output."""
    with torch.no_grad():
        return worst(tensors(model(*arguments)), tensors(teacher(*arguments)))


def worst(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    """The largest error of any output."""
    pairs = zip(found, wanted, strict=True)
    return max(float((a - b).square().mean().sqrt() / (b.max() - b.min())) for a, b in pairs)


def parts(model: nn.Module, teacher: nn.Module, arguments: tuple[Any, ...]) -> dict[str, float]:
    """The error of one kind of rounding alone, all else in float: weights; tables and gates of 8 bits; sites."""
    wiring, found = irnn.wiring_of(model), {}
    with torch.no_grad():
        wanted = tensors(teacher(*arguments))
        for kind in ("weights", "tables", "sites"):
            saved = []
            for module in wiring.modules():
                on = kind == KINDS.get(next((k for k in KINDS if isinstance(module, k)), None))
                changes = {"quantizing": on} if isinstance(module, tuple(KINDS)) else {}
                if isinstance(module, (Activation, Exponential)) and kind != "tables":
                    changes["pieces"] = None
                saved += [(module, name, getattr(module, name)) for name in changes]
                for name, value in changes.items():
                    setattr(module, name, value)
            outputs, _ = wiring.simulate(arguments, observing=False)
            found[f"error_{kind}"] = worst(tensors(outputs), wanted)
            for module, name, value in saved:
                setattr(module, name, value)
    return found


KINDS: dict[Any, str] = {QuantSite: "sites", Activation: "tables", Weight: "weights"}


def train(model: nn.Module, teacher: nn.Module, network: Any, steps: int) -> None:
    """Towards the teacher's outputs, each in shares of its range; dropout would be noise to this loss."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, nn.RNNBase):
            module.dropout = 0.0
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    irnn.set_stage(model, "all").train()
    for step in range(steps):
        arguments = network.example(BATCH, STEPS, 1000 + step)
        with torch.no_grad():
            wanted = tensors(teacher(*arguments))
        pairs = zip(tensors(model(*arguments)), wanted, strict=True)
        loss = torch.stack([((a - b) / (b.max() - b.min())).square().mean() for a, b in pairs]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


def mismatches(model: nn.Module, arguments: tuple[Any, ...]) -> dict[str, int]:
    """Integers of all outputs that differ from the interpreter's, by executor."""
    program = irnn.convert(model)
    wiring = irnn.wiring_of(model)
    inputs, state = wiring.program_arguments(program, *arguments)
    expected, _ = program.run_all(inputs, state)
    with torch.no_grad():
        evaluated = wiring.frozen().run_all(
            {name: torch.from_numpy(x) for name, x in inputs.items()},
            {name: torch.from_numpy(x) for name, x in state.items()},
        )[0]
    with tempfile.TemporaryDirectory() as folder:
        compiled, _ = deploy_tvm.load(deploy_tvm.build(program, folder)).run_all(inputs, state)
    return {
        "integers": int(sum(y.size for y in expected)),
        "mismatches_eval": sum(int((a.numpy() != b).sum()) for a, b in zip(evaluated, expected, strict=True)),
        "mismatches_tvm": sum(int((np.asarray(a) != b).sum()) for a, b in zip(compiled, expected, strict=True)),
        "bytes": program.size_bytes(),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", help="names; all where none is given")
    parser.add_argument("--steps", type=int, default=200, help="of training")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # random networks of ten units are served badly here and there
    names = [network.__name__ for network in NETWORKS]
    for network in NETWORKS:
        if not chosen.networks or network.__name__ in chosen.networks:
            row = measure(network, chosen.steps)
            print({key: value for key, value in row.items() if key != "what"}, flush=True)
            there = json.loads(chosen.out.read_text(encoding="utf-8"))["networks"] if chosen.out.is_file() else []
            rows = {old["network"]: old for old in there} | {row["network"]: row}
            kept = [rows[name] for name in names if name in rows]
            chosen.out.write_text(json.dumps({"networks": kept}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
