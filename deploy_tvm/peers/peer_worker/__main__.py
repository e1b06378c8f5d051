"""``RUNTIME JOB_FOLDER CORE`` serves one runtime, ``train LIBRARY JOB_FILE CORE`` the training steps of one library;
``convert KIND FORM JOB_FOLDER FILE`` writes LiteRT's flatbuffer."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peer_litert import litert_model, load_litert
from peer_network import Network
from peer_onnxruntime import load_onnxruntime
from peer_openvino import load_openvino
from peer_serving import Runtime, serve
from peer_torch import load_torch
from peer_training import load_brevitas_training, load_torch_training

LOADERS: dict[str, Callable[[Network], Runtime]] = {
    "onnxruntime_fp32": lambda n: load_onnxruntime(n),
    "onnxruntime_dynamic_int8": lambda n: load_onnxruntime(n, int8=True),
    "onnxruntime_nbits_4": lambda n: load_onnxruntime(n, bits=4),
    "onnxruntime_nbits_2": lambda n: load_onnxruntime(n, bits=2),
    "openvino_fp32": lambda n: load_openvino(n, kind="fp32"),
    "openvino_bf16": lambda n: load_openvino(n, kind="bf16"),
    "openvino_nncf_int8": lambda n: load_openvino(n, kind="nncf_int8"),
    "litert_fp32": lambda n: load_litert(n, kind="fp32"),
    "litert_dynamic_int8": lambda n: load_litert(n, kind="dynamic_int8"),
    "litert_integer_only_int8": lambda n: load_litert(n, kind="integer_only_int8"),
    "torch_fp32": lambda n: load_torch(n, int8=False),
    "torch_dynamic_int8": lambda n: load_torch(n, int8=True),
}

TRAINING: dict[str, Callable[[dict[str, Any]], Runtime]] = {
    "torch": load_torch_training,
    "brevitas": lambda job: load_brevitas_training(job, jit=False),
    "brevitas_jit": lambda job: load_brevitas_training(job, jit=True),
}


def main(arguments: list[str]) -> None:
    """Run one of the three commands."""
    if arguments[0] == "convert":
        _, kind, form, folder, path = arguments
        Path(path).write_bytes(litert_model(Network.load(Path(folder)), kind=kind, form=form))
        return
    if arguments[0] == "train":
        _, library, file, core = arguments
        job = json.loads(Path(file).read_text(encoding="utf-8"))
        serve(lambda: TRAINING[library](job), int(core) if core else None)
        return
    name, folder, core = arguments
    serve(lambda: LOADERS[name](Network.load(Path(folder))), int(core) if core else None)


if __name__ == "__main__":
    main(sys.argv[1:])
