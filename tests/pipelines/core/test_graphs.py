"""What a training step has to be for CUDA to record it: nothing read by the host, nothing copied from it.

No GPU is needed for that: tensors of PyTorch's device "meta" have no content either that a host could read.
"""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from irnn import PwlConfig, QuantConfig, qat
from irnn.data.labelled.batches import LabelledBatch
from irnn.errors import IrnnError
from irnn.models.classifier import Classifier, ClassifierConfig
from irnn.models.language_model import LanguageModel, LanguageModelConfig
from irnn.nn.activation import Activation
from irnn.nn.gates import Gates
from irnn.quant.site import QuantSite
from pipelines.config import TrainerConfig
from pipelines.core.graphs import GraphedSteps
from pipelines.core.training import need_accelerator

META = torch.device("meta")
CODES: dict[str, QuantConfig] = {
    "uniform": QuantConfig(weight=4),
    "midrise": QuantConfig(weight="midrise:2"),
    "ternary": QuantConfig(weight="ternary"),
    "denseshift": QuantConfig(weight="denseshift:3"),
    "alternating": QuantConfig(weight="alternating:2", hidden="alternating:2"),
    "percentile": QuantConfig(observer="percentile"),
}


class NoUploads(TorchDispatchMode):
    """Refuses a copy from the host to a GPU: a recorded step would repeat the copy of a memory that is gone."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.is_meta and ("copy" in str(func) or "lift" in str(func)):
            assert all(a.is_meta for a in args if isinstance(a, Tensor)), f"{func} copies from the host"
        return result


def language_model(cell: str, quant: QuantConfig, stage: str) -> LanguageModel:
    """Calibrated, in training, as a stage of the pipeline begins."""
    torch.manual_seed(1)
    config = LanguageModelConfig(vocabulary_size=20, embedding_size=6, hidden_size=6, cell=cell)
    model = LanguageModel(config)
    qat.prepare(model, quant, PwlConfig(pieces=4), stage)
    qat.calibrate(model, [torch.arange(20).reshape(4, 5)])
    return model.train()


def put_on_gpu(model: nn.Module) -> None:
    """Parameters, ranges and tables as tensors of no content, as a first step on a GPU leaves them."""
    moved: dict[int, Tensor] = {}

    def there(tensor: Tensor) -> Tensor:
        if id(tensor) not in moved:
            value = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
            moved[id(tensor)] = nn.Parameter(value, tensor.requires_grad) if tensor.requires_grad else value
        return moved[id(tensor)]

    for module in model.modules():
        for own in (module._parameters, module._buffers):
            own.update({name: there(tensor) for name, tensor in own.items() if tensor is not None})
        if isinstance(module, Activation):
            module.fitted(META)
        if isinstance(gates := getattr(module, "_gates", None), Gates):
            gates.lines(META)
        if isinstance(module, QuantSite):
            module._range_seen = True


@pytest.fixture(autouse=True)
def without_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which does not know this device."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **options: contextlib.nullcontext())


@pytest.mark.parametrize(
    ("cell", "code", "stage"),
    [
        *(("lstm", code, "all") for code in CODES if code != "percentile"),
        ("lstm", "percentile", "weights"),
        ("gru", "uniform", "weights"),
        ("gru", "uniform", "all"),
    ],
)
def test_nothing_of_a_step_is_read_or_brought_by_the_host(cell: str, code: str, stage: str) -> None:
    model = language_model(cell, CODES[code], stage)
    put_on_gpu(model)
    ids = torch.zeros(3, 3, dtype=torch.int64, device="meta")
    with NoUploads():
        loss, state = model.loss(ids, ids, model.initial_state(3))
        loss.backward()
    assert loss.is_meta
    assert all(value.is_meta for value in state.values())


@pytest.mark.parametrize("orthogonal", ["bjorck", "projunn_d", "hadamard"])
def test_nor_of_a_step_of_a_classifier(orthogonal: str) -> None:
    """Sequences of several lengths, by the way through all steps at once."""
    torch.manual_seed(1)
    options = {"orthogonal": orthogonal}
    model = Classifier(ClassifierConfig(3, 4, cell="ornn", hidden_size=8, dropout=0.1, cell_options=options))
    qat.prepare(model, QuantConfig(weight="full_range:4"), PwlConfig(pieces=4), "weights")
    batch = LabelledBatch(torch.rand(2, 5, 3), torch.tensor([5, 4]), torch.tensor([0, 3]))
    qat.calibrate(model, [batch])
    put_on_gpu(model.train())
    batch = LabelledBatch(*(part.to("meta") for part in batch))
    with NoUploads():
        loss = model.loss(batch)
        loss.backward()
    assert loss.is_meta


@pytest.mark.parametrize("planted", ["read", "upload"])
def test_a_step_that_reads_or_uploads_is_noticed(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = language_model("gru", QuantConfig(), "all")
    scales = QuantSite._scales

    def faulty(site: QuantSite) -> tuple[Tensor, Tensor]:
        scale, zero_point = scales(site)
        if planted == "read":
            assert bool((scale > 0).all())
        else:
            zero_point = torch.zeros(zero_point.shape).to(zero_point)
        return scale, zero_point

    monkeypatch.setattr(QuantSite, "_scales", faulty)
    put_on_gpu(model)
    ids = torch.zeros(3, 3, dtype=torch.int64, device="meta")
    with NoUploads(), pytest.raises((RuntimeError, NotImplementedError, AssertionError), match=r"meta|from the host"):
        model.loss(ids, ids, model.initial_state(3))


def test_steps_are_recorded_once_and_again_when_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in for the recording: which batches it serves, and that recording leaves ranges where they were."""
    model = language_model("gru", QuantConfig(), "weights")
    recorded = []

    def record(step: nn.Module, samples: tuple[Tensor, ...], **options: Any) -> nn.Module:
        recorded.append([tuple(sample.shape) for sample in samples])
        step(*samples)
        return step

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.get_rng_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: torch.set_rng_state(state))

    def compute(*batch: Tensor) -> tuple[Tensor, ...]:
        ids, *values = batch
        loss, state = model.loss(ids, ids, dict(zip(model.initial_state(1), values, strict=True)))
        return loss, *state.values()

    steps = GraphedSteps(model, compute)
    torch.manual_seed(2)
    expected = copy.deepcopy(model)
    ids = torch.arange(6).reshape(2, 3)
    got = steps(ids, *model.initial_state(2).values())
    torch.manual_seed(2)
    loss, state = expected.loss(ids, ids, expected.initial_state(2))
    assert torch.equal(got[0], loss)
    assert all(map(torch.equal, got[1:], state.values()))
    assert all(map(torch.equal, model.buffers(), expected.buffers()))
    steps(ids, *got[1:])
    steps(ids[:, :2], *got[1:])  # the shorter last batch of an epoch
    assert recorded == [[(2, 3), (2, 6)]]
    steps.forget()
    steps(ids, *got[1:])
    assert len(recorded) == 2


def test_what_cannot_be_recorded_is_told_at_the_start() -> None:
    settings = {"threads": 1, "precision": "fp32", "cuda_graphs": True, "compile": False, "progress": False}
    with pytest.raises(IrnnError, match=r"trainer\.cuda_graphs=true needs a GPU of CUDA: set trainer\.accelerator=gpu"):
        TrainerConfig(accelerator="cpu", processes=1, **settings)
    with pytest.raises(IrnnError, match=r"trainer\.processes=2: steps that are recorded"):
        TrainerConfig(accelerator="gpu", processes=2, **settings)


def test_a_cpu_without_a_compiler_cannot_compile_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(IrnnError, match=r"trainer\.compile=true: there is no no-such-compiler, by which PyTorch"):
        need_accelerator("cpu", compile=True)
    need_accelerator("cpu")
