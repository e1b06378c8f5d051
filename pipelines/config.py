"""The configuration of a run, checked and typed. Hydra composes it from `conf/`; this is what the pipeline reads."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from irnn.data import TextConfig
from irnn.data.speech.corpus import SpeechConfig, speech_config_class
from irnn.data.speech.transcripts import keys_of_speech
from irnn.data.text.corpus import SOURCES as TEXT_SOURCES
from irnn.errors import IrnnError
from irnn.qat import PwlConfig, QuantConfig
from irnn.recognition.decoding import SearchConfig

QAT_STAGES = ("pwl", "weights", "activations", "all")


@dataclass(frozen=True)
class TrainerConfig:
    """How training runs; `precision`, `optimizer` and `clip` are part of a stage's identity, the rest is not."""

    accelerator: str
    threads: int
    precision: str
    optimizer: str
    clip: float
    progress: bool

    def __post_init__(self) -> None:
        _one_of("trainer.accelerator", self.accelerator, ("cpu", "gpu", "auto"))
        _one_of("trainer.precision", self.precision, ("fp32", "bf16"))
        _one_of("trainer.optimizer", self.optimizer, ("sgd", "adam"))
        _positive("trainer.threads", self.threads)
        _positive("trainer.clip", self.clip)


@dataclass(frozen=True)
class Schedule:
    """Epochs and learning rate of one stage: constant for `hold` of the epochs, then exponentially to `final_lr`.

    In the first `warmup` of the first epoch (a share) it rises linearly from zero. A fresh Adam needs that where it
    goes on with a trained model: it has not yet seen rare words, and takes full steps along their small gradients.

    average: the stage hands on the mean of its weights over all steps of its last so many epochs, which lies flatter
    than its last weights do (Izmailov et al. 2018); 0: the last weights. Of the float stage alone.
    """

    epochs: int
    lr: float
    final_lr: float
    hold: float
    warmup: float = 0.0
    average: int = 0

    def __post_init__(self) -> None:
        for key in ("epochs", "lr", "final_lr"):
            _positive(f"stages.*.{key}", getattr(self, key))
        if not 0 <= self.hold <= 1:
            raise IrnnError(f"stages.*.hold={self.hold} must be between 0 and 1 (share of the epochs at constant lr)")
        if not 0 <= self.warmup <= 1:
            raise IrnnError(f"stages.*.warmup={self.warmup} must be between 0 and 1 (share of the first epoch)")
        if not 0 <= self.average <= self.epochs:
            raise IrnnError(f"stages.*.average={self.average} must be between 0 and the stage's {self.epochs} epochs")

    def rates(self) -> list[float]:
        """Learning rate of every epoch; the last epoch after the constant part has exactly `final_lr`."""
        held = round(self.hold * self.epochs)
        falling = self.epochs - held
        ratio = self.final_lr / self.lr
        return [self.lr] * held + [self.lr * ratio ** (step / falling) for step in range(1, falling + 1)]

    def warmups(self) -> list[float]:
        """Share of every epoch in which the learning rate rises to its value."""
        return [self.warmup] + [0.0] * (self.epochs - 1)


@dataclass(frozen=True)
class StagesConfig:
    """One schedule per trained stage; `float_matched` repeats those of the stages after `float`."""

    float: Schedule
    pwl: Schedule
    weights: Schedule
    activations: Schedule
    all: Schedule

    def __post_init__(self) -> None:
        for name in QAT_STAGES:
            if average := getattr(self, name).average:
                raise IrnnError(f"stages.{name}.average={average}: only stages.float averages; leave it at 0")

    def rates(self, stage: str) -> list[float]:
        """Learning rates by epoch of any trained stage, `float_matched` included."""
        if stage == "float_matched":
            return [rate for name in QAT_STAGES for rate in self.rates(name)]
        return getattr(self, stage).rates()

    def warmups(self, stage: str) -> list[float]:
        """See `Schedule`; by epoch, as `rates`."""
        if stage == "float_matched":
            return [share for name in QAT_STAGES for share in self.warmups(name)]
        return getattr(self, stage).warmups()

    def average(self, stage: str) -> int:
        """See `Schedule`."""
        return self.float.average if stage == "float" else 0


@dataclass(frozen=True)
class LoggerConfig:
    """Where training curves go. wandb: null, "offline" (files only) or "online"."""

    csv: bool
    tensorboard: bool
    wandb: str | None

    def __post_init__(self) -> None:
        _one_of("logger.wandb", self.wandb, (None, "offline", "online"))


@dataclass(frozen=True)
class TextEvaluation:
    """interpreter_tokens: tokens of each split on which QAT, interpreter and TVM are compared."""

    interpreter_tokens: int

    def __post_init__(self) -> None:
        _positive("evaluation.interpreter_tokens", self.interpreter_tokens)


