"""``MODEL CALLS``: runs another runtime's model, on one thread, as an emulated process whose instructions are counted.

It runs under the emulated board's Python with NumPy and the runtime, and nothing of this project.
"""

from __future__ import annotations

import sys

import numpy as np


def random_array(shape: list, dtype: type) -> np.ndarray:
    """Inputs of a model: sizes that it leaves open are 1."""
    sizes = [size if isinstance(size, int | np.integer) and size > 0 else 1 for size in shape]
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(sizes).astype(dtype)
    return rng.integers(-127, 127, sizes).astype(dtype)


def run_onnxruntime(path: str, calls: int) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    arrays = {value.name: random_array(value.shape, np.float32) for value in session.get_inputs()}
    results = {value.name: random_array(value.shape, np.float32) for value in session.get_outputs()}
    # Bound memory spares the runtime's Python interface: fewer instructions than session.run().
    binding = session.io_binding()
    for bind, bound in ((binding.bind_input, arrays), (binding.bind_output, results)):
        for name, array in bound.items():
            bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    for _ in range(calls):
        session.run_with_iobinding(binding)


def run_litert(path: str, calls: int) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    sources, targets = interpreter.get_input_details(), interpreter.get_output_details()
    arrays = [(place["index"], random_array(list(place["shape"]), place["dtype"])) for place in sources]
    for _ in range(calls):
        for index, array in arrays:
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        for place in targets:
            interpreter.get_tensor(place["index"])


if __name__ == "__main__":
    _, model, count = sys.argv
    (run_onnxruntime if model.endswith(".onnx") else run_litert)(model, int(count))
