"""The readable listing of a program: ``python -m irnn.program describe FOLDER``."""

from __future__ import annotations

from irnn.program.check import ranges
from irnn.program.graph import Graph, Node, Scan, Tensor, Value


def listing(program: Graph) -> str:
    """One line an operation with formats and (integer programs) proved ranges; constants with bits and bytes."""
    proved = ranges(program) if program.kind == "integer" else {}
    lines = [f"{program.kind} program"]
    lines += [f"  {key}: {value}" for key, value in program.metadata.items() if not isinstance(value, (dict, list))]
    lines += ["", "inputs"]
    lines += [f"  {name:34s} {_format(value)}" for name, value in program.inputs.items()]
    lines += ["states"]
    lines += [f"  {n:34s} {s.dtype}[{_size(s.shape)}]  starts at {s.initial}" for n, s in program.states.items()]
    lines += ["operations"]
    for item in program.nodes:
        if isinstance(item, Scan):
            lines += _scan(item, program, proved)
        else:
            lines.append(_node(item, program, proved, "  "))
    lines += ["outputs"]
    lines += [f"  {name:34s} {_format(program.values[name])}" for name in program.outputs]
    lines += ["constants"]
    lines += [_constant(name, tensor) for name, tensor in program.tensors.items()]
    lines.append(f"  {'total':55s} {program.size_bytes():>12,} bytes")
    return "\n".join(lines)


def _scan(scan: Scan, program: Graph, proved: dict[str, tuple[int, int]]) -> list[str]:
    direction = "from the last step to the first" if scan.reverse else "over time"
    walked = ", ".join(f"{inner} in {outer}" for inner, outer in scan.sequences.items())
    lines = [f"  scan {direction}: {walked}"]
    if scan.captures:
        lines.append(f"    with {', '.join(scan.captures)}")
    if scan.lengths:
        lines.append(f"    states rest behind {scan.lengths}")
    lines += [_node(node, program, proved, "    ") for node in scan.body]
    lines += [f"    {name} starts at {value}" for name, value in scan.starts.items()]
    lines += [f"    next {name} = {after}" for name, (_, after) in scan.states.items()]
    lines += [f"    last {name} is {value}" for value, name in scan.finals.items()]
    lines += [f"    collect {inner} into {outer}" for outer, inner in scan.outputs.items()]
    return lines


def _node(node: Node, program: Graph, proved: dict[str, tuple[int, int]], indent: str) -> str:
    arguments = ", ".join([*node.inputs, *(f"{k}={v}" for k, v in node.attributes.items() if k not in ("low", "high"))])
    span = f"  in {proved[node.output][0]}..{proved[node.output][1]}" if node.output in proved else ""
    return f"{indent}{node.output:34s} {_format(program.values[node.output])}{span}  = {node.op}({arguments})"


def _format(value: Value) -> str:
    size = f"[{_size(value.shape)}]" if value.shape else ""
    if value.axes != Value.axes:
        size += f" along {', '.join(value.axes)}" if value.axes else " one a sequence"
    scale = f" scale {value.scale:.6g}" if value.scale is not None else " several scales"
    if value.dtype in ("float32",) or not value.shape:
        return f"{value.dtype}{size}"
    return f"{value.dtype}{size}{scale}" + (f" zero point {value.zero_point}" if value.zero_point else "")


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _constant(name: str, tensor: Tensor) -> str:
    size = (tensor.data.size * tensor.storage_bits + 7) // 8
    shape = _size(tensor.data.shape)
    packed = f" packed in {tensor.storage_bits}" if tensor.storage_bits < 8 else ""
    return f"  {name:34s} {tensor.bits:2d} bits{packed} {shape:>12s} {size:>12,} bytes"
