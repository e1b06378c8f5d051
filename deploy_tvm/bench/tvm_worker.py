"""Our side of the benchmark, one process each: a built program, or one of the loops that measure the floor.

``python -m deploy_tvm.bench.tvm_worker '{"kind": "program", ...}' CORE``; the protocol is that of ``peer_worker``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deploy_tvm.peers.peer_worker.peer_serving import Runtime, serve


def load_program(artefact: str, inputs: str, function: str) -> Runtime:
    """``function`` is "step" or "run"; ``inputs`` is an ``.npz`` file with each input ``[batch, *axes, *shape]``."""
    import deploy_tvm

    runner = deploy_tvm.load(artefact)
    with np.load(inputs, allow_pickle=False) as file:
        x = dict(file)
    batch = len(next(iter(x.values())))
    if function == "step":
        (sequence,) = x.values()
        window = sequence.shape[1] > 1  # else one step, without its axis
        stream, row = runner.stream(batch), np.ascontiguousarray(sequence if window else sequence[:, 0])
        return Runtime(lambda: _listed(stream.step(row)), {})
    state = runner.initial_state(batch)
    return Runtime(lambda: runner.run(x, state), {})


def _listed(outputs: np.ndarray | list[np.ndarray]) -> Sequence[np.ndarray]:
    return outputs if isinstance(outputs, list) else [outputs]


def load_read(size: int, kernels: str) -> Runtime:
    """Reads ``size`` bytes again and again into the registers of those kernels; the calls' times are for ``setting``
    readings."""
    import tvm

    from deploy_tvm.bench.floor import read_function
    from deploy_tvm.targets.kernel_sets import host

    function, repeats = read_function(size, host(kernels).tvm())
    data = tvm.runtime.tensor(np.ones((max(1, size // 256), 4, 16), np.int32))
    sink = tvm.runtime.tensor(np.zeros(16, np.int32))

    def call() -> Sequence[np.ndarray]:
        function(data, sink)
        return [np.zeros(0)]

    return Runtime(call, {}, str(repeats))


def load_peak(kernels: str) -> Runtime:
    """Multiplies in registers as those kernels do; the calls' times are for ``setting`` multiplications."""
    import tvm

    from deploy_tvm.bench.floor import PRODUCTS, peak_module, peak_operands
    from deploy_tvm.targets.kernel_sets import host

    product = PRODUCTS[kernels]
    module, products = peak_module(product, host(kernels).tvm())
    function = module["peak"]
    operands = [tvm.runtime.tensor(array) for array in peak_operands(product)]

    def call() -> Sequence[np.ndarray]:
        function(*operands)
        return [np.zeros(0)]

    return Runtime(call, {}, str(products))


def load_tiles(kernels: str) -> Runtime:
    """Multiplies in those kernels' matrix tiles; the calls' times are for ``setting`` multiplications."""
    import tvm

    from deploy_tvm.bench import tile_peak
    from deploy_tvm.targets.kernel_sets import host

    function = tile_peak.module(host(kernels))["peak"]
    sink = tvm.runtime.tensor(np.zeros((tile_peak.ROWS, tile_peak.ROWS), np.int32))
    function(sink)
    if not sink.numpy().all():
        raise RuntimeError("the system refuses this process the CPU's matrix tiles")

    def call() -> Sequence[np.ndarray]:
        function(sink)
        return [np.zeros(0)]

    return Runtime(call, {}, str(tile_peak.IN_A_CALL))


LOADERS: dict[str, Callable[..., Runtime]] = {
    "program": load_program,
    "read": load_read,
    "peak": load_peak,
    "tiles": load_tiles,
}


def main(arguments: list[str]) -> None:
    """``JOB CORE``: the job is JSON with ``kind`` and that loader's arguments."""
    job: dict[str, Any] = json.loads(arguments[0])
    kind = job.pop("kind")
    # TVM imports PyTorch where it finds it: seconds and memory, for nothing that is timed here.
    sys.modules["torch"] = None  # type: ignore[assignment]
    serve(lambda: LOADERS[kind](**job), int(arguments[1]) if arguments[1] else None)


if __name__ == "__main__":
    main(sys.argv[1:])
