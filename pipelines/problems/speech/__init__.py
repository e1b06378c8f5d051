"""Speech recognizers: cross-entropy of the next unit, word and character error rates."""

from pipelines.problems import Figure, Kind
from pipelines.problems.speech.settings import SpeechEvaluation, SpeechOptions, read_data
from pipelines.problems.speech.speech_problem import SpeechProblem

KIND = Kind(
    options=SpeechOptions,
    evaluation=SpeechEvaluation,
    data=read_data,
    open=SpeechProblem,
    figures={
        "dev_cross_entropy": Figure("dev nats", ".3f"),
        "test_wer": Figure("test WER", ".1%"),
        "test_unseen_speaker_wer": Figure("unseen WER", ".1%"),
    },
    timing="real_time_factor",
    time=Figure("s/s audio", ".4f"),
    further=("pretrained_encoder", "bootstrap", "left_out"),
)
