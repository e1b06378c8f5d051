"""The runtimes that a user would pick instead of ours, and how their workers are started."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from irnn.errors import IrnnError

PEERS = {
    "onnxruntime": ("onnxruntime_fp32", "onnxruntime_dynamic_int8"),
    "onnxruntime-nbits": ("onnxruntime_nbits_4", "onnxruntime_nbits_2"),
    "openvino": ("openvino_fp32", "openvino_bf16", "openvino_nncf_int8"),
    "litert": ("litert_fp32", "litert_dynamic_int8", "litert_integer_only_int8"),
    "torch": ("torch_fp32", "torch_dynamic_int8"),
}
PACKAGES = {
    "onnxruntime": "onnxruntime onnx",
    "openvino": "openvino nncf onnx",
    "litert": "ai-edge-litert tensorflow-cpu tf_keras",
    "torch": "torch",
}

_WORKER = Path(__file__).with_name("peer_worker")


def parse_against(text: str) -> tuple[str, ...]:
    """``onnxruntime,litert`` -> the runtimes' keys; an empty text means none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in PEERS:
            raise IrnnError(f"--against={name}: unknown runtime; allowed are {', '.join(PEERS)}")
    return tuple(key for name in dict.fromkeys(names) for key in PEERS[name])


def interpreter(path: str | None) -> str:
    """The Python that runs the peers: ``path``, or the present one."""
    if path is None:
        return sys.executable
    found = shutil.which(path)
    if found is None:
        raise IrnnError(f"--peers-python={path}: no such program; give the python of an environment with the peers")
    return found


def command(key: str, python: str, job: Path, core: int | None) -> list[str]:
    """How the worker of one runtime is started; ``job`` is a folder that ``recurrent_stack.save_job`` wrote."""
    return [python, str(_WORKER), key, str(job), "" if core is None else str(core)]


def training_command(library: str, python: str, job: Path, core: int | None) -> list[str]:
    """How the worker of one library's training steps is started; ``job`` is a JSON file (``peer_training``)."""
    return [python, str(_WORKER), "train", library, str(job), "" if core is None else str(core)]


def absent_reason(key: str, error: str) -> str:
    """Why a runtime that is not installed has no figure, and how to mend it."""
    packages = PACKAGES[key.split("_")[0]]
    return f"not installed ({error}): pip install {packages}, or name an interpreter that has them with --peers-python"
