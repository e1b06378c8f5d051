"""A prepared network within what users put around it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import irnn
from examples.own_networks import Decoder, Dispatcher, LoadForecaster, PhonemeTagger, build, tensors
from irnn.calibration import batch_size
from irnn.capture.network import REFRESH_EVERY
from irnn.errors import IrnnError
from tests.irnn.capture.test_own_networks import calibration, prepared, run
from tests.support import needs

OTHER = LoadForecaster.example(5, 14, seed=7)


def test_within_a_larger_module_its_weights_travel() -> None:
    trained = nn.ModuleDict({"net": prepared(LoadForecaster), "more": nn.Linear(2, 2)})
    fresh = irnn.prepare(
        build(LoadForecaster, seed=8), irnn.QuantConfig(), irnn.PwlConfig(pieces=32), "all",
        example_inputs=LoadForecaster.example(),
    )  # fmt: skip
    loaded = nn.ModuleDict({"net": fresh, "more": nn.Linear(2, 2)})
    loaded.load_state_dict(trained.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(run(fresh.eval(), OTHER), run(trained["net"], OTHER), strict=True))


def test_other_settings_are_refused_before_anything_is_changed() -> None:
    trained = prepared(LoadForecaster)
    fresh = irnn.prepare(
        build(LoadForecaster, seed=8), irnn.QuantConfig(weight=4), irnn.PwlConfig(pieces=32), "all",
        example_inputs=LoadForecaster.example(),
    )  # fmt: skip
    before = copy.deepcopy(fresh.state_dict())
    with pytest.raises(IrnnError, match="trained for weight=8, not 4"):
        fresh.load_state_dict(trained.state_dict())
    assert all(
        torch.equal(a, b) or a.isnan().all() for a, b in zip(before.values(), fresh.state_dict().values(), strict=True)
    )


def test_the_users_eval_and_new_parameters_reach_it() -> None:
    model = prepared(LoadForecaster)
    expected = run(model, OTHER)
    model.train()
    assert irnn.wiring_of(model).training
    model.eval()
    model.change.bias = nn.Parameter(model.change.bias.detach() + 1.0)
    assert all(not torch.equal(a, b) for a, b in zip(run(model, OTHER), expected, strict=True))


def test_lightning_trains_it() -> None:
    lightning = pytest.importorskip("pytorch_lightning")

    class Task(lightning.LightningModule):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch, _):
            (x,) = batch
            return self.net(x).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.net.parameters(), lr=0.1)

    model = irnn.set_stage(prepared(LoadForecaster), "activations")
    before = model.change.weight.detach().clone()
    data = torch.utils.data.TensorDataset(LoadForecaster.example(8, 12, 3)[0])
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Task(model), torch.utils.data.DataLoader(data, batch_size=4))
    assert not torch.equal(model.change.weight, before)


def test_tables_follow_the_ranges_in_a_loop_of_ones_own() -> None:
    model = irnn.set_stage(prepared(LoadForecaster), "pwl").train()
    (activation,) = (m for name, m in irnn.wiring_of(model).named_modules() if name.endswith("gates.i"))
    before = activation.table().scale
    for seed in range(REFRESH_EVERY):
        model(3 * LoadForecaster.example(4, 12, seed)[0])
    assert activation._fitted.table.scale > 1.2 * before


def test_batches_by_name_and_alone() -> None:
    models = []
    for wrap in (tuple, lambda b: {"readings": b[0], "site": b[1]}, list):
        model = irnn.prepare(
            build(Dispatcher), irnn.QuantConfig(), irnn.PwlConfig(), example_inputs=Dispatcher.example()
        )
        irnn.calibrate(model, [wrap(batch) for batch in calibration(Dispatcher)])
        models.append(irnn.wiring_of(model).state_dict())
    assert all(torch.equal(models[0][name], other[name]) for other in models[1:] for name in other)


def test_the_example_leaves_nothing_behind() -> None:
    model = build(Decoder)
    attributes = set(vars(model))
    irnn.explain(model, Decoder.example())
    assert set(vars(model)) == attributes
    assert all(not isinstance(p, torch.fx.Proxy) for p in tensors(list(model.state_dict().values())))


def test_a_gradient_of_an_optimizer_made_before() -> None:
    model = build(Decoder)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    irnn.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), example_inputs=Decoder.example())
    irnn.calibrate(model, calibration(Decoder))
    irnn.set_stage(model, "all").train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    sum(y.square().mean() for y in model(*Decoder.example(4, 6, 2))).backward()
    optimizer.step()
    assert all(not torch.equal(before[name], p) for name, p in model.named_parameters())


def test_an_argument_that_nothing_reads_is_no_input() -> None:
    class Ignoring(LoadForecaster):
        def forward(self, history, weather):
            return super().forward(history)

    (history,) = LoadForecaster.example()
    weather = torch.zeros(2, 3)
    model = irnn.prepare(build(Ignoring), irnn.QuantConfig(), irnn.PwlConfig(), example_inputs=(history, weather))
    irnn.calibrate(model, [(*batch, torch.zeros(8, 3)) for batch in calibration(LoadForecaster)])
    irnn.set_stage(model, "all").eval()
    assert list(irnn.convert(model).inputs) == ["history"]
    assert model(*OTHER, torch.zeros(5, 3)).shape == (5, 3)


def test_dropout_is_the_networks_own_at_the_time() -> None:
    model = prepared(PhonemeTagger)
    irnn.set_stage(model, "all").train()
    arguments = PhonemeTagger.example(4, 12, 3)
    torch.manual_seed(0)
    first = run(model, arguments)
    assert any(not torch.equal(a, b) for a, b in zip(run(model, arguments), first, strict=True))
    model.keys.dropout = 0.0
    assert all(torch.equal(a, b) for a, b in zip(run(model, arguments), run(model, arguments), strict=True))


def test_compiled_by_torch_in_float_it_trains_on() -> None:
    """The float part is what ``torch.compile`` sees; stages after it are the wiring's, which runs as it is."""
    model, x = build(LoadForecaster), LoadForecaster.example(4, 12, 3)
    irnn.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), example_inputs=LoadForecaster.example())
    expected = run(model, x)
    compiled = torch.compile(model, backend="eager")
    assert all(torch.equal(a, b) for a, b in zip(run(compiled, x), expected, strict=True))
    irnn.calibrate(model, calibration(LoadForecaster))
    irnn.set_stage(model, "all").eval()
    assert all(torch.equal(a, b) for a, b in zip(run(compiled, x), run(model, x), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(run(model, x), expected, strict=True))


def test_wrapped_for_several_processes_it_trains(tmp_path: Path) -> None:
    """Every parameter has a gradient, so that ``DistributedDataParallel`` waits for none."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_gloo_available():
        needs.skip("gloo", "this PyTorch has no Gloo")
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        model = irnn.set_stage(prepared(LoadForecaster), "activations").train()
        wrapped = nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        for seed in range(2):
            optimizer.zero_grad()
            sum(y.square().mean() for y in tensors(wrapped(*LoadForecaster.example(4, 12, seed)))).backward()
            optimizer.step()
        assert all(not torch.equal(before[name], p) for name, p in model.named_parameters())
        twin = prepared(LoadForecaster)
        irnn.set_stage(twin, "activations")
        twin.load_state_dict({name.removeprefix("module."): v for name, v in wrapped.state_dict().items()})
        irnn.set_stage(twin, "all").eval()
        irnn.set_stage(model, "all").eval()
        assert all(torch.equal(a, b) for a, b in zip(run(twin, OTHER), run(model, OTHER), strict=True))
    finally:
        distributed.destroy_process_group()


def test_the_size_of_a_batch_of_arguments() -> None:
    """A pair of arguments is no batch of two: what streams carries its state by this."""
    x, lengths = torch.zeros(5, 7, 3), torch.ones(5)
    assert [batch_size(b) for b in (x, (x, lengths), {"x": x}, [[1, 2], [3, 4], [5, 6]])] == [5, 5, 5, 3]
