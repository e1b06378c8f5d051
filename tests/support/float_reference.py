"""A float program executed with NumPy in float64: what the compiled float baseline is compared with."""

from __future__ import annotations

import numpy as np

from irnn.program import Node, Program, Scan
from tests.support.program_oracle import windows


def run_float(
    program: Program, inputs: np.ndarray | dict[str, np.ndarray], state: dict[str, np.ndarray]
) -> tuple[np.ndarray, dict]:
    """Inputs ``[batch, time, ...]``, several by their names -> (output, last state)."""
    environment = dict(inputs) if isinstance(inputs, dict) else dict.fromkeys(program.inputs, inputs)
    own = dict(state)
    for item in program.nodes:
        if isinstance(item, Scan):
            steps = range(environment[next(iter(item.sequences.values()))].shape[1])
            collected = {outer: [None] * len(steps) for outer in item.outputs}
            held = {name: environment[item.starts[name]] if name in item.starts else own[name] for name in item.states}
            for t in reversed(steps) if item.reverse else steps:
                local = {inner: environment[outer][:, t] for inner, outer in item.sequences.items()}
                local |= {before: held[name] for name, (before, _) in item.states.items()}
                for node in item.body:
                    local[node.output] = _node(program, node, [local[name] for name in node.inputs])
                held |= {name: local[after] for name, (_, after) in item.states.items()}
                for outer, inner in item.outputs.items():
                    collected[outer][t] = local[inner]
            environment |= {outer: np.stack(items, axis=1) for outer, items in collected.items()}
            environment |= {outer: held[name] for outer, name in item.finals.items()}
            own |= {name: array for name, array in held.items() if name not in item.starts}
        else:
            environment[item.output] = _node(program, item, [environment[name] for name in item.inputs])
    return environment[program.outputs[0]], own


def _pooled(node: Node, rows: np.ndarray) -> np.ndarray:
    """One sequence: the mean counts the border as zeros, the maximum never sees it."""
    mean = node.op == "mean_pool"
    taps = np.array(windows(rows.tolist(), node.attributes, 0.0 if mean else -np.inf))
    return (taps.mean(2) if mean else taps.max(2)).reshape(len(taps), -1)


def _node(program: Program, node: Node, x: list[np.ndarray]) -> np.ndarray:
    w = {role: program.tensors[name].data.astype(np.float64) for role, name in node.tensors.items()}
    a = node.attributes
    match node.op:
        case "embedding":
            return w["table"][x[0]]
        case "linear":
            return x[0] @ w["weight"].T + w["bias"]
        case "add":
            return x[0] + x[1]
        case "multiply":
            return x[0] * x[1]
        case "complement":
            return 1 - x[0]
        case "minimum":
            return np.minimum(*x)
        case "last":
            return x[0][:, -1] if len(x) == 1 else x[0][np.arange(len(x[1])), x[1] - 1]
        case "step":
            return x[0][:, a["index"]]
        case "repeat":
            return np.repeat(x[0][:, None], x[1].shape[1], axis=1)
        case "time_mean" | "time_max":
            lengths = x[1] if len(x) == 2 else np.full(len(x[0]), x[0].shape[1])
            reduce = np.mean if node.op == "time_mean" else np.max
            return np.stack([reduce(rows[:n], axis=0) for rows, n in zip(x[0], lengths, strict=True)])
        case "max_pool" | "mean_pool":
            return np.stack([_pooled(node, rows) for rows in x[0]])
        case "patches":
            rows = [windows(sequence.tolist(), a, 0.0) for sequence in x[0]]
            return np.array(rows).reshape(len(rows), len(rows[0]), len(rows[0][0]), -1)
        case "flatten":
            return x[0].reshape(*x[0].shape[:-2], -1)
        case "relu":
            return np.maximum(x[0], 0)
        case "subtract":
            return x[0] - x[1]
        case "affine":
            return w["gain"] * x[0] + w["bias"]
        case "scale":
            return x[0] * a["factor"]
        case "clamp":
            return np.clip(x[0], a.get("low", -np.inf), a.get("high", np.inf))
        case "mod_relu":
            return np.sign(x[0]) * np.maximum(np.abs(x[0]) + w["bias"], 0)
        case "sigmoid":
            return 1 / (1 + np.exp(-x[0]))
        case "tanh":
            return np.tanh(x[0])
        case "slice":
            return x[0][..., a["start"] : a["stop"]]
        case "concat":
            return np.concatenate(x, axis=-1)
    rows = x[0].reshape(*x[0].shape[:-1], a["groups"], -1)
    centered = rows - rows.mean(-1, keepdims=True)
    if node.op == "mad_norm":
        spread = np.abs(centered).mean(-1, keepdims=True) + a["epsilon"]
    else:
        spread = np.sqrt((centered**2).mean(-1, keepdims=True) + a["epsilon"])
    return (centered / spread).reshape(x[0].shape) * w["gamma"] + w["beta"]
