"""The copying memory task: a pattern is written down after a delay."""

from pipelines.core.orthogonality import FIGURES
from pipelines.problems import Figure, Kind
from pipelines.problems.copy_memory.copy_problem import CopyProblem
from pipelines.problems.copy_memory.settings import CopyEvaluation, CopyOptions, read_data

KIND = Kind(
    options=CopyOptions,
    evaluation=CopyEvaluation,
    data=read_data,
    open=CopyProblem,
    figures={
        "test_cross_entropy": Figure("test nats/step", ".5f"),
        "test_recall": Figure("recall", ".1%", higher=True),
    },
    timing="us_per_step",
    time=Figure("us/step", ".1f"),
    further=("baseline", "examples", *FIGURES),
    task={"delay": "T"},
)
