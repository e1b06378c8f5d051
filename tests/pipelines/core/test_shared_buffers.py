"""Ranges that processes observe in their parts are those of the whole batch, bit for bit."""

import multiprocessing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import irnn
from irnn.batch_part import Part
from irnn.models.language_model import LanguageModel, LanguageModelConfig
from irnn.nn.convolution import Convolution
from irnn.program.storage import program_hash
from irnn.quant.site import QuantSite
from pipelines.core.shared_buffers import average_statistics, join_ranges

WORLD = 3
PWL = irnn.PwlConfig(pieces=8)


def in_processes(function: Callable[[int], Any], folder: Path) -> list[Any]:
    """What the function gives in each of `WORLD` processes that form a group."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def run(rank: int) -> None:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=WORLD)
        queue.put((rank, function(rank)))
        dist.destroy_process_group()

    processes = [context.Process(target=run, args=(rank,)) for rank in range(WORLD)]
    for process in processes:
        process.start()
    found = dict(queue.get() for _ in processes)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * WORLD
    return [found[rank] for rank in range(WORLD)]


def observing_model(stage: str, quant: irnn.QuantConfig) -> LanguageModel:
    torch.manual_seed(5)
    model = LanguageModel(LanguageModelConfig(20, 8, 8, dropout=0.0))
    irnn.qat.prepare(model, quant, PWL, stage)
    irnn.qat.calibrate(model, [torch.randint(20, (4, 6))])
    return model.train()


def batches() -> Iterable[torch.Tensor]:
    generator = torch.Generator().manual_seed(8)
    return [torch.randint(20, (WORLD, 5), generator=generator) for _ in range(4)]


def ranges(model: torch.nn.Module) -> dict[str, list[float]]:
    return {name: buffer.tolist() for name, buffer in model.named_buffers() if "observed" in name}


def observe_whole_batches(model: LanguageModel) -> None:
    """What one process does, in a pass a row: the kernels of a larger batch round otherwise."""
    sites = [module for module in model.modules() if isinstance(module, QuantSite)]
    states: list[Any] = [None] * WORLD
    for ids in batches():
        model.refresh()
        seen: dict[QuantSite, list[torch.Tensor]] = {}
        for site in sites:
            site.observing = False
        with torch.no_grad():
            for row in range(WORLD):
                _, simulation = model.simulate(ids[row : row + 1], states[row], observing=True)
                states[row] = simulation.state
                for site, x in simulation.recorded():
                    seen.setdefault(site, []).append(x)
        for site, rows in seen.items():
            site.observing = True
            site.observe(torch.cat(rows))


@pytest.mark.parametrize("stage", ["pwl", "activations"])
def test_parts_observe_what_the_whole_batch_shows(stage: str, tmp_path: Path) -> None:
    """The same weights, so the same ranges and the same program."""
    quant = irnn.QuantConfig(weight=4)
    whole = observing_model(stage, quant)
    observe_whole_batches(whole)

    def part_of(rank: int) -> Any:
        model, state = observing_model(stage, quant), None
        before = ranges(model)
        for ids in batches():
            model.refresh()
            rows = ids[Part(rank, WORLD).rows(len(ids))]
            _, state = model.loss(rows, rows, state)
            join_ranges(model)
        assert ranges(model) != before
        return ranges(model)

    found = in_processes(part_of, tmp_path)
    assert found == [ranges(whole)] * WORLD
    ours = observing_model(stage, quant)
    for name, values in found[0].items():
        ours.get_buffer(name).copy_(torch.tensor(values))
    programs = []
    for model in (whole, ours):
        irnn.qat.prepare(model, quant, PWL, "all")
        programs.append(irnn.convert(model.eval()))
    assert program_hash(programs[0]) == program_hash(programs[1])


def test_percentiles_become_the_widest(tmp_path: Path) -> None:
    quant = irnn.QuantConfig(observer="percentile", percentile=90.0)

    def part_of(rank: int) -> tuple[Any, Any]:
        model = observing_model("activations", quant)
        ids = next(iter(batches()))[Part(rank, WORLD).rows(WORLD)]
        model.loss(ids, ids, None)
        before = ranges(model)
        join_ranges(model)
        return before, ranges(model)

    found = in_processes(part_of, tmp_path)
    for name in found[0][0]:
        ends = torch.tensor([before[name] for before, _ in found])
        widest = ends.amin(0) if name.endswith("min") else ends.amax(0)
        assert all(after[name] == widest.tolist() for _, after in found)


def test_statistics_are_averaged(tmp_path: Path) -> None:
    def part_of(rank: int) -> list[float]:
        layer = Convolution(1, 2, 1)
        layer.mean.fill_(float(rank))
        layer.variance.fill_(2.0 * rank)
        average_statistics(layer)
        return [*layer.mean.tolist(), *layer.variance.tolist()]

    assert in_processes(part_of, tmp_path) == [[1.0, 1.0, 2.0, 2.0]] * WORLD
