"""Recipes: optimizer, clipping, learning rates and epochs, which only make sense together (`conf/recipe`)."""

from __future__ import annotations

from dataclasses import dataclass

from irnn.errors import IrnnError
from irnn.stages import STAGES
from pipelines.sections import need_one_of, need_positive

QAT_STAGES = STAGES[1:]
# Rates with which an optimizer trains at all. An optimizer that is changed alone keeps the rates of the other one, and
# they lie outside: Adam's steps have the rate's size, SGD's that of rate times gradient, whose norm is clipped.
_RATES = {"sgd": (0.01, 1000.0), "adam": (1e-8, 0.1)}


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
            need_positive(f"recipe.*.{key}", getattr(self, key))
        if not 0 <= self.hold <= 1:
            raise IrnnError(f"recipe.*.hold={self.hold} must be between 0 and 1 (share of the epochs at constant lr)")
        if not 0 <= self.warmup <= 1:
            raise IrnnError(f"recipe.*.warmup={self.warmup} must be between 0 and 1 (share of the first epoch)")
        if not 0 <= self.average <= self.epochs:
            raise IrnnError(f"recipe.*.average={self.average} must be between 0 and the stage's {self.epochs} epochs")

    def rates(self) -> list[float]:
        """Learning rate of every epoch; the last epoch after the constant part has exactly `final_lr`."""
        held = round(self.hold * self.epochs)
        falling = self.epochs - held
        ratio = self.final_lr / self.lr
        return [self.lr] * held + [self.lr * ratio ** (step / falling) for step in range(1, falling + 1)]

    def warmups(self) -> list[float]:
        """Share of every epoch in which the learning rate rises to its value."""
        return [self.warmup] + [0.0] * (self.epochs - 1)


# Within `Recipe` the name `float` is that of a stage.
_ByEpoch = list[float]


@dataclass(frozen=True)
class Recipe:
    """optimizer: "sgd" or "adam".  clip: norm that gradients are scaled down to.  One schedule per trained stage;
    `float_matched` repeats those of the stages after `float`.

    accumulate: so many batches, one after the other, make a step, by their mean gradient. What is left at an epoch's
    end makes one as well, divided by the same number.

    Rates that are another optimizer's are an `IrnnError`: a recipe is changed as a whole, or consistently.
    """

    optimizer: str
    clip: float
    accumulate: int
    float: Schedule
    pwl: Schedule
    weights: Schedule
    activations: Schedule
    all: Schedule

    def __post_init__(self) -> None:
        need_one_of("recipe.optimizer", self.optimizer, tuple(_RATES))
        need_positive("recipe.clip", self.clip)
        need_positive("recipe.accumulate", self.accumulate)
        low, high = _RATES[self.optimizer]
        for stage in STAGES:
            schedule = getattr(self, stage)
            for key in ("lr", "final_lr"):
                if not low <= (rate := getattr(schedule, key)) <= high:
                    raise IrnnError(
                        f"recipe.{stage}.{key}={rate:g} is no rate for recipe.optimizer={self.optimizer} ({low:g} to "
                        f"{high:g}); choose a whole recipe (recipe=NAME), or set optimizer and the rates of all stages"
                    )
        for stage in QAT_STAGES:
            if average := getattr(self, stage).average:
                raise IrnnError(f"recipe.{stage}.average={average}: only recipe.float averages; leave it at 0")

    def rates(self, stage: str, matched: tuple[str, ...] = QAT_STAGES) -> _ByEpoch:
        """Learning rates by epoch of any trained stage; `float_matched` repeats those of the stages `matched`."""
        if stage == "float_matched":
            return [rate for name in matched for rate in self.rates(name)]
        return getattr(self, stage).rates()

    def warmups(self, stage: str, matched: tuple[str, ...] = QAT_STAGES) -> _ByEpoch:
        """See `Schedule`; by epoch, as `rates`."""
        if stage == "float_matched":
            return [share for name in matched for share in self.warmups(name)]
        return getattr(self, stage).warmups()

    def average(self, stage: str) -> int:
        """See `Schedule`."""
        return self.float.average if stage == "float" else 0
