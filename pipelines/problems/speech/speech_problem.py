"""Speech recognizers: cross-entropy of the next unit, word and character error rates."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from irnn.data.speech.corpus import load_speech
from irnn.data.speech.speech_batches import SpeechBatch, SpeechBatches
from irnn.data.speech.units import BLANK, BOS, EOS
from irnn.errors import IrnnError, arguments_of
from irnn.models.speech import SpeechModel, SpeechModelConfig
from irnn.nn.attention import Memory
from irnn.program import equality
from irnn.program.sets import ProgramSet
from irnn.recognition.decoding import SearchConfig, Tokens
from irnn.recognition.recognizer import (
    ModelRecognizer,
    ProgramRecognizer,
    Recognizer,
    cross_entropy_sum,
    decoder_inputs,
    encoder_inputs,
    fast_interpreter,
    search,
)
from pipelines.config import RunConfig
from pipelines.core.manifest import write_json
from pipelines.core.matrix import Matrix
from pipelines.core.problem import Score, TaskSettings, derived_seed
from pipelines.problems.speech.attention_plot import plot_attention
from pipelines.problems.speech.error_rates import Transcripts, paired_bootstrap
from pipelines.problems.speech.error_rates import score as score_transcripts
from pipelines.problems.speech.language_models import open_search
from pipelines.problems.speech.pretrained import PretrainedEncoder
from pipelines.problems.speech.recognizers import FLOAT_MODEL
from pipelines.problems.speech.speech_bench import real_time_factors
from pipelines.problems.speech.speech_task import InOrder, SpeechTask
from pipelines.sections import architecture_inputs, read_section
from pipelines.watch.console import show_left_out

# Batches of the training set that give the quantization sites their first ranges.
_CALIBRATION_BATCHES = 10
# Utterances of the test set that are timed.
_TIMED = 20
# Every stage is scored in this one way; what `evaluation.search` says is tried on the finished program alone.
_GREEDY = SearchConfig()
_TOKENS = Tokens(BOS, EOS, forbidden=(BLANK,))
_TRANSCRIPTS = "_transcripts.json"
_PLOT = "attention.png"


class SpeechProblem:
    """A corpus of speech and a recognizer; see `pipelines.core.problem.Problem`."""

    def __init__(self, config: RunConfig) -> None:
        self.seed = config.seed
        with arguments_of(type(config.data), "data."):
            self.corpus = load_speech(config.data)
            for split in self.corpus.splits:  # what does not fit a batch is told before training
                SpeechBatches(self.corpus, split)
        show_left_out(self.corpus.left_out, "utterances")
        for key in ("vocabulary_size", "feature_size"):
            if key in config.model:
                raise IrnnError(f"model.{key} follows from the data; leave it out")
        sizes = {"vocabulary_size": len(self.corpus.units), "feature_size": config.data.features.num_mel_bins}
        self.architecture = read_section(SpeechModelConfig, {**config.model, **sizes}, "model.")
        self.encoder: PretrainedEncoder | None = None
        if config.problem.pretrained_encoder is not None:
            self.encoder = PretrainedEncoder.load(config.problem.pretrained_encoder, config.data.features)
        self.interpreter_utterances = config.evaluation.interpreter_utterances
        self.search, self.language_model = open_search(config.evaluation.search, self.corpus.units)
        self.origin = {
            "model": architecture_inputs(self.architecture),
            "data": self.corpus.fingerprint,
            "max_seconds": config.data.max_seconds,
        }
        if self.encoder is not None:
            self.origin["pretrained_encoder"] = self.encoder.origin
        self.evaluation = {
            "interpreter_utterances": self.interpreter_utterances,
            "search": dataclasses.asdict(self.search),
        }
        if self.language_model is not None:  # its integers, wherever they lie
            self.evaluation["language_model"] = self.language_model.program_hash

    def batching(self, stage: str) -> dict[str, Any]:
        """See `Problem`; the curriculum is the first stage's."""
        data = self.corpus.config
        batches = dataclasses.asdict(data.batches)
        if stage != "float":
            del batches["curriculum"]
        return {"batches": batches, "augment": data.augment.described}

    def build(self) -> SpeechModel:
        """See `Problem`."""
        model = SpeechModel(self.architecture)
        if self.encoder is not None:
            self.encoder.into(model.encoder)
        return model

    def calibration(self) -> Iterable[SpeechBatch]:
        """See `Problem`."""
        batches = SpeechBatches(self.corpus, "train", seed=derived_seed(self.seed, "calibration", 0))
        return islice(InOrder(batches), _CALIBRATION_BATCHES)

    def task(self, model: SpeechModel, settings: TaskSettings) -> SpeechTask:
        """See `Problem`."""
        return SpeechTask(model, settings, self.corpus, derived_seed(self.seed, f"{settings.stage} batches", 0))

    def score(self, model: SpeechModel, folder: Path) -> Score:
        """Cross-entropy on dev, error rates on all sets but the training's; hypotheses and alignments are kept.

        The folder of a float stage is a recognizer of its own (`pipelines.problems.speech.recognizers`).
        """
        score = self._score(ModelRecognizer(model), folder, _GREEDY, "")[0]
        if model.stage != "float":
            return score
        # Searched as it was scored: runs with other searches share this stage.
        metadata = {**self.metadata(), "search": dataclasses.asdict(_GREEDY)}
        write_json(folder / FLOAT_MODEL, {"model": dataclasses.asdict(self.architecture), "metadata": metadata})
        self.save_vocabulary(folder)
        return Score(score.metrics, (*score.files, FLOAT_MODEL, *self.corpus.units.files))

    def metadata(self) -> dict[str, Any]:
        """Which units these are, how features are made and normalized, how the model was meant to be searched."""
        mean, deviation = self.corpus.normalization.mean, self.corpus.normalization.std
        return {
            "units": self.corpus.units.describe(),
            "features": dataclasses.asdict(self.corpus.config.features),
            "normalization": {"mean": mean.tolist(), "std": deviation.tolist()},
            "search": dataclasses.asdict(self.search),
            "max_seconds": self.corpus.config.max_seconds,
        }

    def save_vocabulary(self, folder: Path) -> None:
        """See `Problem`."""
        self.corpus.units.save(folder)

    def bench(self, program: ProgramSet, artefacts: Mapping[str, Path]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Real-time factors of both libraries and of the interpreter on PyTorch's integers, one utterance a call."""
        import deploy_tvm

        recognizers: dict[str, Recognizer] = {}
        for name, folder in artefacts.items():
            runners = deploy_tvm.load(folder)
            recognizers[name] = ProgramRecognizer(runners.programs, runners)
        recognizers["interpreter"] = ProgramRecognizer(program, fast_interpreter(program))
        split, normalization = self.corpus.split("test"), self.corpus.normalization
        utterances = [normalization.apply(split.features(k)) for k in range(min(_TIMED, len(split)))]
        seconds = sum(map(len, utterances)) / self.corpus.config.features.frames_per_second
        factors = real_time_factors(recognizers, utterances, seconds, _TOKENS, _GREEDY)
        return {"real_time_factor": factors}, {"utterances": len(utterances), "audio_seconds": round(seconds, 2)}

    def evaluate(
        self, program: ProgramSet, model: SpeechModel, runner: Any | None, baseline: Path, folder: Path
    ) -> Score:
        """QAT and interpreter are compared on the first utterances of each set, the compiled program on all of them.

        All utterances are scored, by the compiled program where there is one; `bootstrap` holds the differences to the
        float baseline's error rates, over resampled utterances.
        """
        self.corpus.units.check_matches(program.metadata["units"], "the program")
        names = [name for name in self.corpus.splits if name != "train"]
        limit = self.interpreter_utterances
        qat = {part: model.frozen(part) for part in program}
        mismatches: dict[str, dict[str, int] | None] = {
            "interpreter_vs_qat": self._mismatch(program, program, qat, names, limit)
        }
        interpreter = fast_interpreter(program)
        recognizer = ProgramRecognizer(program, interpreter if runner is None else runner)
        score, found = self._score(recognizer, folder, _GREEDY, "")
        mismatches["tvm_vs_interpreter"] = None
        if runner is not None:
            _, expected = self._transcripts(ProgramRecognizer(program, interpreter), names, _GREEDY)
            counted = self._mismatch(program, runner, interpreter, names, None)
            mismatches["tvm_vs_interpreter"] = _added(counted, _different_tokens(found, expected))
        metrics = {"mismatches": mismatches, "bootstrap": _bootstrap(baseline, folder, names), **score.metrics}
        left_out = {name: len(unused) for name, unused in self.corpus.left_out.items() if unused}
        files = [*score.files, *self._plot(recognizer, folder)]
        if left_out:
            metrics["left_out"] = left_out
        if self.search != _GREEDY:
            searched, _ = self._score(recognizer, folder, self.search, "search_")
            metrics, files = searched.metrics | metrics, [*files, *searched.files]
        return Score(metrics, tuple(files))

    def _score(
        self, recognizer: Recognizer, folder: Path, config: SearchConfig, prefix: str
    ) -> tuple[Score, dict[str, list[tuple[int, ...]]]]:
        """The score, and the recognized units of each set."""
        names = [name for name in self.corpus.splits if name != "train"]
        metrics, files = {}, []
        if not prefix:
            sums = [cross_entropy_sum(recognizer, batch) for batch in InOrder(SpeechBatches(self.corpus, "dev"))]
            nats, units = (sum(column) for column in zip(*sums, strict=True))
            metrics["dev_cross_entropy"] = nats / units
        transcripts, found = self._transcripts(recognizer, names, config)
        for name, scored in transcripts.items():
            metrics |= {f"{prefix}{name}_wer": scored.wer, f"{prefix}{name}_cer": scored.cer}
            files.append(f"{prefix}{name}{_TRANSCRIPTS}")
            scored.save(folder / files[-1])
        return Score(metrics, tuple(files)), found

    def _transcripts(
        self, recognizer: Recognizer, names: Iterable[str], config: SearchConfig
    ) -> tuple[dict[str, Transcripts], dict[str, list[tuple[int, ...]]]]:
        """(transcripts, recognized units) of each set."""
        lm_step = self.language_model.step if self.language_model and config.lm_weight else None
        scored: dict[str, Transcripts] = {}
        found: dict[str, list[tuple[int, ...]]] = {}
        for name in names:
            utterances, ids, references = self.corpus.split(name).utterances, [], []
            found[name] = []
            for batch in InOrder(SpeechBatches(self.corpus, name)):
                frames = batch.frames.tolist()
                hypotheses = search(recognizer, batch.features.numpy(), frames, _TOKENS, config, lm_step)
                found[name] += [tuple(hypothesis.tokens) for hypothesis in hypotheses]
                ids += [utterances[index].id for index in batch.indices.tolist()]
                references += [utterances[index].text for index in batch.indices.tolist()]
            texts = [self.corpus.units.decode(units) for units in found[name]]
            scored[name] = score_transcripts(ids, references, texts)
        return scored, found

    def _mismatch(
        self,
        program: ProgramSet,
        first: Mapping[str, Any],
        second: Mapping[str, Any],
        names: Iterable[str],
        limit: int | None,
    ) -> dict[str, int]:
        """Integers that differ between two executors: memory, keys, logits, attention weights, states.

        On the first `limit` utterances of each set, with the transcripts' units as the decoder's input.
        """
        found = equality.Comparison()
        for name in names:
            left = len(self.corpus.split(name)) if limit is None else limit
            for batch in InOrder(SpeechBatches(self.corpus, name)):
                for part, inputs in _teacher_forced(program, second, SpeechBatch(*(x[:left] for x in batch))):
                    ours, theirs = (
                        equality.named(program[part], *executor[part].run_all(inputs)) for executor in (first, second)
                    )
                    found += equality.compare(f"the {part}", ours, theirs)
                left -= len(batch.frames)
                if left <= 0:
                    break
        return found.figures()

    def _plot(self, recognizer: Recognizer, folder: Path) -> list[str]:
        """The attention on the test set's longest utterance, with its transcript as the decoder's input: an image, and
        the shares that the report draws."""
        split = self.corpus.split("test")
        longest = int(split.frames.argmax())
        features, units = self.corpus.normalization.apply(split.features(longest)), split.units[longest]
        memory = recognizer.encode(features[None], np.array([len(features)]))
        _, weights, _ = recognizer.decode(np.array([[BOS, *units]]), memory, None)
        names = [*(self.corpus.units.names[unit] for unit in units), "end"]
        seconds = len(features) / self.corpus.config.features.frames_per_second
        attention = np.asarray(weights, np.float64)[0]
        plot_attention(attention, names, seconds, folder / _PLOT)
        shares = (attention / attention.sum(axis=1, keepdims=True)).tolist()
        title = "Attention of the program on the longest test utterance: what each unit is read from."
        shown = Matrix(title, shares, ("unit", "seconds"), names, span=(0.0, seconds))
        return [_PLOT, shown.save(folder, "attention")]


def _teacher_forced(
    program: ProgramSet, run: Mapping[str, Any], batch: SpeechBatch
) -> Iterable[tuple[str, dict[str, Any]]]:
    """Each program's inputs for a batch; the decoder's are what the encoder gives by `run`."""
    yield "encoder", encoder_inputs(program, batch.features, batch.frames)
    memory = ProgramRecognizer(program, run).encode(batch.features, batch.frames)
    yield (
        "decoder",
        decoder_inputs(batch.decoder_inputs, Memory(*map(np.asarray, (memory.values, memory.keys, memory.lengths)))),
    )


def _different_tokens(
    first: dict[str, list[tuple[int, ...]]], second: dict[str, list[tuple[int, ...]]]
) -> dict[str, int]:
    """Recognized units that differ, one by one; a unit that only one of two hypotheses has differs."""
    pairs = [pair for name in first for pair in zip(first[name], second[name], strict=True)]
    units = [pair for hypotheses in pairs for pair in zip_longest(*hypotheses)]
    return {"count": sum(a != b for a, b in units), "compared": len(units)}


def _added(*counts: dict[str, int]) -> dict[str, int]:
    return {key: sum(count[key] for count in counts) for key in ("count", "compared")}


def _bootstrap(baseline: Path, folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Integer minus float_matched, with the interval that resampled utterances give, by figure."""
    found = {}
    for name in names:
        pair = [Transcripts.load(place / f"{name}{_TRANSCRIPTS}") for place in (baseline, folder)]
        for figure, unit in (("wer", "word"), ("cer", "character")):
            found[f"{name}_{figure}"] = dataclasses.asdict(paired_bootstrap(*pair, unit=unit))
    return found