@dataclass(frozen=True)
class SearchSettings(SearchConfig):
    """language_model: folder of the model that `lm_weight` weighs (`language_models`), or None."""

    language_model: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lm_weight > 0 and self.language_model is None:
            raise IrnnError(
                f"search.lm_weight={self.lm_weight:g} needs a language model: set search.language_model=FOLDER, or "
                "search.lm_weight=0"
            )
        if self.lm_weight == 0 and self.language_model is not None:
            raise IrnnError(
                f"search.language_model={self.language_model} has no weight: set search.lm_weight, for example to 0.3"
            )


@dataclass(frozen=True)
class SpeechEvaluation:
    """interpreter_utterances: utterances of each split on which QAT and interpreter are compared.
    search: how utterances are recognized."""

    interpreter_utterances: int
    search: SearchSettings

    def __post_init__(self) -> None:
        _positive("evaluation.interpreter_utterances", self.interpreter_utterances)


@dataclass(frozen=True)
class RunConfig:
    """The whole run. `model` lacks the size of the vocabulary, which the corpus decides.

    pretrained_encoder: folder of a recognizer's float stage; the float training of this recognizer starts with its
    encoder.  target and device: where the finished program is measured besides this machine (`on_device`).
    """

    name: str
    seed: int
    output_dir: Path
    until: str | None
    pretrained_encoder: Path | None
    trainer: TrainerConfig
    evaluation: TextEvaluation | SpeechEvaluation
    data: TextConfig | SpeechConfig
    model: dict[str, Any]
    quant: QuantConfig
    pwl: PwlConfig
    stages: StagesConfig
    logger: LoggerConfig
    target: dict[str, Any]
    device: dict[str, Any]

    def __post_init__(self) -> None:
        if self.pretrained_encoder is not None and isinstance(self.data, TextConfig):
            raise IrnnError(
                f"pretrained_encoder={self.pretrained_encoder}: a language model has no encoder; leave it at null"
            )


def read_config(config: DictConfig) -> RunConfig:
    """Turn Hydra's composition into a checked `RunConfig`; whatever is wrong is one `IrnnError`."""
    content: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    data = content.get("data")
    if not isinstance(data, Mapping):
        raise IrnnError(f"data={data!r} must be a section with keys")
    content["data"] = _data(data)
    # What is learned follows from the data: text or speech.
    evaluation_class = TextEvaluation if isinstance(content["data"], TextConfig) else SpeechEvaluation
    content["evaluation"] = _value(evaluation_class, content.get("evaluation"), "evaluation")
    return read_section(RunConfig, content, "")


def _data(section: Mapping[str, Any]) -> TextConfig | SpeechConfig:
    if section.get("source") not in TEXT_SOURCES:
        return read_section(speech_config_class(section.get("source")), section, "data.")
    speech = section.get("speech")
    if speech is not None:
        if not isinstance(speech, Mapping):
            raise IrnnError(f"data.speech={speech!r} must be a section with keys, the `data` of a recognizer")
        with keys_of_speech():
            speech = read_section(speech_config_class(speech.get("source")), speech, "data.")
        section = {**section, "speech": speech}
    return read_section(TextConfig, section, "data.")


def architecture_inputs(architecture: Any) -> dict[str, Any]:
    """Fields that differ from their defaults: a new option of the network keeps the float models trained before it."""
    fields = dataclasses.fields(architecture)
    return {field.name: value for field in fields if (value := getattr(architecture, field.name)) != field.default}


def read_section(cls: type, section: Mapping[str, Any], where: str) -> Any:
    """Build the dataclass `cls` from a mapping: keys and plain types are checked, nested dataclasses followed."""
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(section) - set(fields))
    if unknown:
        raise IrnnError(f"{where}{unknown[0]} is no key of the configuration; allowed: {', '.join(fields)}")
    values = {}
    for name, field in fields.items():
        if name in section:
            values[name] = _value(hints[name], section[name], f"{where}{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise IrnnError(f"{where}{name} is missing from the configuration")
    return cls(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(value):  # read before, with a class that depends on the content
        return value
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise IrnnError(f"{where}={value!r} must be a section with keys")
        return read_section(hint, value, f"{where}.")
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and types.NoneType in options:
        return None
    if Path in options:
        if not isinstance(value, str):
            raise IrnnError(f"{where}={value!r} has the wrong type; wanted: the name of a folder")
        return Path(value)
    if float in options and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = tuple(option for option in options if option in (bool, int, float, str))
    if plain and (not isinstance(value, plain) or (isinstance(value, bool) and bool not in plain)):
        wanted = " or ".join("null" if option is types.NoneType else option.__name__ for option in options)
        raise IrnnError(f"{where}={value!r} has the wrong type; wanted: {wanted}")
    return value


def _one_of(key: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        names = ", ".join("null" if option is None else str(option) for option in allowed)
        raise IrnnError(f"{key}={value} is unknown; allowed: {names}")


def _positive(key: str, value: float) -> None:
    if not value > 0:
        raise IrnnError(f"{key}={value} must be greater than 0")
