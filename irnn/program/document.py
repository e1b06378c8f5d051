"""The program as a document: ``program.json`` (readable) and ``tensors.safetensors``; no pickles.

``program.json`` holds the format version, the graph, and for each tensor its true shape, bits and encoding, plus the
sha256 of ``tensors.safetensors`` and of itself.  How an encoding packs its integers stands in ``encodings``; version 1
says ``packed_bits`` (2 or 4) in place of an encoding.  A C or FPGA engineer needs no more than this and the list of
operations in ``docs/operations.md``.
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
from safetensors.numpy import save as save_tensors

from irnn.errors import IrnnError
from irnn.places import need_folder
from irnn.program.encodings import decode, encode, version_1
from irnn.program.graph import Graph, Node, Scan, State, Tensor, Value
from irnn.program.ops import OPS

PROGRAM_FILE = "program.json"
TENSORS_FILE = "tensors.safetensors"


# Version 2 has encodings beside those of version 1, the operations that say so (borders of any width among them), int16
# operands of ``linear``, and states that are values.  What version 1 can express is written as version 1, so that its
# hash stays what it was.
VERSIONS = (1, 2)
# A document of version 2 or later names the irnn that reads it first.
FIRST_READERS = {2: "0.2.0"}


def format_version(graph: Graph) -> int:
    """The format version that the program needs."""
    encoded = (tensor.encoding == version_1(str(tensor.data.dtype), tensor.bits) for tensor in graph.tensors.values())
    values = graph.inputs | graph.values
    operations = (OPS[node.op].format_version(node, values) for node in graph.walk())
    scans = (item for item in graph.nodes if isinstance(item, Scan))
    states_as_values = any(scan.starts or scan.finals for scan in scans)
    return max(2 if states_as_values or not all(encoded) else 1, max(operations, default=1))


def program_hash(graph: Graph) -> str:
    """sha256 over everything that decides what the program computes (not its metadata)."""
    document, blob = serialize(graph)
    document.pop("metadata")
    return hashlib.sha256(canonical(document) + blob).hexdigest()


def save(graph: Graph, folder: Any) -> None:
    """Write the program into ``folder``, whole or not at all (a full disk leaves nothing)."""
    folder = Path(folder)
    document, blob = serialize(graph)
    document["tensors_sha256"] = hashlib.sha256(blob).hexdigest()
    document["sha256"] = hashlib.sha256(canonical(document)).hexdigest()
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


def _refuse_foreign(folder: Path) -> None:
    foreign = sorted(p.name for p in folder.iterdir() if p.name not in (PROGRAM_FILE, TENSORS_FILE))
    if foreign:
        raise IrnnError(f"{folder} holds other files ({foreign[0]}); choose an empty folder for the program")


def canonical(document: dict[str, Any]) -> bytes:
    """What a document's hash is taken of."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def serialize(graph: Graph) -> tuple[dict[str, Any], bytes]:
    """(``program.json`` without its hashes, the bytes of ``tensors.safetensors``)."""
    version = format_version(graph)
    arrays, described = {}, {}
    for name, tensor in sorted(graph.tensors.items()):
        data, codebook = encode(tensor.data, tensor.bits, tensor.encoding)
        arrays[name] = np.ascontiguousarray(data)
        described[name] = {"shape": list(tensor.data.shape), "bits": tensor.bits, "dtype": str(tensor.data.dtype)}
        if version > 1:
            described[name]["encoding"] = tensor.encoding
        elif tensor.storage_bits < 8:
            described[name]["packed_bits"] = tensor.storage_bits
        if codebook is not None:
            described[name]["codebook"] = codebook
    document = {
        "format_version": version,
        "kind": graph.kind,
        "metadata": graph.metadata,
        "inputs": {name: _value(value) for name, value in graph.inputs.items()},
        "outputs": list(graph.outputs),
        "states": {
            n: {"dtype": s.dtype, "shape": list(s.shape), "initial": s.initial} for n, s in graph.states.items()
        },
        "values": {name: _value(value) for name, value in graph.values.items()},
        "nodes": [_scan(item) if isinstance(item, Scan) else _node(item) for item in graph.nodes],
        "tensors": described,
    }
    if version > 1:
        document["needs_irnn"] = FIRST_READERS[version]
    return document, save_tensors(arrays)


def _value(value: Value) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "dtype": value.dtype,
        "shape": list(value.shape),
        "scale": value.scale,
        "zero_point": value.zero_point,
    }
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
    return fields | {key: said for key, said in (("starts", scan.starts), ("finals", scan.finals)) if said}


def deserialize(document: dict[str, Any], arrays: dict[str, np.ndarray]) -> Graph:
    """The reverse of :func:`serialize`; what is missing or of the wrong type raises as Python does."""

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
        values = fields.get("starts", {}), fields.get("finals", {})
        return Scan(
            fields["sequences"], states, fields["outputs"], body, fields["reverse"], captures, fields.get("lengths"),
            *values,
        )  # fmt: skip

    tensors = {}
    for name, fields in document["tensors"].items():
        shape, bits = tuple(fields["shape"]), fields["bits"]
        encoding = fields.get("encoding") or version_1(fields["dtype"], bits)
        data = decode(arrays[name], bits, encoding, shape[-1] if shape else 1, fields.get("codebook"))
        if data.shape != shape or str(data.dtype) != fields["dtype"]:
            raise ValueError(f"tensor {name} is {data.dtype}{data.shape}, not {fields['dtype']}{shape}")
        tensors[name] = Tensor(data, bits, encoding)
    return Graph(
        kind=document["kind"],
        inputs={name: value(f) for name, f in document["inputs"].items()},
        outputs=tuple(document["outputs"]),
        states={n: State(f["dtype"], tuple(f["shape"]), f["initial"]) for n, f in document["states"].items()},
        values={name: value(f) for name, f in document["values"].items()},
        nodes=tuple(item(f) for f in document["nodes"]),
        tensors=tensors,
        metadata=document["metadata"],
    )
