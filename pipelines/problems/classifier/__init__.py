"""Classifiers: which of some labels a sequence has."""

from pipelines.core.orthogonality import FIGURES
from pipelines.problems import Figure, Kind
from pipelines.problems.classifier.classifier_problem import ClassifierProblem
from pipelines.problems.classifier.settings import ClassifierEvaluation, ClassifierOptions, read_data

KIND = Kind(
    options=ClassifierOptions,
    evaluation=ClassifierEvaluation,
    data=read_data,
    open=ClassifierProblem,
    figures={
        "dev_accuracy": Figure("dev acc.", ".1%", higher=True),
        "test_accuracy": Figure("test acc.", ".1%", higher=True),
    },
    timing="us_per_sequence",
    time=Figure("us/seq.", ".1f"),
    further=("left_out", *FIGURES),
)
