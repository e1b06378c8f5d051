"""Other runtimes: their models are made of the cells that a program computes, and compute what torch's do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import deploy_tvm
from deploy_tvm.bench import rounds
from deploy_tvm.peers import peers, recurrent_stack
from deploy_tvm.targets import cpu_flags
from irnn.conversion import float_program
from irnn.errors import IrnnError
from irnn.models.classifier import Classifier, ClassifierConfig
from irnn.models.sequence import random_layer
from irnn.program import Node, Program, Scan, Tensor
from irnn.random_programs import Layer, layer_programs
from tests.support import needs
from tests.support.random_programs import Spec, random_program
from tests.support.speech_models import speech_model


def check_near(key: str, difference: float) -> None:
    """Quantized, and not far off; without VNNI ONNX Runtime adds pairs of products in 16 bits that saturate."""
    assert difference > 1e-4
    if key == "onnxruntime_dynamic_int8" and not any("vnni" in flag for flag in cpu_flags()):
        needs.skip("cpu", "this CPU has no VNNI, without which ONNX Runtime's 8-bit products saturate")
    assert difference < 0.2


CELLS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
ANY_CELL = pytest.mark.parametrize("cell", CELLS)
STACK = {"num_layers": 2, "bidirectional": True}
SHAPES = pytest.mark.parametrize("arguments", [{}, STACK], ids=["one layer", "two layers, both directions"])
FLOATS = {
    "onnxruntime_fp32": ("onnx", "onnxruntime"),
    "openvino_fp32": ("onnx", "openvino"),
    "litert_fp32": ("ai_edge_litert", "tensorflow", "tf_keras"),
    "torch_fp32": ("torch",),
}
FLOAT = "onnxruntime_fp32"
INTEGERS = {
    "onnxruntime_dynamic_int8": ("onnx", "onnxruntime"),
    "openvino_nncf_int8": ("onnx", "openvino", "nncf"),
    "litert_dynamic_int8": ("ai_edge_litert", "tensorflow", "tf_keras"),
    "litert_integer_only_int8": ("ai_edge_litert", "tensorflow", "tf_keras"),
    "torch_dynamic_int8": ("torch",),
}
TORCHS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
INPUT, HIDDEN = 33, 48  # LiteRT leaves matrices of less than 1024 weights in float


def torchs(cell: str, **arguments: object) -> tuple[torch.nn.RNNBase, Program]:
    """torch's own layers and the float program with their weights, which are large enough for gates to move."""
    torch.manual_seed(0)
    theirs = CELLS[cell](INPUT, HIDDEN, **arguments)
    for parameter in theirs.parameters():
        parameter.data.mul_(2)
    ours = random_layer(INPUT, HIDDEN, cell=cell, **arguments)
    ours.recurrent.load_state_dict(theirs.state_dict())
    return theirs, float_program(ours)


def features(steps: int, batch: int = 1) -> np.ndarray:
    """Random ones ``[steps, batch, INPUT]``."""
    return np.random.default_rng(0).standard_normal((steps, batch, INPUT)).astype(np.float32)


def run(key: str, program: Program, inputs: np.ndarray | dict[str, np.ndarray], folder: Path) -> np.ndarray:
    """A runtime's first output, flat."""
    recurrent_stack.save_job(program, inputs, folder)
    with rounds.Worker(peers.command(key, needs.PEERS_PYTHON, folder, None), folder / "log") as worker:
        worker.start()
        return worker.output().ravel()


# --- cells ---


@ANY_CELL
@SHAPES
def test_layers_are_recognized_with_torchs_weights(cell: str, arguments: dict) -> None:
    theirs, program = torchs(cell, **arguments)
    stack = recurrent_stack.recognize(program)
    cells = [one for layer in stack.layers for one in layer]
    assert {one.kind for one in cells} == {cell}
    assert len(stack.layers) == theirs.num_layers
    names = [name.removeprefix("weight_ih") for name, _ in theirs.named_parameters() if name.startswith("weight_ih")]
    for one, suffix in zip(cells, names, strict=True):
        w_x, w_h, b_x, b_h = (getattr(theirs, name + suffix).detach().numpy() for name in TORCHS)
        assert np.array_equal(one.w_x, w_x)
        assert np.array_equal(one.w_h, w_h)
        assert np.array_equal(one.b_x + one.b_h, b_x + b_h)
        if cell == "gru":  # whose reset gate multiplies one of the two
            assert np.array_equal(one.b_h, b_h)


