"""LiteRT (TensorFlow Lite), converted from the same weights through Keras 2.

Its LSTM is one operator, which keeps its state.  A GRU it has not: Keras' becomes a loop, or a step after the other
(unrolled), and whichever is quicker is timed; its states are inputs and outputs, since a first state of constant zeros
would be folded into the model, the recurrent product with it.
"""

from __future__ import annotations

import importlib.util
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from peer_network import Network, Stack
from peer_serving import Runtime, quicker

# How a model is written.  LiteRT's quantizer of activations crashes over loops.
FORMS = {"lstm": ("operator",), "gru": ("loop", "unrolled")}
WITHOUT_LOOPS = "integer_only_int8"
SAMPLES = 8


def litert_model(network: Network, *, kind: str, form: str) -> bytes:
    """The network as a LiteRT flatbuffer, made from the same weights through Keras 2 and TensorFlow's converter."""
    import tensorflow as tf

    stack = network.plain_layers()
    steps, batch, size = network.inputs.shape
    sequence = (batch, steps, size)
    shapes: dict[str, tuple[int, ...]] = {"x": sequence}
    if form == "operator":
        model = _lstm(stack, sequence)
    else:
        model = _gru(stack, sequence, unroll=form == "unrolled")
        cells = range(len(stack.layers) * stack.directions)
        shapes |= {f"h{k}": (batch, stack.hidden) for k in cells}
    specifications = [tf.TensorSpec(shape, tf.float32, name) for name, shape in shapes.items()]

    def call(*arrays: Any) -> dict[str, Any]:
        y, *states = tf.nest.flatten(model(list(arrays) if len(arrays) > 1 else arrays[0]))
        return {"y": y} | {f"h{k}_next": state for k, state in enumerate(states)}

    saved = network.folder / f"litert_{kind}_{form}"
    tf.saved_model.save(model, str(saved), signatures=tf.function(call).get_concrete_function(*specifications))
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
    if kind != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "integer_only_int8":
        rng = np.random.default_rng(1)
        samples = [{name: _sample(rng, name, shape) for name, shape in shapes.items()} for _ in range(SAMPLES)]
        converter.representative_dataset = lambda: samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def _sample(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Calibration data: features as the benchmark's, states over their whole range, that of tanh."""
    drawn = rng.standard_normal(shape) if name == "x" else rng.uniform(-1, 1, shape)
    return drawn.astype(np.float32)


def _lstm(stack: Stack, shape: tuple[int, int, int]) -> Any:
    """shape: of x, batch first."""
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Input(shape[1:], batch_size=shape[0])])
    for layer in stack.layers:
        operator = tf_keras.layers.LSTM(stack.hidden, return_sequences=True)
        model.add(tf_keras.layers.Bidirectional(operator) if len(layer) == 2 else operator)
        arrays = (cell.in_order("ifgo") for cell in layer)
        model.layers[-1].set_weights([a for w_x, w_h, b_x, b_h in arrays for a in (w_x.T, w_h.T, b_x + b_h)])
    return model


def _gru(stack: Stack, shape: tuple[int, int, int], *, unroll: bool) -> Any:
    """Inputs: x and a state of each cell; outputs: y and the states.  ``reset_after`` is torch's GRU."""
    import tf_keras

    batch = shape[0]
    x = tf_keras.layers.Input(shape[1:], batch_size=batch)
    inputs, states = [x], []
    for layer in stack.layers:
        given = [tf_keras.layers.Input((stack.hidden,), batch_size=batch) for _ in layer]
        loop = tf_keras.layers.GRU(
            stack.hidden, return_sequences=True, return_state=True, reset_after=True, unroll=unroll
        )
        if len(layer) == 2:
            loop = tf_keras.layers.Bidirectional(loop)
        x, *after = loop(x, initial_state=given)
        arrays = (cell.in_order("zrn") for cell in layer)
        loop.set_weights([a for w_x, w_h, b_x, b_h in arrays for a in (w_x.T, w_h.T, np.stack([b_x, b_h]))])
        inputs += given
        states += after
    return tf_keras.Model(inputs, [x, *states])


def load_litert(network: Network, *, kind: str) -> Runtime:
    """LiteRT with its defaults (XNNPACK on); the model that is timed is left as ``litert_<kind>.tflite``."""
    from ai_edge_litert.interpreter import Interpreter

    for package in ("tensorflow", "tf_keras"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r} (it converts the model)")
    if (cell := network.plain_layers().kind) not in FORMS:
        raise NotImplementedError(f"this runtime is set up for {' and '.join(FORMS)}, not for {cell}")
    forms = [form for form in FORMS[cell] if (form, kind) != ("loop", WITHOUT_LOOPS)]
    models = {form: _Model(Interpreter, _converted(network, kind, form), network) for form in forms}
    chosen, _ = quicker({form: model.call for form, model in models.items()})
    model = models[chosen]
    shutil.copy(model.path, network.folder / f"litert_{kind}.tflite")
    versions = {"ai-edge-litert": version("ai-edge-litert"), "tensorflow": version("tensorflow-cpu")}
    return Runtime(model.call, versions, "" if chosen == "operator" else chosen, compared=model.real)


def _converted(network: Network, kind: str, form: str) -> Path:
    """The model's file.  TensorFlow is large and has threads of its own: the converter runs in another process."""
    path = network.folder / f"litert_{kind}_{form}.tflite"
    command = [sys.executable, str(Path(__file__).parent), "convert", kind, form, str(network.folder), str(path)]
    converter = subprocess.run(command, capture_output=True, text=True, check=False)
    if converter.returncode < 0:
        raise RuntimeError(f"the conversion was ended by {signal.Signals(-converter.returncode).name}")
    if converter.returncode:
        raise RuntimeError(f"the conversion failed: {converter.stderr.strip().splitlines()[-1:]}")
    return path


class _Model:
    """An interpreter of a flatbuffer with its inputs: the data, and states of zeros where the model takes them."""

    def __init__(self, interpreter_class: Any, path: Path, network: Network) -> None:
        self.path = path
        self.interpreter = interpreter_class(str(path), num_threads=1)
        self.interpreter.allocate_tensors()
        self.inputs = []
        for place in self.interpreter.get_input_details():
            is_data = "_x" in place["name"]
            given = network.inputs.swapaxes(0, 1) if is_data else np.zeros(place["shape"], np.float32)
            self.inputs.append((place["index"], _quantized(np.ascontiguousarray(given), place)))
        outputs = self.interpreter.get_output_details()
        # The sequence has three axes, a state two.
        self.outputs = sorted(outputs, key=lambda place: -len(place["shape"]))

    def call(self) -> list[np.ndarray]:
        for index, array in self.inputs:
            self.interpreter.set_tensor(index, array)
        self.interpreter.invoke()
        return [self.interpreter.get_tensor(place["index"]) for place in self.outputs]

    def real(self, output: np.ndarray) -> np.ndarray:
        """The first output in real numbers."""
        if output.dtype != np.int8:
            return output
        scale, zero_point = self.outputs[0]["quantization"]
        return ((output.astype(np.float64) - zero_point) * scale).astype(np.float32)


def _quantized(x: np.ndarray, place: dict[str, Any]) -> np.ndarray:
    """Real numbers as an input of the model takes them."""
    if place["dtype"] is not np.int8:
        return x
    scale, zero_point = place["quantization"]
    return np.clip(np.floor(x / scale + zero_point + 0.5), -128, 127).astype(np.int8)
