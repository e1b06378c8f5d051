"""Speech recognizer: convolutions, BiLSTM encoder, Bahdanau attention, LSTM decoder with input feeding.

After Espresso's LibriSpeech recipe (iRNN's second task): the decoder's first layer queries the attention; each layer
reads the context beside its input, the first one the context of the step before; layers above the first are residual;
the output layer reads the last layer and the context.  Two programs: ``encoder`` (features -> memory, keys, lengths)
and ``decoder`` (tokens, memory -> logits, attention weights).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from irnn.errors import IrnnError
from irnn.models.base import RecurrentModel
from irnn.models.output_metric import Classes
from irnn.nn.attention import Attention, Memory
from irnn.nn.cells.lstm import LSTMCell
from irnn.nn.containers import ModuleList
from irnn.nn.convolution import ConvolutionLayer
from irnn.nn.embedding import Embedding
from irnn.nn.linear import Linear
from irnn.nn.recurrent import RecurrentLayer
from irnn.quant.site import QuantSite
from irnn.wiring.executor import Executor, ProgramExecutor, StateSpec
from irnn.wiring.simulate import Simulation

State = dict[str, Tensor]
T = TypeVar("T")
IGNORED_TARGET = -100
CTC_BLANK = 0


class Batch(Protocol):
    """What a training batch holds (``irnn.data.speech.speech_batches.SpeechBatch``)."""

    @property
    def features(self) -> Tensor:
        """float32 ``[batch, frames, size]``."""

    @property
    def frames(self) -> Tensor:
        """int64 ``[batch]``: how many of them are no padding."""

    @property
    def units(self) -> Tensor:
        """int64 ``[batch, units]``, without begin and end."""

    @property
    def unit_counts(self) -> Tensor:
        """int64 ``[batch]``: how many of them are no padding."""

    @property
    def decoder_inputs(self) -> Tensor:
        """int64 ``[batch, units + 1]``: begin, then the units."""

    @property
    def decoder_targets(self) -> Tensor:
        """int64 ``[batch, units + 1]``: the units, then end; ``IGNORED_TARGET`` in padding."""


@dataclass(frozen=True)
class SpeechModelConfig:
    """Sizes; the defaults are Espresso's for LibriSpeech.

    conv_strides hold for time and frequency alike.  downsampling: after the first, second ... encoder layer every so
    many-th frame is kept (1 where it says nothing).  encoder_size is that of each direction.  ctc_weight: share of a
    CTC loss on the encoder in training; that branch is no part of the program.
    """

    vocabulary_size: int
    feature_size: int
    conv_channels: tuple[int, ...] = (64, 64, 128, 128)
    conv_strides: tuple[int, ...] = (1, 2, 1, 2)
    encoder_layers: int = 4
    encoder_size: int = 1024
    downsampling: tuple[int, ...] = ()
    embedding_size: int = 512
    decoder_layers: int = 3
    decoder_size: int = 1024
    attention_size: int = 512
    dropout: float = 0.3
    label_smoothing: float = 0.1
    ctc_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("conv_channels", "conv_strides", "downsampling"):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)  # a configuration file gives lists
            if not all(isinstance(v, int) and v >= 1 for v in values):
                raise IrnnError(f"{name}={list(values)}: must be whole numbers, at least 1")
        for name in (
            "vocabulary_size", "feature_size", "encoder_layers", "encoder_size", "embedding_size", "decoder_layers",
            "decoder_size", "attention_size",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise IrnnError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise IrnnError(f"{name}={getattr(self, name)}: must lie in [0, 1)")
        if not 0 <= self.ctc_weight <= 1:
            raise IrnnError(f"ctc_weight={self.ctc_weight}: must lie in [0, 1]")
        if len(self.conv_channels) != len(self.conv_strides):
            raise IrnnError(
                f"conv_channels={list(self.conv_channels)} and conv_strides={list(self.conv_strides)}: "
                "one stride for each convolution"
            )
        if len(self.downsampling) > self.encoder_layers:
            raise IrnnError(
                f"downsampling={list(self.downsampling)}: there are only {self.encoder_layers} encoder layers"
            )


class Encoder(nn.Module):
    """Features -> what the decoder attends to."""

    def __init__(self, config: SpeechModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.input = QuantSite("activation", config.feature_size)
        self.convolutions: ModuleList[ConvolutionLayer] = ModuleList()
        channels, bands = 1, config.feature_size
        for filters, stride in zip(config.conv_channels, config.conv_strides, strict=True):
            self.convolutions.append(ConvolutionLayer(channels, filters, stride))
            channels, bands = filters, -(-bands // stride)
        size = channels * bands
        self.layers: ModuleList[RecurrentLayer] = ModuleList()
        for _ in range(config.encoder_layers):
            self.layers.append(
                RecurrentLayer(LSTMCell, size, config.encoder_size, bias=True, norm=None, bidirectional=True)
            )
            size = 2 * config.encoder_size
        missing = config.encoder_layers - len(config.downsampling)
        self.downsampling = (*config.downsampling, *[1] * missing)
        self.output_size = size

    def wire(self, a: Executor[T], x: T, lengths: T) -> tuple[T, T]:
        """Sequence of features and its lengths -> sequence of both directions' hidden states and its lengths."""
        for convolution in self.convolutions:
            x, lengths = convolution.wire(a, x, lengths)
        for k, (layer, factor) in enumerate(zip(self.layers, self.downsampling, strict=True)):
            a.ragged(lengths)
            x = layer.wire(a, a.dropout(x, self.dropout), f"encoder.{k}")
            if factor > 1:
                x, lengths = a.subsample(x, factor), a.shorten(lengths, factor)
        a.ragged(lengths)
        return a.mask(x), lengths

    def state_specs(self) -> list[StateSpec]:
        """(name, size, site) of every state."""
        return [spec for k, layer in enumerate(self.layers) for spec in layer.state_specs(f"encoder.{k}")]


