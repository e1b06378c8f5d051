"""Classifiers: which of some labels a sequence has."""

from pipelines.problems import Figure, Kind
from pipelines.problems.classifier.classifier_problem import ClassifierProblem
from pipelines.problems.classifier.settings import ClassifierEvaluation, ClassifierOptions, read_data

KIND = Kind(
    options=ClassifierOptions,
    evaluation=ClassifierEvaluation,
    data=read_data,
    open=ClassifierProblem,
    figures={
        "dev_cross_entropy": Figure("dev nats", ".3f"),
        "dev_accuracy": Figure("dev accuracy", ".1%"),
        "test_accuracy": Figure("test accuracy", ".1%"),
    },
    timing="us_per_sequence",
    time=Figure("us/sequence", ".1f"),
    further=("left_out",),
)
