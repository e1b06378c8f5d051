"""Word-level language model: embedding, recurrent stack, output layer (iRNN, section on language modelling)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from irnn.errors import IrnnError
from irnn.metrics import scores
from irnn.models.base import StreamModel, stack_of
from irnn.models.output_metric import Classes
from irnn.nn.cells import cell_class
from irnn.nn.embedding import Embedding
from irnn.nn.fast.linear_cross_entropy import linear_cross_entropy
from irnn.nn.linear import Linear, uniform
from irnn.nn.mixture import Mixture
from irnn.nn.norm import NORMS
from irnn.nn.recurrent import Recurrent
from irnn.program.top import MIXED
from irnn.quant.site import QuantSite
from irnn.wiring.executor import Executor, ProgramExecutor, StateSpec
from irnn.wiring.simulate import Simulation

State = dict[str, Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class LanguageModelConfig:
    """Sizes and regularization.  ``tie_weights`` shares the embedding with the output layer (sizes must agree).

    embedding_size: None reads ids one-hot: no table is trained.  cell_options: those of the cell (``Cell.OPTIONS``).
    sum_layers: the output layer reads the sum of all layers' outputs, in place of the last one's.
    down_projection: the output layer reads a projection to ``embedding_size``, so that it may be tied to a smaller
    embedding.  softmaxes: of how many softmaxes the output is a mixture (``irnn.nn.mixture``), in which the projection
    is one for each.  dropout: of what the output layer reads; that of the embedding and that between layers are the
    same where they are None.
    """

    vocabulary_size: int
    embedding_size: int | None
    hidden_size: int
    num_layers: int = 1
    dropout: float = 0.5
    tie_weights: bool = True
    norm: str | None = None
    cell: str = "lstm"
    cell_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    sum_layers: bool = False
    down_projection: bool = False
    input_dropout: float | None = None
    layer_dropout: float | None = None
    softmaxes: int = 1

    def __post_init__(self) -> None:
        cell_class(self.cell)
        for name in ("vocabulary_size", "embedding_size", "hidden_size", "num_layers", "softmaxes"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise IrnnError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("dropout", "input_dropout", "layer_dropout"):
            p = getattr(self, name)
            if p is not None and not 0 <= p < 1:
                raise IrnnError(f"{name}={p}: must lie in [0, 1)")
        if self.down_projection and self.embedding_size is None:
            raise IrnnError("down_projection=true projects to embedding_size, which is null; set it, or leave it out")
        if self.tie_weights and not self.down_projection and self.embedding_size != self.hidden_size:
            raise IrnnError(
                f"tie_weights=true needs embedding_size={self.embedding_size} equal to "
                f"hidden_size={self.hidden_size}; set them equal, tie_weights=false or down_projection=true"
            )
        if self.norm is not None and self.norm not in NORMS:
            raise IrnnError(f"norm={self.norm!r}: allowed are {', '.join(NORMS)} and null")


class LanguageModel(StreamModel):
    """Token ids in, logits of the next token out, with carried state.

    The state is a dict name -> ``[batch, size]``, floats in training and in the stages before the last; in stage "all"
    ``eval()`` computes with the program's integers (``irnn.qat``), and then the state holds those.
    """

    OUTPUT_METRIC = Classes()

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.config = config
        if config.embedding_size is None:
            table = nn.Parameter(torch.eye(config.vocabulary_size), requires_grad=False)
        else:
            table = nn.Parameter(torch.empty(config.vocabulary_size, config.embedding_size).uniform_(-0.1, 0.1))
        self.embedding = Embedding(table)
        between = config.dropout if config.layer_dropout is None else config.layer_dropout
        # Under its cell's name, so that programs and state_dicts say lstm.0.w_x.
        self.add_module(
            config.cell,
            Recurrent(
                config.cell,
                config.embedding_size or config.vocabulary_size,
                config.hidden_size,
                config.num_layers,
                dropout=between if config.num_layers > 1 else 0.0,
                norm=config.norm,
                **config.cell_options,
            ),
        )
        size = self.recurrent.output_size
        self.summed = QuantSite("hidden", size) if config.sum_layers else None
        self.down = self.projected = self.mixture = None
        if config.softmaxes > 1:
            read = (config.embedding_size if config.down_projection else None) or size
            self.mixture, size = Mixture(config.softmaxes, size, read), read
        elif config.down_projection and config.embedding_size is not None:
            down = uniform(size, config.embedding_size, size)
            self.down, self.projected = Linear(down, reads_hidden=True), QuantSite("hidden", config.embedding_size)
            size = config.embedding_size
        weight = table
        if not config.tie_weights:
            weight = nn.Parameter(torch.empty(config.vocabulary_size, size).uniform_(-0.1, 0.1))
        self.decoder = Linear(weight, (nn.Parameter(torch.zeros(config.vocabulary_size)),), role="logits_weight")

    @property
    def recurrent(self) -> Recurrent:
        """The stack of the configured cell."""
        return stack_of(self, self.config.cell)

    def state_specs(self) -> list[StateSpec]:
        """Every state."""
        return self.recurrent.state_specs(self.config.cell)

    def wire(self, a: Executor[T], ids: T) -> tuple[list[T], T | None]:
        """Everything before the output layer, for any executor: ids -> (the features of each softmax, their shares)."""
        config = self.config
        p = config.dropout if config.input_dropout is None else config.input_dropout
        outputs = self.recurrent.outputs(a, a.dropout(a.embedding(self.embedding, ids), p), config.cell)
        y = a.dropout(outputs[-1] if self.summed is None else a.residual(self.summed, *outputs), config.dropout)
        if self.mixture is not None:
            return self.mixture.wire(a, y, config.dropout)
        if self.down is not None and self.projected is not None:
            y = a.requantize(self.projected, a.linear(self.down, y))
        return [y], None

    def program_wire(self, a: ProgramExecutor[T]) -> None:
        """The whole network for an executor that records a program."""
        features, shares = self.wire(a, a.ids("ids", self.config.vocabulary_size))
        for k, each in enumerate(features):
            a.output("logits" if shares is None else f"logits_{k}", a.linear(self.decoder, each))
        if shares is not None:
            a.output("shares", shares)

    def program_metadata(self) -> dict[str, Any]:
        """That the outputs of a mixture have still to be mixed."""
        if self.mixture is None:
            return {}
        last = "the logits of their shares"
        return {MIXED: f"in float, behind the program: logits of {self.config.softmaxes} softmaxes, then {last}"}

    def initial_state(self, batch_size: int) -> State:
        """The float state before the first token: zeros."""
        weight = self.embedding.weight
        return {name: weight.new_zeros(batch_size, size) for name, size, _ in self.state_specs()}

    def simulate(self, ids: Tensor, state: State | None, *, observing: bool) -> tuple[Tensor, Simulation]:
        """Float features ``[time, batch, size]`` of ids ``[batch, time]``, and the executor with the new state.

        Those of the softmaxes of a mixture side by side, and the logits of their shares behind them.
        """
        features, shares, simulation = self._features(ids, state, observing=observing)
        return features[0] if shares is None else torch.cat([*features, shares], -1), simulation

    def _features(
        self, ids: Tensor, state: State | None, *, observing: bool
    ) -> tuple[list[Tensor], Tensor | None, Simulation]:
        """The features of each softmax, the logits of their shares, and the executor that made them."""
        state = self.initial_state(len(ids)) if state is None else state
        simulation = self._simulation(state, observing)
        # Quantized values need more than bfloat16's 8 significant bits; the output layer's loss may keep them.
        autocast = torch.is_autocast_enabled(ids.device.type) and self.stage == "float"
        with torch.autocast(ids.device.type, enabled=autocast):
            features, shares = self.wire(simulation, ids.T)
        simulation.finish()
        return features, shares, simulation

    def _scores(self, simulation: Simulation, features: Sequence[Tensor], shares: Tensor | None) -> Tensor:
        """Logits ``[time, batch, vocabulary]``; of a mixture the logarithms of its probabilities."""
        outputs = [*(simulation.linear(self.decoder, each) for each in features), *([] if shares is None else [shares])]
        return outputs[0] if shares is None else scores(outputs, [1.0] * len(outputs), outputs[0].dtype)

    def response(self, batch: Any, state: State | None) -> tuple[Tensor, State]:
        """Float logits ``[time, batch, vocabulary]`` of ids ``[batch, time]``, and the new state."""
        features, shares, simulation = self._features(batch, state, observing=True)
        return self._scores(simulation, features, shares), simulation.state

    def integer_input(self, ids: Tensor) -> Tensor:
        """What the program reads for ``ids``: the ids."""
        return ids

    def forward(self, ids: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """ids ``[batch, time]`` int64 -> (float32 logits ``[batch, time, vocabulary]``, state).

        Of a mixture the logarithms of its probabilities, which a softmax leaves as they are.
        """
        if self.integer:
            outputs, state = self.frozen().run_all(ids, state)
            return scores(outputs, self.frozen().program.output_scales), state
        features, shares, simulation = self._features(ids, state, observing=self._observing)
        return self._scores(simulation, features, shares).transpose(0, 1), simulation.state

    def loss(self, ids: Tensor, targets: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Mean cross-entropy in nats of targets ``[batch, time]``, and the state, cut off from this graph."""
        if self.integer:
            logits, state = self(ids, state)
            return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()), state
        features, shares, simulation = self._features(ids, state, observing=self._observing)
        weight = simulation.weight(self.decoder)
        bias = self.decoder.bias
        assert bias is not None  # the output layer has one
        operands = [simulation.operand(self.decoder, part) for part in features]
        loss = linear_cross_entropy(operands, weight, bias, targets.T, shares)
        return loss, {name: value.detach() for name, value in simulation.state.items()}
