"""A float program executed with NumPy in float64: what the compiled float baseline is compared with."""

from __future__ import annotations

import numpy as np

from irnn.program import Node, Program, Scan


def run_float(program: Program, inputs: np.ndarray, state: dict[str, np.ndarray]) -> tuple[np.ndarray, dict]:
    """Inputs ``[batch, time, ...]`` -> (output, last state)."""
    environment = dict.fromkeys(program.inputs, inputs)
    state = dict(state)
    for item in program.nodes:
        if isinstance(item, Scan):
            steps = range(inputs.shape[1])
            collected = {outer: [None] * len(steps) for outer in item.outputs}
            for t in reversed(steps) if item.reverse else steps:
                local = {inner: environment[outer][:, t] for inner, outer in item.sequences.items()}
                local |= {before: state[name] for name, (before, _) in item.states.items()}
                for node in item.body:
                    local[node.output] = _node(program, node, [local[name] for name in node.inputs])
                state |= {name: local[after] for name, (_, after) in item.states.items()}
                for outer, inner in item.outputs.items():
                    collected[outer][t] = local[inner]
            environment |= {outer: np.stack(items, axis=1) for outer, items in collected.items()}
        else:
            environment[item.output] = _node(program, item, [environment[name] for name in item.inputs])
    return environment[program.outputs[0]], state


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
        case "last":
            return x[0][:, -1] if len(x) == 1 else x[0][np.arange(len(x[1])), x[1] - 1]
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
