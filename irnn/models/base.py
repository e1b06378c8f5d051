"""What every network shares: the stage it is in, integer evaluation in the last one, and what its weights remember."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from irnn.arithmetic.torch_ops import TORCH
from irnn.conversion import convert_part
from irnn.errors import IrnnError
from irnn.models.loading import (
    EXTRA_STATE,
    check_state_dict,
    check_weights,
    fitting_entries,
    own,
    record_in,
    tied_names,
)
from irnn.models.output_metric import OutputMetric, Squares
from irnn.names import readable_name
from irnn.nn.activation import Activation, ModReLU
from irnn.nn.attention import Exponential
from irnn.nn.convolution import Convolution
from irnn.nn.linear import Weight
from irnn.nn.norm import Norm
from irnn.nn.recurrent import Recurrent
from irnn.program.interpreter import Interpreter
from irnn.quant.site import QuantSite
from irnn.stages import Record, Settings, write_record
from irnn.wiring.compiled_steps import CompiledSteps
from irnn.wiring.executor import ProgramExecutor, StateSpec
from irnn.wiring.simulate import Simulation


class RecurrentModel(nn.Module):
    """Base of the networks.  ``settings`` is set by :func:`irnn.qat.prepare`.

    In stage "all", ``eval()`` computes with the integers of the program that :func:`irnn.convert` gives; they are made
    anew where weights, ranges or settings have changed since.

    A ``state_dict`` brings along what its weights were trained for (:class:`irnn.stages.Record`).  A model that has not
    been prepared takes these settings over; one that has been, or is later, prepared otherwise refuses.
    """

    # Calibration takes the extremes of all batches, for use without training; else their moving average.
    CALIBRATION_WIDENS = False
    # How outputs are compared where errors are weighed.
    OUTPUT_METRIC: OutputMetric = Squares()

    def __init__(self) -> None:
        super().__init__()
        self.settings = Settings()
        self._prepared = False
        self._loaded = Settings()  # what the present weights were trained for, where they were loaded
        self._frozen: dict[str, Interpreter] = {}
        self._frozen_state: dict[str, Tensor] = {}
        self.compiled_steps: CompiledSteps | None = None  # what compiles the steps of layers in stages of real numbers
        self.register_load_state_dict_post_hook(_after_loading)

    @property
    def stage(self) -> str:
        """The stage of quantization-aware training that the model is in, one of ``irnn.stages.STAGES``."""
        return self.settings.stage

    @property
    def integer(self) -> bool:
        """Whether a forward pass now computes with integers."""
        return self.stage == "all" and not self.training

    @property
    def _observing(self) -> bool:
        """Observers move in training, in the stages between the first and the last."""
        return self.training and self.stage not in ("float", "all")

    def adopt(self, settings: Settings) -> None:
        """Put every part into a stage; what contradicts the loaded weights is an :class:`IrnnError`."""
        if not settings.reaches("pwl"):
            self._loaded = Settings()
        difference = self._loaded.difference(settings)
        if difference is not None:
            raise IrnnError(
                f"the loaded weights were trained for {difference}: prepare the model so, or go through "
                'prepare(..., stage="float") to quantize them anew'
            )
        settings.quant.check_names(self.matrices())
        self.settings, self._prepared = settings, True
        observing = settings.reaches("pwl") and not settings.reaches("all")
        pieces = settings.pwl.pieces if settings.reaches("pwl") else None
        for name, module in self.named_modules():
            if isinstance(module, (QuantSite, Weight, Norm, ModReLU)):
                module.where = f"{readable_name(name)} (stage {settings.stage!r})"
            if isinstance(module, QuantSite):
                module.configure(settings.quant, observing=observing, quantizing=settings.on(module.role))
            elif isinstance(module, Weight):
                on, coding = settings.on(module.role), settings.on("hidden")
                module.configure(settings.quant, readable_name(name), quantizing=on, coding=coding)
                if isinstance(module, Convolution):
                    module.batch_statistics = not settings.reaches("pwl")
            elif isinstance(module, Activation):
                module.configure(pieces, settings.pwl.fit, quantizing=settings.on("gate"))
            elif isinstance(module, Exponential):
                module.configure(pieces, settings.pwl.fit)
        self._turn_norms()
        self.refresh()

    def matrices(self) -> dict[str, Weight]:
        """Every weight by the name that the configuration and programs have for it."""
        return {readable_name(name): module for name, module in self.named_modules() if isinstance(module, Weight)}

    def norms(self) -> dict[str, Norm]:
        """The norms by their names."""
        return {name: module for name, module in self.named_modules() if isinstance(module, Norm)}

    def _turn_norms(self) -> None:
        """From stage "pwl" on a norm that is to be a MadNorm is one."""
        for norm in self.norms().values():
            if self.settings.reaches("pwl") and norm.target_kind == "mad":
                norm.become_mad()

    def frozen(self, part: str = "") -> Interpreter:
        """The program (of a model in parts: the named one) of this moment, bound to PyTorch's integers."""
        if not self._is_frozen():
            self._frozen = {}
            self._frozen_state = {name: tensor.detach().clone() for name, tensor in self._tensors()}
        if part not in self._frozen:
            self._frozen[part] = Interpreter(convert_part(self, part), TORCH, self.device)
        return self._frozen[part]

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def _tensors(self) -> list[tuple[str, Tensor]]:
        return [*self.named_parameters(), *self.named_buffers()]

    def _is_frozen(self) -> bool:
        """Whether the frozen programs are those of the present parameters and ranges, bit for bit.

        Their contents are compared: PyTorch's version counters do not see what is written through ``.data``.
        """
        now = self._tensors()
        return len(now) == len(self._frozen_state) and all(
            name in self._frozen_state and _same_bits(self._frozen_state[name], tensor) for name, tensor in now
        )

    def thaw(self) -> None:
        """Forget the frozen programs: the settings are about to change, or memory is wanted back."""
        self._frozen, self._frozen_state = {}, {}

    def train(self, mode: bool = True) -> RecurrentModel:
        """As ``nn.Module.train``; either way the integers are frozen anew."""
        self.thaw()
        return super().train(mode)

    def refresh(self) -> None:
        """Fit the PWL tables to the ranges of this moment, as far as there are ranges.

        In training they stay until the next call (an epoch's start); ``eval()`` fits them where a range has changed.
        """
        self.thaw()
        self._fit_tables()

    def _fit_tables(self) -> None:
        for module in self.modules():
            if isinstance(module, Activation) and module.pieces is not None and module.calibrated:
                module.table()

    def _simulation(self, state: dict[str, Tensor], observing: bool) -> Simulation:
        """The executor of one forward pass; but in training it reads tables that fit the ranges of this moment."""
        if not self.training:
            self._fit_tables()
        simulation = Simulation(state, training=self.training, observing=observing)
        simulation.compiled = self.compiled_steps
        return simulation

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As ``nn.Module.load_state_dict``: wrapped or not, an ``irnn.LSTM`` inside under torch's names or its own.

        Entries that do not fit, that are no numbers or that contradict the settings are one line of
        :class:`IrnnError`, and nothing is changed.  Tied weights stay tied, with ``assign`` too.
        """
        tied = tied_names(self)
        result = super().load_state_dict(fitting_entries(self, state_dict, strict=strict), strict, assign)
        for first, *others in tied:
            for name in others:
                path, _, attribute = name.rpartition(".")
                setattr(self.get_submodule(path), attribute, self.get_parameter(first))
        return result

    def get_extra_state(self) -> Tensor:
        """What the ``state_dict`` says of its weights, beside them."""
        return write_record(Record(self.settings, {name: norm.kind for name, norm in self.norms().items()}))

    def set_extra_state(self, state: Tensor) -> None:
        """Nothing to do: it was read before the weights, see ``_load_from_state_dict``."""

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        """Read the record and check all tensors before any of them is changed."""
        prepared = self.settings if self._prepared else None
        record = record_in(state_dict, prefix + EXTRA_STATE, self, prepared=prepared, prefix=prefix)
        check_state_dict(self, state_dict, prefix, record, prepared)
        assign = bool(local_metadata.get("assign_to_params_buffers"))
        check_weights(self, own(state_dict, prefix), record.settings.stage, assign=assign)
        state_dict[prefix + EXTRA_STATE] = write_record(record)
        self._incoming = record
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def __getstate__(self) -> dict[str, Any]:
        """For ``copy`` and ``pickle``: what is frozen or compiled is made again where it is needed."""
        return self.__dict__ | {"_frozen": {}, "_frozen_state": {}, "compiled_steps": None}

    def simulate(self, batch: Any, state: dict[str, Tensor] | None, *, observing: bool) -> tuple[Tensor, Simulation]:
        """The float network over what it reads of a ``batch``: its output, and the executor with the new state.

        ``state`` is that after the batch before; None, or a network that carries none along: zeros.
        """
        raise NotImplementedError

    def response(self, batch: Any, state: dict[str, Tensor] | None) -> tuple[Tensor, dict[str, Tensor]]:
        """What leaves the float network for a ``batch``, the output layer included, and the new state.

        By the wiring, and not by a faster way past it.
        """
        y, simulation = self.simulate(batch, state, observing=True)
        return y, simulation.state

    def program_wires(self) -> dict[str, Callable[[ProgramExecutor[Any]], None]]:
        """What an executor that records has to record: the name of each program and its network.

        Most models are one program, without a name.
        """
        return {"": self.program_wire}

    def program_wire(self, a: ProgramExecutor[Any]) -> None:
        """The whole network for an executor that records a program."""
        raise NotImplementedError

    def program_metadata(self) -> dict[str, Any]:
        """What a program notes beside what it computes (free JSON)."""
        return {}


class StreamModel(RecurrentModel):
    """A network of one input and one program, whose state is carried on from one piece of a stream to the next."""

    def state_specs(self) -> list[StateSpec]:
        """Every state."""
        raise NotImplementedError

    def integer_input(self, x: Tensor) -> Tensor:
        """What the program reads for the batch ``x``."""
        raise NotImplementedError


def stack_of(model: nn.Module, name: str) -> Recurrent:
    """The part ``name`` of the model, a recurrent stack.

    It stands under its cell's name, so that programs and state_dicts say ``lstm.0.w_x``.
    """
    stack = model.get_submodule(name)
    assert isinstance(stack, Recurrent)  # what the constructor has put there
    return stack


def _after_loading(model: RecurrentModel, incompatible: Any) -> None:
    """The weights have been loaded: take over what they were trained for."""
    record = model.__dict__.pop("_incoming", None)
    if record is None:  # an error before the weights
        return
    for name, norm in model.norms().items():
        norm.kind = record.norms[name]
    model._loaded = record.settings
    if not model._prepared:
        model.adopt(record.settings)
        model._prepared = False  # what the user prepares next has the last word, within what the weights allow
    model._turn_norms()
    model.refresh()


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same bits: unlike numbers, NaN (a range that is not there yet) equals itself."""
    if a.dtype != b.dtype or a.shape != b.shape or a.device != b.device:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    return torch.equal(a.detach().contiguous().view(bits), b.detach().contiguous().view(bits))
