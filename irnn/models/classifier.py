"""Classifier: a sequence of features in, one row of logits out, by the state after its last valid step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from irnn.errors import IrnnError
from irnn.models.base import RecurrentModel, stack_of
from irnn.models.output_metric import Classes
from irnn.nn.cells import cell_class
from irnn.nn.linear import Linear
from irnn.nn.recurrent import Recurrent
from irnn.program.graph import Graph
from irnn.quant.site import QuantSite
from irnn.wiring.executor import Executor, ProgramExecutor, StateSpec
from irnn.wiring.simulate import Simulation

State = dict[str, Tensor]
T = TypeVar("T")


class Batch(Protocol):
    """What a training batch holds (``irnn.data.labelled.batches.LabelledBatch``)."""

    @property
    def features(self) -> Tensor:
        """float32 ``[batch, frames, size]``."""

    @property
    def frames(self) -> Tensor:
        """int64 ``[batch]``: how many of them are no padding."""

    @property
    def labels(self) -> Tensor:
        """int64 ``[batch]``."""


@dataclass(frozen=True)
class ClassifierConfig:
    """Sizes and regularization.  cell: which recurrent cell, one of ``irnn.nn.cells.CELLS``; cell_options: its own
    (``Cell.OPTIONS``)."""

    feature_size: int
    classes: int
    cell: str = "gru"
    hidden_size: int = 64
    num_layers: int = 1
    dropout: float = 0.2
    cell_options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        cell_class(self.cell)
        for name in ("feature_size", "classes", "hidden_size", "num_layers"):
            if getattr(self, name) < 1:
                raise IrnnError(f"{name}={getattr(self, name)}: must be at least 1")
        if not 0 <= self.dropout < 1:
            raise IrnnError(f"dropout={self.dropout}: must lie in [0, 1)")


class Classifier(RecurrentModel):
    """Features ``[batch, frames, size]`` of sequences of ``frames [batch]`` -> logits ``[batch, classes]``.

    In stage "all" ``eval()`` computes with the program's integers.
    """

    OUTPUT_METRIC = Classes()

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.input_site = QuantSite("activation", config.feature_size)
        # Under its cell's name, so that programs and state_dicts say gru.0.w_x.
        self.add_module(
            config.cell,
            Recurrent(
                config.cell,
                config.feature_size,
                config.hidden_size,
                config.num_layers,
                dropout=config.dropout if config.num_layers > 1 else 0.0,
                **config.cell_options,
            ),
        )
        bound = config.hidden_size**-0.5
        weight = nn.Parameter(torch.empty(config.classes, config.hidden_size).uniform_(-bound, bound))
        self.head = Linear(weight, (nn.Parameter(torch.zeros(config.classes)),), role="logits_weight")

    @property
    def recurrent(self) -> Recurrent:
        """The stack of the configured cell."""
        return stack_of(self, self.config.cell)

    def state_specs(self) -> list[StateSpec]:
        """Every state."""
        return self.recurrent.state_specs(self.config.cell)

    def wire(self, a: Executor[T], x: T, lengths: T) -> T:
        """Sequence of features and its lengths -> logits, for any executor."""
        a.ragged(lengths)
        last = a.last(self.recurrent.wire(a, x, self.config.cell))
        a.ragged(None)
        return a.linear(self.head, a.dropout(last, self.config.dropout))

    def program_wire(self, a: ProgramExecutor[T]) -> None:
        """The whole network for an executor that records a program."""
        x = a.features("features", self.input_site)
        a.output("logits", self.wire(a, x, a.lengths("lengths", "time")))

    def simulate(self, batch: Batch, state: State | None, *, observing: bool) -> tuple[Tensor, Simulation]:
        """Float logits ``[batch, classes]``, and the executor; sequences carry no ``state`` along."""
        return self._simulate(batch.features, batch.frames, observing)

    def _simulate(self, features: Tensor, frames: Tensor, observing: bool) -> tuple[Tensor, Simulation]:
        start = {name: features.new_zeros(len(features), size) for name, size, _ in self.state_specs()}
        simulation = self._simulation(start, observing)
        kind = features.device.type
        # Quantized values need more than bfloat16's 8 significant bits.
        with torch.autocast(kind, enabled=torch.is_autocast_enabled(kind) and self.stage == "float"):
            simulation.ragged(frames)
            x = simulation.input(self.input_site, features.transpose(0, 1))
            logits = self.wire(simulation, x, frames)
        simulation.finish()
        return logits, simulation

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        """float32 logits ``[batch, classes]``."""
        if not self.integer:
            return self._simulate(features, frames, self._observing)[0]
        program = self.frozen().program
        (logits_i32,), _ = self.frozen().run_all(program_inputs(program, features, frames))
        return logits_i32 * program.logits_scale

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy of the labels in nats."""
        return nn.functional.cross_entropy(self(batch.features, batch.frames).float(), batch.labels)


def program_inputs(program: Graph, features: Any, frames: Any) -> dict[str, Any]:
    """What a classifier's program, of integers or of float, reads for real features ``[batch, frames, size]``."""
    x = torch.as_tensor(features).cpu().numpy()
    x = x if program.kind == "float" else program.inputs["features"].quantize(x)
    return {"features": x, "lengths": torch.as_tensor(frames).to(torch.int32).cpu().numpy()}