class DecoderLayer(nn.Module):
    """One LSTM layer that reads its input and the context; ``sum`` is where a residual layer adds its input."""

    def __init__(self, input_size: int, hidden_size: int, context_size: int, *, residual: bool) -> None:
        super().__init__()
        self.hidden = QuantSite("hidden", hidden_size)
        self.cell = LSTMCell(
            input_size, hidden_size, bias=True, norm=None, hidden=self.hidden, context_size=context_size
        )
        self.sum = QuantSite("activation", hidden_size) if residual else None


class Decoder(nn.Module):
    """Tokens and a memory -> logits of the next token."""

    def __init__(self, config: SpeechModelConfig, memory_size: int) -> None:
        super().__init__()
        self.dropout = config.dropout
        size = config.decoder_size
        table = nn.Parameter(torch.empty(config.vocabulary_size, config.embedding_size).normal_(0, 0.1))
        self.embedding = Embedding(table)
        self.layers = ModuleList(
            DecoderLayer(config.embedding_size if k == 0 else size, size, memory_size, residual=k > 0)
            for k in range(config.decoder_layers)
        )
        self.attention = Attention(size, memory_size, config.attention_size)
        # Two matrices, since the last layer and the context have scales of their own.
        bias = nn.Parameter(torch.zeros(config.vocabulary_size))
        self.output = Linear(_output_weight(config.vocabulary_size, size), (bias,), role="logits_weight")
        self.context_output = Linear(_output_weight(config.vocabulary_size, memory_size), role="logits_weight")

    def wire(self, a: Executor[T], tokens: T, memory: Memory[T]) -> tuple[T, T]:
        """(logits, attention weights) of every step."""
        first, *others = self.layers

        def step(a: Executor[T], pre_x: T, *states: T) -> tuple[Any, ...]:
            *cells, context = states
            h, _, c = first.cell.step(a, pre_x, cells[0], cells[1], context=context)
            after = [h, c]
            context, weights = self.attention.step(a, h, memory)
            x = a.dropout(h, self.dropout)
            for k, layer in enumerate(others, start=1):
                h, _, c = layer.cell.step(a, layer.cell.hoist(a, x), cells[2 * k], cells[2 * k + 1], context=context)
                after += [h, c]
                assert layer.sum is not None  # every layer but the first adds its input
                x = a.dropout(a.residual(layer.sum, h, x), self.dropout)
            return (x, context, weights), *after, context

        embedded = a.dropout(a.embedding(self.embedding, tokens), self.dropout)
        pre_x = self.layers[0].cell.hoist(a, embedded)
        x, context, weights = a.scan(step, pre_x, self.state_specs())
        return a.accumulate(a.linear(self.output, x), a.linear(self.context_output, context)), weights

    def state_specs(self) -> list[StateSpec]:
        """(name, size, site) of every state: each layer's h and c, then the context that is fed in."""
        specs = [spec for k, layer in enumerate(self.layers) for spec in layer.cell.states(f"decoder.{k}")]
        site = self.attention.context
        return [*specs, StateSpec("decoder.context", site.size, site)]


