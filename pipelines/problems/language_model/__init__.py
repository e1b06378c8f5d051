"""Language models: perplexity of the next word."""

from pipelines.core.orthogonality import FIGURES
from pipelines.problems import Figure, Kind
from pipelines.problems.language_model.settings import LanguageModelOptions, TextEvaluation, read_data
from pipelines.problems.language_model.text_problem import TextProblem

KIND = Kind(
    options=LanguageModelOptions,
    evaluation=TextEvaluation,
    data=read_data,
    open=TextProblem,
    figures={
        "valid_perplexity": Figure("perplexity valid", ".2f"),
        "test_perplexity": Figure("test", ".2f"),
    },
    timing="us_per_token",
    time=Figure("us/token", ".1f"),
    further=("left_out", *FIGURES),
)
