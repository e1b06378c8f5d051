"""Programs on disk: ``program.json`` (readable) and ``tensors.safetensors``; no pickles.

``program.json`` holds the format version, the graph, and for each tensor its true shape, bits and packing, plus
the sha256 of ``tensors.safetensors`` and of itself.  Weights of 4 (3) and 2 bits are packed along their last
axis into uint8: element ``k`` of a row stands in byte ``k // per_byte``, at bit ``bits * (k % per_byte)``, as two's
complement; each row starts at a byte.  A C or FPGA engineer needs no more than this and the list of operations in
``irnn/program/graph.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from irnn.errors import IrnnError
from irnn.places import need_folder
from irnn.program import FORMAT_VERSION, Node, Program, Scan, State, Tensor, Value
from irnn.program.sets import SET_FILE, ProgramSet, load_set

PROGRAM_FILE = "program.json"
TENSORS_FILE = "tensors.safetensors"


def pack(data: np.ndarray, bits: int) -> np.ndarray:
    """int8 ``[..., n]`` with values of ``bits`` (2 or 4) -> uint8 ``[..., ceil(n * bits / 8)]``."""
    per_byte = 8 // bits
    padding = -data.shape[-1] % per_byte
    padded = np.pad(data, [(0, 0)] * (data.ndim - 1) + [(0, padding)])
    fields = padded.view(np.uint8).reshape(*padded.shape[:-1], -1, per_byte) & ((1 << bits) - 1)
    shifts = np.arange(per_byte, dtype=np.uint8) * bits
    return np.bitwise_or.reduce(fields << shifts, axis=-1).astype(np.uint8)


def unpack(packed: np.ndarray, bits: int, length: int) -> np.ndarray:
    """The reverse of :func:`pack`: int8 ``[..., length]``."""
    per_byte = 8 // bits
    shifts = np.arange(per_byte, dtype=np.uint8) * bits
    fields = (packed[..., None] >> shifts) & ((1 << bits) - 1)
    flat = fields.reshape(*packed.shape[:-1], -1)[..., :length].astype(np.int16)
    return np.where(flat >= 1 << (bits - 1), flat - (1 << bits), flat).astype(np.int8)


def program_hash(program: Program) -> str:
    """sha256 over everything that decides what the program computes (not its metadata)."""
    document, blob = _serialize(program)
    document.pop("metadata")
    return hashlib.sha256(_canonical(document) + blob).hexdigest()


def save(program: Program, folder: Any) -> None:
    """Write the program into ``folder``, whole or not at all (a full disk leaves nothing)."""
    folder = Path(folder)
    document, blob = _serialize(program)
    document["tensors_sha256"] = hashlib.sha256(blob).hexdigest()
    document["sha256"] = hashlib.sha256(_canonical(document)).hexdigest()
    need_folder(folder.absolute().parent, f"the program {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        (temporary / PROGRAM_FILE).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (temporary / TENSORS_FILE).write_bytes(blob)
        os.chmod(temporary, 0o755)
        if folder.exists():
            _refuse_foreign(folder)
            shutil.rmtree(folder)
        temporary.rename(folder)
    except OSError as error:
        raise IrnnError(f"cannot write the program to {folder}: {error.strerror or error}; nothing was kept") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load(folder: Any) -> Program | ProgramSet:
    """Read a program (or a set) that ``save`` wrote; a truncated, edited or foreign one is refused in one line."""
    folder = Path(folder)
    if (folder / SET_FILE).is_file():
        return load_set(folder)
    try:
        text = (folder / PROGRAM_FILE).read_text(encoding="utf-8")
        blob = (folder / TENSORS_FILE).read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        raise IrnnError(f"{folder} holds no readable program ({error}); give a folder that `save` wrote") from error
    try:
        document = json.loads(text)
        version = document["format_version"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise IrnnError(f"{folder / PROGRAM_FILE} is damaged ({error!r}); export the program again") from error
    if version != FORMAT_VERSION:
        raise IrnnError(
            f"{folder} has program format {version}, this version reads {FORMAT_VERSION}; export the program again"
        )
    declared = document.pop("sha256", None)
    if hashlib.sha256(_canonical(document)).hexdigest() != declared:
        raise IrnnError(
            f"{folder / PROGRAM_FILE} was edited or truncated: its sha256 differs; export the program again"
        )
    if hashlib.sha256(blob).hexdigest() != document["tensors_sha256"]:
        raise IrnnError(
            f"{folder / TENSORS_FILE} was edited or truncated: its sha256 differs; export the program again"
        )
    try:
        return _deserialize(document, load_tensors(blob))
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise IrnnError(f"{folder} holds no valid program ({error!r}); export the program again") from error


def _refuse_foreign(folder: Path) -> None:
    foreign = sorted(p.name for p in folder.iterdir() if p.name not in (PROGRAM_FILE, TENSORS_FILE))
    if foreign:
        raise IrnnError(f"{folder} holds other files ({foreign[0]}); choose an empty folder for the program")


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _serialize(program: Program) -> tuple[dict[str, Any], bytes]:
    arrays, described = {}, {}
    for name, tensor in sorted(program.tensors.items()):
        packed = tensor.storage_bits < 8
        data = pack(tensor.data, tensor.storage_bits) if packed else tensor.data
        arrays[name] = np.ascontiguousarray(data)
        described[name] = {"shape": list(tensor.data.shape), "bits": tensor.bits, "dtype": str(tensor.data.dtype)}
        if packed:
            described[name]["packed_bits"] = tensor.storage_bits
    document = {
        "format_version": FORMAT_VERSION,
        "kind": program.kind,
        "metadata": program.metadata,
        "inputs": {name: _value(value) for name, value in program.inputs.items()},
        "outputs": list(program.outputs),
        "states": {
            n: {"dtype": s.dtype, "shape": list(s.shape), "initial": s.initial} for n, s in program.states.items()
        },
        "values": {name: _value(value) for name, value in program.values.items()},
        "nodes": [_scan(item) if isinstance(item, Scan) else _node(item) for item in program.nodes],
        "tensors": described,
    }
    return document, save_tensors(arrays)


def _value(value: Value) -> dict[str, Any]:
    fields = {"dtype": value.dtype, "shape": list(value.shape), "scale": value.scale, "zero_point": value.zero_point}
    if value.low is not None:
        fields |= {"low": value.low, "high": value.high}
    if value.axes != Value.axes:
        fields["axes"] = list(value.axes)
    if value.counts is not None:
        fields["counts"] = value.counts
    return fields


def _node(node: Node) -> dict[str, Any]:
    return {
        "op": node.op,
        "inputs": list(node.inputs),
        "output": node.output,
        "attributes": node.attributes,
        "tensors": node.tensors,
    }


def _scan(scan: Scan) -> dict[str, Any]:
    fields = {
        "op": "scan",
        "reverse": scan.reverse,
        "sequences": scan.sequences,
        "states": {name: list(pair) for name, pair in scan.states.items()},
        "outputs": scan.outputs,
        "body": [_node(node) for node in scan.body],
    }
    if scan.captures:
        fields["captures"] = list(scan.captures)
    if scan.lengths is not None:
        fields["lengths"] = scan.lengths
    return fields


def _deserialize(document: dict[str, Any], arrays: dict[str, np.ndarray]) -> Program:
    def value(fields: dict[str, Any]) -> Value:
        return Value(**(fields | {key: tuple(fields[key]) for key in ("shape", "axes") if key in fields}))

    def node(fields: dict[str, Any]) -> Node:
        return Node(fields["op"], tuple(fields["inputs"]), fields["output"], fields["attributes"], fields["tensors"])

    def item(fields: dict[str, Any]) -> Node | Scan:
        if fields["op"] != "scan":
            return node(fields)
        states = {name: (before, after) for name, (before, after) in fields["states"].items()}
        body = tuple(node(f) for f in fields["body"])
        captures = tuple(fields.get("captures", ()))
        return Scan(
            fields["sequences"], states, fields["outputs"], body, fields["reverse"], captures, fields.get("lengths")
        )

    tensors = {}
    for name, fields in document["tensors"].items():
        data, shape = arrays[name], tuple(fields["shape"])
        if "packed_bits" in fields:
            data = unpack(data, fields["packed_bits"], shape[-1])
        if data.shape != shape or str(data.dtype) != fields["dtype"]:
            raise ValueError(f"tensor {name} is {data.dtype}{data.shape}, not {fields['dtype']}{shape}")
        tensors[name] = Tensor(data, fields["bits"])
    return Program(
        kind=document["kind"],
        inputs={name: value(f) for name, f in document["inputs"].items()},
        outputs=tuple(document["outputs"]),
        states={n: State(f["dtype"], tuple(f["shape"]), f["initial"]) for n, f in document["states"].items()},
        values={name: value(f) for name, f in document["values"].items()},
        nodes=tuple(item(f) for f in document["nodes"]),
        tensors=tensors,
        metadata=document["metadata"],
    )
