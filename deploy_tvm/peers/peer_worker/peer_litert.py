"""LiteRT (TensorFlow Lite), converted from the same weights through Keras 2."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from peer_network import Network
from peer_serving import Runtime


def litert_model(network: Network, *, kind: str) -> bytes:
    """The network as a LiteRT flatbuffer, made from the same weights through Keras 2 and TensorFlow's converter."""
    import tensorflow as tf
    import tf_keras

    stack = network.plain_layers()
    steps, size = network.steps, network.inputs.shape[-1]
    model = tf_keras.Sequential([tf_keras.layers.Input((steps, size), batch_size=1)])
    for layer in stack.layers:
        cell = tf_keras.layers.LSTM(stack.hidden, return_sequences=True)
        model.add(tf_keras.layers.Bidirectional(cell) if len(layer) == 2 else cell)
        model.layers[-1].set_weights([a for w_x, w_h, bias in layer for a in (w_x.T, w_h.T, bias)])
    call = tf.function(lambda x: model(x)).get_concrete_function(tf.TensorSpec([1, steps, size], tf.float32))
    saved = network.folder / f"litert_{kind}"
    tf.saved_model.save(model, str(saved), signatures=call)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
    if kind != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "integer_only_int8":
        rng = np.random.default_rng(1)
        samples = [[rng.standard_normal((1, steps, size)).astype(np.float32)] for _ in range(8)]
        converter.representative_dataset = lambda: samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def load_litert(network: Network, *, kind: str) -> Runtime:
    """LiteRT with its defaults (XNNPACK on)."""
    from ai_edge_litert.interpreter import Interpreter

    for package in ("tensorflow", "tf_keras"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r} (it converts the model)")
    path = network.folder / f"litert_{kind}.tflite"
    # TensorFlow is large and has threads of its own: the converter runs and ends in another process.
    command = [sys.executable, str(Path(__file__).parent), "convert", kind, str(network.folder), str(path)]
    converter = subprocess.run(command, capture_output=True, text=True, check=False)
    if converter.returncode:
        raise RuntimeError(f"the conversion failed: {converter.stderr.strip().splitlines()[-1:]}")
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    x = network.inputs.reshape(source["shape"])
    if source["dtype"] is np.int8:
        scale, zero_point = source["quantization"]
        x = np.clip(np.floor(x / scale + zero_point + 0.5), -128, 127).astype(np.int8)

    def call() -> list[np.ndarray]:
        interpreter.set_tensor(source["index"], x)
        interpreter.invoke()
        return [interpreter.get_tensor(target["index"])]

    return Runtime(call, {"ai-edge-litert": version("ai-edge-litert"), "tensorflow": version("tensorflow-cpu")})