class SpeechModel(RecurrentModel):
    """Features in, logits of the next unit out; trained with teacher forcing.

    ``encode`` and ``decode`` are what a search needs.  In stage "all" ``eval()`` computes with the integers of the two
    programs; memory and states then hold integers.  Everything is batch first outside of the executors.
    """

    OUTPUT_METRIC = Classes()

    def __init__(self, config: SpeechModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config, self.encoder.output_size)
        self.ctc = nn.Linear(self.encoder.output_size, config.vocabulary_size) if config.ctc_weight > 0 else None
        for module in self.modules():
            if isinstance(module, LSTMCell):
                module.remember()

    def program_wires(self) -> dict[str, Callable[[ProgramExecutor[Any]], None]]:
        """The encoder runs once an utterance, the decoder once a token: two programs."""
        return {"encoder": self._encoder_wire, "decoder": self._decoder_wire}

    def _encoder_wire(self, a: ProgramExecutor[T]) -> None:
        x = a.features("features", self.encoder.input)
        memory, lengths = self.encoder.wire(a, x, a.lengths("lengths", "time"))
        a.output("memory", memory)
        a.output("keys", self.decoder.attention.keys(a, memory))
        a.output("lengths", lengths)

    def _decoder_wire(self, a: ProgramExecutor[T]) -> None:
        tokens = a.ids("tokens", self.config.vocabulary_size)
        attention = self.decoder.attention
        memory = Memory(
            a.memory("memory", self.encoder.layers[-1].hidden, self.encoder.output_size),
            a.memory("keys", attention.preactivation, self.config.attention_size),
            a.lengths("lengths", "memory"),
        )
        logits, weights = self.decoder.wire(a, tokens, memory)
        a.output("logits", logits)
        a.output("weights", weights)

    def simulate(self, batch: Batch, state: State | None, *, observing: bool) -> tuple[Tensor, Simulation]:
        """Float logits ``[units, batch, vocabulary]`` with teacher forcing; utterances carry no ``state`` along."""
        simulation = self._start(batch.features, observing)
        memory = self._encode(simulation, batch.features, batch.frames)
        logits, _ = self._decode(simulation, batch.decoder_inputs, memory, batch.unit_counts + 1)
        simulation.finish()
        return logits, simulation

    def response(self, batch: Batch, state: State | None) -> tuple[Tensor, State]:
        """Float logits of all units ``[units of all utterances, vocabulary]``, without padding."""
        logits, simulation = self.simulate(batch, state, observing=True)
        steps = torch.arange(len(logits), device=logits.device)[:, None]
        return logits[steps <= batch.unit_counts], simulation.state

    def encode(self, features: Tensor, frames: Tensor) -> Memory:
        """Features ``[batch, frames, size]`` -> memory ``[batch, places, ...]``."""
        if self.integer:
            encoder = self.frozen("encoder")
            x = encoder.program.inputs["features"].quantize(features.cpu().numpy())
            inputs = {"features": x, "lengths": frames.to(torch.int32)}
            return Memory(*encoder.run_all(inputs)[0])
        memory = self._encode(self._start(features, False), features, frames)
        return Memory(memory.values.transpose(0, 1), memory.keys.transpose(0, 1), memory.lengths)

    def decode(self, tokens: Tensor, memory: Memory, state: State | None = None) -> tuple[Tensor, Tensor, State]:
        """Tokens ``[batch, steps]`` -> (logits ``[batch, steps, vocabulary]``, attention weights, state).

        The attention weights ``[batch, steps, places]`` are probabilities, or the integers that stand for them.
        """
        if self.integer:
            decoder = self.frozen("decoder")
            inputs = {"tokens": tokens, "memory": memory.values, "keys": memory.keys, "lengths": memory.lengths}
            (logits_i32, weights), state = decoder.run_all(inputs, state)
            return logits_i32 * decoder.program.logits_scale, weights, state
        simulation = self._start(memory.values, False)
        simulation.state |= state or {}
        turned = Memory(memory.values.transpose(0, 1), memory.keys.transpose(0, 1), memory.lengths)
        logits, weights = self._decode(simulation, tokens, turned, None)
        state = {name: simulation.state[name] for name, _, _ in self.decoder.state_specs()}
        return logits.transpose(0, 1), weights.transpose(0, 1), state

    def loss(self, batch: Batch) -> Tensor:
        """Training loss: mean cross-entropy of the units with label smoothing, mixed with CTC's if there is any."""
        simulation = self._start(batch.features, self._observing)
        memory = self._encode(simulation, batch.features, batch.frames)
        logits, _ = self._decode(simulation, batch.decoder_inputs, memory, batch.unit_counts + 1)
        simulation.finish()
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1).float(),
            batch.decoder_targets.T.flatten(),
            ignore_index=IGNORED_TARGET,
            label_smoothing=self.config.label_smoothing,
        )
        if self.ctc is None:
            return loss
        log_probabilities = self.ctc(memory.values.float()).log_softmax(-1)
        ctc = nn.functional.ctc_loss(
            log_probabilities, batch.units, memory.lengths, batch.unit_counts, blank=CTC_BLANK, zero_infinity=True
        )
        return (1 - self.config.ctc_weight) * loss + self.config.ctc_weight * ctc

    def _start(self, like: Tensor, observing: bool) -> Simulation:
        specs = [*self.encoder.state_specs(), *self.decoder.state_specs()]
        state = {name: like.new_zeros(len(like), size, dtype=torch.float32) for name, size, _ in specs}
        return self._simulation(state, observing)

    def _encode(self, simulation: Simulation, features: Tensor, frames: Tensor) -> Memory:
        with self._autocast(features):
            simulation.ragged(frames)
            x = simulation.input(self.encoder.input, features.transpose(0, 1))
            values, lengths = self.encoder.wire(simulation, x, frames)
            keys = self.decoder.attention.keys(simulation, values)
            simulation.ragged(None)
        return Memory(values, keys, lengths)

    def _decode(
        self, simulation: Simulation, tokens: Tensor, memory: Memory, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        with self._autocast(tokens):
            simulation.ragged(lengths)
            logits = self.decoder.wire(simulation, tokens.T, memory)
            simulation.ragged(None)
        return logits

    def _autocast(self, like: Tensor) -> torch.autocast:
        """Quantized values need more than bfloat16's 8 significant bits."""
        kind = like.device.type
        return torch.autocast(kind, enabled=torch.is_autocast_enabled(kind) and self.stage == "float")


def _output_weight(rows: int, columns: int) -> nn.Parameter:
    bound = columns**-0.5
    return nn.Parameter(torch.empty(rows, columns).uniform_(-bound, bound))