def rebuilt(program: Program, change: Callable[[Node], Node]) -> Program:
    """The program with every node of its loops changed."""
    nodes = [replace(n, body=tuple(map(change, n.body))) if isinstance(n, Scan) else n for n in program.nodes]
    return replace(program, nodes=tuple(nodes))


@pytest.mark.parametrize(("cell", "order"), [("lstm", [2, 0, 3, 1]), ("gru", [1, 2, 0])])
def test_gates_are_found_by_their_part_in_the_cell_not_by_their_place(cell: str, order: list[int]) -> None:
    """``order``: where each gate's rows move to."""
    _, program = torchs(cell)
    (expected,) = recurrent_stack.recognize(program).layers[0]

    def moved(node: Node) -> Node:
        if node.op != "slice":
            return node
        start = order[node.attributes["start"] // HIDDEN] * HIDDEN
        return replace(node, attributes={"start": start, "stop": start + HIDDEN})

    parts = range(len(order))
    tensors = {
        name: Tensor(np.concatenate([np.split(t.data, len(order))[order.index(k)] for k in parts]), 32)
        for name, t in program.tensors.items()
    }
    (found,) = recurrent_stack.recognize(replace(rebuilt(program, moved), tensors=tensors)).layers[0]
    for part in recurrent_stack.PARTS:
        assert np.array_equal(getattr(found, part), getattr(expected, part))


ANOTHER = {"add": "multiply", "multiply": "add", "sigmoid": "tanh", "tanh": "sigmoid", "complement": "sigmoid"}


@ANY_CELL
def test_another_operation_anywhere_makes_another_cell(cell: str) -> None:
    _, program = torchs(cell)
    body = [node for item in program.nodes if isinstance(item, Scan) for node in item.body]
    tried = [node for node in body if node.op in ANOTHER]
    assert len(tried) >= 9
    for node in tried:
        other = replace(node, op=ANOTHER[node.op])
        changed = rebuilt(program, lambda n, node=node, other=other: other if n == node else n)
        assert recurrent_stack.recognize(changed) is None, node


def test_wirings_that_are_no_gru_of_torchs() -> None:
    """What reads what is changed: by its name in the float program of a layer ``gru.0``."""
    _, program = torchs("gru")
    swaps = {
        "the reset gate multiplies W_x x": {"gru.0.w_h.2": "gru.0.w_x[t].2", "gru.0.w_x[t].2": "gru.0.w_h.2"},
        "z and 1 - z exchanged": {"gru.0.gate_z": "gru.0.gate_z.complement", "gru.0.gate_z.complement": "gru.0.gate_z"},
        "one gate for r and z": {"gru.0.preactivation.sum.1": "gru.0.preactivation.sum.0"},
        "the complement of r": {"gru.0.gate_z.complement": "gru.0.gate_r.complement"},
    }
    for bug, names in swaps.items():

        def read(node: Node, names: dict[str, str] = names) -> Node:
            if node.op == "complement":
                return node
            return replace(node, inputs=tuple(names.get(name, name) for name in node.inputs))

        changed = rebuilt(program, read)
        assert changed != program, bug
        assert recurrent_stack.recognize(changed) is None, bug


def test_what_is_no_plain_stack(tmp_path: Path) -> None:
    program = random_program(Spec(kind="float", norm="mad"))
    assert recurrent_stack.recognize(program) is None
    classifier = Classifier(ClassifierConfig(feature_size=5, classes=3)).eval()
    assert recurrent_stack.recognize(float_program(classifier)) is None
    projected = random_layer(INPUT, HIDDEN, proj_size=7)
    assert recurrent_stack.recognize(float_program(projected)) is None
    with pytest.raises(IrnnError, match="float program"):
        recurrent_stack.save_job(random_program(Spec()), np.zeros((1, 3), np.int64), tmp_path)


# --- runtimes ---


def of_runtimes(packages: dict[str, tuple[str, ...]]) -> pytest.MarkDecorator:
    """Each runtime, where it is installed; TensorFlow's converter is slow."""

    def marks(names: tuple[str, ...]) -> list[pytest.MarkDecorator]:
        return [needs.peers(*names, "numpy"), *[pytest.mark.slow] * ("tensorflow" in names)]

    return pytest.mark.parametrize("key", [pytest.param(key, marks=marks(names)) for key, names in packages.items()])


@ANY_CELL
@pytest.mark.parametrize(("steps", "arguments"), [(1, {}), (5, STACK)], ids=["a step", "a sequence, two layers"])
@of_runtimes(FLOATS)
def test_a_float_runtime_computes_what_torch_does(
    key: str, steps: int, arguments: dict, cell: str, tmp_path: Path
) -> None:
    """Sums of at most 96 float32 products in another order, and other approximations of tanh: within 2e-6."""
    theirs, program = torchs(cell, **arguments)
    x = features(steps)
    expected, _ = theirs(torch.from_numpy(x))
    assert np.abs(run(key, program, x, tmp_path) - expected.detach().numpy().ravel()).max() < 2e-6


@ANY_CELL
@pytest.mark.parametrize(("steps", "arguments"), [(1, {}), (5, STACK)], ids=["a step", "a sequence, two layers"])
@of_runtimes(FLOATS)
def test_a_float_runtime_takes_a_batch(key: str, steps: int, arguments: dict, cell: str, tmp_path: Path) -> None:
    """Whatever order a runtime has, what is compared is batch first; 2e-6 as above."""
    theirs, program = torchs(cell, **arguments)
    x = features(steps, 3)
    expected, _ = theirs(torch.from_numpy(x))
    found = run(key, program, x, tmp_path)
    assert np.abs(found - expected.detach().numpy().swapaxes(0, 1).ravel()).max() < 2e-6


@ANY_CELL
@of_runtimes(INTEGERS)
def test_an_integer_runtime_is_near_torch_and_not_equal(key: str, cell: str, tmp_path: Path) -> None:
    """Its 8-bit steps are seen: what equals float has quantized nothing.  Gates in a wrong order are farther off."""
    theirs, program = torchs(cell)
    x = features(5)
    expected = theirs(torch.from_numpy(x))[0].detach().numpy().ravel()
    if (key, cell) == ("openvino_nncf_int8", "gru"):
        with pytest.raises(rounds.WorkerError, match=r"NNCF leaves the layer .* in float"):
            run(key, program, x, tmp_path)
        return
    difference = np.abs(run(key, program, x, tmp_path) - expected).max()
    check_near(key, difference)
    for name, parameter in theirs.named_parameters():
        gates = parameter.data.reshape(-1, HIDDEN, *parameter.shape[1:]).flip(0)
        getattr(theirs, name).data = gates.reshape(parameter.shape).contiguous()
    assert np.abs(theirs(torch.from_numpy(x))[0].detach().numpy().ravel() - expected).max() > 0.5


@needs.peers("onnx", "onnxruntime", "numpy")
@ANY_CELL
@pytest.mark.parametrize("bits", [4, 2])
@pytest.mark.parametrize("steps", [1, 5])
def test_weights_of_few_bits(bits: int, steps: int, cell: str, tmp_path: Path) -> None:
    """Weights that its bits hold lose nothing, so that the steps of activations alone are seen; others lose much."""
    _, program = torchs(cell)
    rng, middle = np.random.default_rng(0), 1 << (bits - 1)

    def held(size: int) -> np.ndarray:
        """A row whose blocks of 32 have scales of their own."""
        fields = rng.integers(-middle, middle, (-(-size // 32), 32))
        fields[:, 0] = -middle
        return (fields * rng.choice([-0.1, 0.15], (len(fields), 1)) / middle).reshape(-1)[:size]

    tensors = {
        name: replace(t, data=np.stack([held(t.data.shape[1]) for _ in t.data]).astype(np.float32))
        for name, t in program.tensors.items()
        if t.data.ndim == 2
    }
    exact = replace(program, tensors={**program.tensors, **tensors})

    def lost(network: Program) -> float:
        few, floats = (run(key, network, features(steps), tmp_path) for key in (f"onnxruntime_nbits_{bits}", FLOAT))
        return float(np.abs(few - floats).max())

    rounded = lost(program)
    assert 1e-5 < lost(exact) < min(0.02, rounded / 2), rounded


@pytest.mark.parametrize("key", FLOATS)
def test_a_runtime_that_is_not_installed_has_a_reason(key: str, tmp_path: Path) -> None:
    # An environment with NumPy alone: its folders are linked into an otherwise empty one.
    packages = tmp_path / "packages"
    packages.mkdir()
    for folder in Path(np.__file__).parents[1].glob("numpy*"):
        (packages / folder.name).symlink_to(folder)
    launcher = tmp_path / "python"
    launcher.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} -S "$@"\n')
    launcher.chmod(0o755)
    recurrent_stack.save_job(torchs("gru")[1], features(2), tmp_path)
    command = peers.command(key, str(launcher), tmp_path, None)
    with rounds.Worker(command, tmp_path / "log") as worker, pytest.raises(rounds.WorkerError) as error:
        worker.start()
    assert error.value.absent
    assert peers.absent_reason(key, str(error.value)).startswith("not installed (ModuleNotFoundError: No module named")


# --- networks that are translated operation by operation ---


@needs.peers("onnx", "onnxruntime", "numpy")
@ANY_CELL
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "layer", [Layer(5, 16, norm="mad"), Layer(5, 16, norm="layer", bidirectional=True)], ids=["mad", "layer-norm"]
)
def test_the_onnx_model_of_a_normalized_layer(layer: Layer, batch: int, steps: int, cell: str, tmp_path: Path) -> None:
    needs.tvm()
    _, program = layer_programs(replace(layer, cell=cell))
    x = np.random.default_rng(0).standard_normal((batch, steps, 5)).astype(np.float32)
    expected, _ = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact")).run(x)
    theirs = np.ascontiguousarray(x.transpose(1, 0, 2))
    assert np.abs(run("onnxruntime_fp32", program, theirs, tmp_path) - expected.ravel()).max() < 1e-5
    difference = np.abs(run("onnxruntime_dynamic_int8", program, theirs, tmp_path) - expected.ravel()).max()
    check_near("onnxruntime_dynamic_int8", difference)  # products inside of loops are quantized as well


@needs.peers("onnx", "onnxruntime", "numpy")
@ANY_CELL
def test_the_onnx_model_of_a_classifier(cell: str, tmp_path: Path) -> None:
    needs.tvm()
    torch.manual_seed(0)
    config = ClassifierConfig(feature_size=5, classes=3, cell=cell, num_layers=2)
    program = float_program(Classifier(config).eval())
    inputs = {"features": features(9)[:, 0, :5][None], "lengths": np.array([9], np.int32)}
    expected, _ = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact")).run(inputs)
    assert np.abs(run("onnxruntime_fp32", program, inputs, tmp_path) - expected.ravel()).max() < 1e-5
    several = {name: np.repeat(array, 2, axis=0) for name, array in inputs.items()}
    with pytest.raises(rounds.WorkerError, match="takes one sequence a call"):
        run("onnxruntime_fp32", program, several, tmp_path)
    if cell == "gru":  # whose loops are written as operators where a program has several inputs
        with pytest.raises(rounds.WorkerError, match="its quantizer leaves GRU in float"):
            run("onnxruntime_dynamic_int8", program, inputs, tmp_path)


@needs.peers("onnx", "onnxruntime", "numpy")
@pytest.mark.parametrize("frames", [1, 37])
def test_the_onnx_model_of_a_recognizer_equals_the_float_build(frames: int, tmp_path: Path) -> None:
    needs.tvm()
    programs = float_program(speech_model(conv_channels=(4, 6, 5), conv_strides=(1, 2, 1)))
    runners = deploy_tvm.load(deploy_tvm.build(programs, tmp_path / "artefact"))
    x = np.random.default_rng(0).standard_normal((1, frames, 12)).astype(np.float32)
    inputs = {"features": x, "lengths": np.array([frames], np.int32)}
    memory, _ = runners["encoder"].run_all(inputs)
    tokens = np.array([[7]], np.int32)
    given = {
        "encoder": inputs,
        "decoder": dict(zip(("tokens", "memory", "keys", "lengths"), (tokens, *memory), strict=True)),
    }
    for name, part in given.items():
        expected, _ = runners[name].run(part)
        folder = tmp_path / name
        folder.mkdir()
        assert np.abs(run("onnxruntime_fp32", programs[name], part, folder) - expected.ravel()).max() < 1e-5
