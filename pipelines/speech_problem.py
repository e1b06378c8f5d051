"""Speech recognizers: cross-entropy of the next unit, word and character error rates."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from irnn.data.speech import load_speech
from irnn.data.speech_batches import SpeechBatch, SpeechBatches
from irnn.data.units import BLANK, BOS, EOS
from irnn.decoding import SearchConfig, Tokens
from irnn.errors import IrnnError
from irnn.models.speech import SpeechModel, SpeechModelConfig
from irnn.program_set import ProgramSet
from irnn.recognizer import (
    ModelRecognizer,
    ProgramRecognizer,
    Recognizer,
    cross_entropy_sum,
    decoder_inputs,
    encoder_inputs,
    fast_interpreter,
    search,
)
from pipelines.config import RunConfig, architecture_inputs, read_section
from pipelines.error_rates import score as score_transcripts
from pipelines.problem import Score, TaskSettings, derived_seed
from pipelines.speech_task import InOrder, SpeechTask

# Batches of the training set that give the quantization sites their first ranges.
_CALIBRATION_BATCHES = 10
# Every stage is scored in this one way; what `evaluation.search` says is tried on the finished program alone.
_GREEDY = SearchConfig()


class SpeechProblem:
    """A corpus of speech and a recognizer; see `pipelines.problem.Problem`."""

    compiled = False  # the compiler refuses convolutions and attention

    def __init__(self, config: RunConfig) -> None:
        self.seed = config.seed
        self.corpus = load_speech(config.data)
        for key in ("vocabulary_size", "feature_size"):
            if key in config.model:
                raise IrnnError(f"model.{key} follows from the data; leave it out")
        sizes = {"vocabulary_size": len(self.corpus.units), "feature_size": config.data.features.num_mel_bins}
        self.architecture = read_section(SpeechModelConfig, {**config.model, **sizes}, "model.")
        self.settings = config.evaluation
        self.origin = {"model": architecture_inputs(self.architecture), "data": self.corpus.fingerprint}
        self.batching = {
            "batches": dataclasses.asdict(config.data.batches), "augment": dataclasses.asdict(config.data.augment),
        }  # fmt: skip
        self.evaluation = dataclasses.asdict(self.settings)

    def build(self) -> SpeechModel:
        """See `Problem`."""
        return SpeechModel(self.architecture)

    def calibration(self) -> Iterable[SpeechBatch]:
        """See `Problem`."""
        batches = SpeechBatches(self.corpus, "train", seed=derived_seed(self.seed, "calibration", 0))
        return islice(InOrder(batches), _CALIBRATION_BATCHES)

    def task(self, model: SpeechModel, settings: TaskSettings) -> SpeechTask:
        """See `Problem`."""
        return SpeechTask(model, settings, self.corpus, derived_seed(self.seed, f"{settings.stage} batches", 0))

    def score(self, model: SpeechModel, folder: Path) -> Score:
        """Cross-entropy on dev, error rates on all sets but the training's; hypotheses and alignments are kept."""
        return self._score(ModelRecognizer(model), folder, _GREEDY, "")

    def metadata(self) -> dict[str, Any]:
        """Which units these are, how features are made and normalized, how the model was meant to be searched."""
        mean, deviation = self.corpus.normalization.mean, self.corpus.normalization.std
        return {
            "units": self.corpus.units.describe(),
            "features": dataclasses.asdict(self.corpus.config.features),
            "normalization": {"mean": mean.tolist(), "std": deviation.tolist()},
            "search": dataclasses.asdict(self.settings.search),
        }

    def save_vocabulary(self, folder: Path) -> None:
        """See `Problem`."""
        self.corpus.units.save(folder)

    def evaluate(self, program: ProgramSet, model: SpeechModel, runner: Any | None, folder: Path) -> Score:
        """QAT and interpreter are compared on the first utterances of each set; all utterances are scored."""
        self.corpus.units.check_matches(program.metadata["units"], "the program")
        names = [name for name in self.corpus.splits if name != "train"]
        found = self._mismatch(program, model, names)
        recognizer = ProgramRecognizer(program, fast_interpreter(program))
        score = self._score(recognizer, folder, _GREEDY, "")
        if self.settings.search != _GREEDY:
            searched = self._score(recognizer, folder, self.settings.search, "search_")
            score = Score(searched.metrics | score.metrics, (*score.files, *searched.files))
        mismatches = {"interpreter_vs_qat": found, "tvm_vs_interpreter": None}
        return Score({"mismatches": mismatches, **score.metrics}, score.files)

    def _score(self, recognizer: Recognizer, folder: Path, config: SearchConfig, prefix: str) -> Score:
        metrics, files = {}, []
        for name in self.corpus.splits:
            if name == "train":
                continue
            batches = InOrder(SpeechBatches(self.corpus, name))
            if name == "dev" and not prefix:
                sums = [cross_entropy_sum(recognizer, batch) for batch in batches]
                nats, units = (sum(column) for column in zip(*sums, strict=True))
                metrics["dev_cross_entropy"] = nats / units
            transcripts = score_transcripts(*self._transcribe(recognizer, name, batches, config))
            metrics |= {f"{prefix}{name}_wer": transcripts.wer, f"{prefix}{name}_cer": transcripts.cer}
            files.append(f"{prefix}{name}_transcripts.json")
            transcripts.save(folder / files[-1])
        return Score(metrics, tuple(files))

    def _transcribe(
        self, recognizer: Recognizer, split: str, batches: InOrder, config: SearchConfig
    ) -> tuple[list[str], list[str], list[str]]:
        """(ids, references, hypotheses) of a split."""
        utterances, ids, references, hypotheses = self.corpus.split(split).utterances, [], [], []
        tokens = Tokens(BOS, EOS, forbidden=(BLANK,))
        for batch in batches:
            found = search(recognizer, batch.features.numpy(), batch.frames.tolist(), tokens, config)
            for index, hypothesis in zip(batch.indices.tolist(), found, strict=True):
                ids.append(utterances[index].id)
                references.append(utterances[index].text)
                hypotheses.append(self.corpus.units.decode(hypothesis.tokens))
        return ids, references, hypotheses

    def _mismatch(self, program: ProgramSet, model: SpeechModel, splits: list[str]) -> dict[str, int]:
        """Integers that differ between interpreter and QAT evaluation: memory, keys, logits, attention, states."""
        count = compared = 0
        for name in splits:
            left = self.settings.interpreter_utterances
            for batch in InOrder(SpeechBatches(self.corpus, name)):
                for part, inputs in self._teacher_forced(program, SpeechBatch(*(x[:left] for x in batch))):
                    found = _integers(*program[part].run_all(inputs))
                    for a, b in zip(found, _integers(*model.frozen(part).run_all(inputs)), strict=True):
                        count += int(np.count_nonzero(a != b))
                        compared += a.size
                left -= len(batch.frames)
                if left <= 0:
                    break
        return {"count": count, "compared": compared}

    def _teacher_forced(self, program: ProgramSet, batch: SpeechBatch) -> Iterable[tuple[str, dict[str, np.ndarray]]]:
        """Each program's inputs for a batch; the decoder's are what the interpreter's encoder gives."""
        yield "encoder", encoder_inputs(program, batch.features, batch.frames)
        memory = ProgramRecognizer(program, program).encode(batch.features, batch.frames)
        yield "decoder", decoder_inputs(batch.decoder_inputs, memory)


def _integers(outputs: list[Any], state: dict[str, Any]) -> list[np.ndarray]:
    return [np.asarray(x) for x in (*outputs, *(state[name] for name in sorted(state)))]
