"""Batches of speech, and error rates."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from irnn.data.audio.augment import AugmentConfig
from irnn.data.audio.features import FeatureConfig
from irnn.data.speech.corpus import SpeechCorpus, load_speech
from irnn.data.speech.speech_batches import IGNORE, SpeechBatch, SpeechBatches
from irnn.data.speech.speech_config import BatchConfig
from irnn.data.speech.synthetic_speech import SyntheticSpeechConfig
from irnn.data.speech.units import BLANK, BOS, EOS
from irnn.errors import IrnnError
from pipelines.problems.speech.error_rates import Transcripts, paired_bootstrap, score

AUGMENT = AugmentConfig(level_db=6, frequency_masks=1, frequency_width=4, time_masks=1, time_share=0.1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> SpeechCorpus:
    return _corpus(tmp_path_factory.mktemp("cache"), BatchConfig(max_frames=500, max_utterances=6))


def _corpus(cache: Path, batches: BatchConfig) -> SpeechCorpus:
    config = SyntheticSpeechConfig(
        source="synthetic_speech",
        train_strings=40,
        evaluation_strings=10,
        cache_dir=str(cache),
        features=FeatureConfig(8000, 20),
        augment=AUGMENT,
        batches=batches,
    )
    return load_speech(config)


def same(one: SpeechBatch, other: SpeechBatch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("split", "seed"), [("train", 1), ("dev", None)])
def test_every_utterance_comes_once_within_the_budget(corpus: SpeechCorpus, split: str, seed: int | None) -> None:
    batches = SpeechBatches(corpus, split, seed)
    seen: list[int] = []
    for batch in DataLoader(batches, batch_size=None):
        rows, longest, bins = batch.features.shape
        assert rows * longest <= 500
        assert rows <= 6
        assert bins == 20
        assert longest == batch.frames.max()
        seen += batch.indices.tolist()
    assert sorted(seen) == list(range(len(corpus.split(split))))


def test_batches_hold_normalized_features_and_ids_padded(corpus: SpeechCorpus) -> None:
    split = corpus.split("dev")
    for batch in (SpeechBatches(corpus, "dev")[k] for k in range(len(SpeechBatches(corpus, "dev")))):
        assert batch.features.dtype == torch.float32
        for row, member in enumerate(batch.indices.tolist()):
            frames, count = int(batch.frames[row]), int(batch.unit_counts[row])
            expected = corpus.normalization.apply(split.features(member))
            assert np.array_equal(batch.features[row, :frames], expected)
            assert not batch.features[row, frames:].any()
            ids = split.units[member].tolist()
            assert batch.units[row].tolist() == ids + [BLANK] * (batch.units.shape[1] - count)
            padding = batch.units.shape[1] - count
            assert batch.decoder_inputs[row].tolist() == [BOS, *ids] + [EOS] * padding
            assert batch.decoder_targets[row].tolist() == [*ids, EOS] + [IGNORE] * padding


def test_an_epoch_depends_on_seed_and_epoch_alone(corpus: SpeechCorpus) -> None:
    batches = SpeechBatches(corpus, "train", seed=3)
    epochs = []
    for epoch in (0, 1):
        batches.set_epoch(epoch)
        epochs.append([batches[k] for k in range(len(batches))])
    resumed = SpeechBatches(corpus, "train", seed=3)
    resumed.set_epoch(1)
    assert len(resumed) == len(epochs[1])
    for k in reversed(range(len(resumed))):  # in any order, as workers read
        assert same(resumed[k], epochs[1][k])
    order = [torch.cat([batch.indices for batch in epoch]).tolist() for epoch in epochs]
    assert order[0] != order[1]
    with_other_seed = SpeechBatches(corpus, "train", seed=4)
    assert torch.cat([with_other_seed[k].indices for k in range(len(with_other_seed))]).tolist() != order[0]


def test_a_curriculum_begins_with_the_shortest(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path, BatchConfig(max_frames=500, max_utterances=4))
    batches = SpeechBatches(corpus, "train", 1, curriculum=2)
    counts, longest = [], []
    for epoch in range(4):
        batches.set_epoch(epoch)
        frames = torch.cat([batch.frames for batch in DataLoader(batches, batch_size=None)])
        counts.append(len(frames))
        longest.append(int(frames.max()))
    every = sorted(corpus.split("train").frames.tolist())
    assert counts[0] < counts[1] < counts[2] == counts[3] == len(every)
    for count, most in zip(counts, longest, strict=True):
        assert most <= 1.05 * every[count - 1]
    evaluated = SpeechBatches(corpus, "train")
    assert sum(len(batch.frames) for batch in DataLoader(evaluated, batch_size=None)) == len(every)
    with pytest.raises(IrnnError, match="curriculum=-1 must not be negative; 0 switches it off"):
        BatchConfig(curriculum=-1)


def test_workers_give_the_same_batches(corpus: SpeechCorpus) -> None:
    batches = SpeechBatches(corpus, "train", seed=3)
    for k, batch in enumerate(DataLoader(batches, batch_size=None, num_workers=1)):
        assert same(batch, batches[k])


def test_training_features_are_augmented_anew_every_epoch(corpus: SpeechCorpus) -> None:
    def features(epoch: int) -> np.ndarray:
        batches = SpeechBatches(corpus, "train", seed=1)
        batches.set_epoch(epoch)
        for k in range(len(batches)):
            rows = (batches[k].indices == 7).nonzero()
            if len(rows):
                return batches[k].features[rows[0, 0]][: batches[k].frames[rows[0, 0]]].numpy()
        raise AssertionError("utterance 7 is missing")

    plain = corpus.normalization.apply(corpus.split("train").features(7))
    assert features(0).shape == plain.shape
    assert not np.array_equal(features(0), plain)
    assert not np.array_equal(features(0), features(1))


def test_batches_waste_little_on_padding(corpus: SpeechCorpus) -> None:
    batches = SpeechBatches(corpus, "train", seed=1)
    frames = sum(int(batches[k].frames.sum()) for k in range(len(batches)))
    padded = sum(batches[k].features[..., 0].numel() for k in range(len(batches)))
    assert 1 - frames / padded < 0.15


def test_an_utterance_beyond_the_budget_is_named(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path, BatchConfig(max_frames=50))
    with pytest.raises(IrnnError, match=r"synthetic string train-\d+ has \d+ frames, more than batches\.max_fr"):
        SpeechBatches(corpus, "train", seed=1)
    with pytest.raises(IrnnError, match=r"max_utterances=0 must be at least 1"):
        BatchConfig(max_utterances=0)


@pytest.mark.slow
def test_small_models_learn_synthetic_speech(tmp_path: Path) -> None:
    """On the average of three; with the float kernels of any CPU they end at 0 to 2 % of words wrong."""
    config = SyntheticSpeechConfig(
        source="synthetic_speech",
        cache_dir=str(tmp_path),
        features=FeatureConfig(8000, 40),
        batches=BatchConfig(max_frames=4000, max_utterances=16),
    )
    corpus = load_speech(config)
    assert np.mean([word_error_rate(corpus, seed) for seed in range(3)]) < 0.1


def word_error_rate(corpus: SpeechCorpus, seed: int) -> float:
    """Of a small model on the development set, after 20 epochs of CTC."""
    torch.manual_seed(seed)
    front = torch.nn.Conv1d(40, 64, 5, stride=2, padding=2)
    recurrent = torch.nn.GRU(64, 64, batch_first=True, bidirectional=True)
    output = torch.nn.Linear(128, len(corpus.units))
    model = torch.nn.ModuleList([front, recurrent, output])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)

    def scores(batch: SpeechBatch) -> torch.Tensor:
        hidden, _ = recurrent(torch.relu(front(batch.features.transpose(1, 2))).transpose(1, 2))
        return output(hidden).log_softmax(-1)

    batches = SpeechBatches(corpus, "train", seed=1)
    for epoch in range(20):
        batches.set_epoch(epoch)
        for k in range(len(batches)):
            batch = batches[k]
            lengths = (batch.frames + 1) // 2
            log_probabilities = scores(batch).transpose(0, 1)
            loss = torch.nn.functional.ctc_loss(log_probabilities, batch.units, lengths, batch.unit_counts, blank=BLANK)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    hypotheses, references, ids = [], [], []
    dev = SpeechBatches(corpus, "dev")
    with torch.no_grad():
        for k in range(len(dev)):
            for row, path in enumerate(scores(dev[k]).argmax(-1)):
                path = path[: (dev[k].frames[row] + 1) // 2]
                hypotheses.append(corpus.units.decode(torch.unique_consecutive(path).tolist()))
                utterance = corpus.split("dev").utterances[int(dev[k].indices[row])]
                references.append(utterance.text)
                ids.append(utterance.id)
    return score(ids, references, hypotheses).wer


REFERENCES = ["one two three", "four", "five six"]
HYPOTHESES = ["one too three three", "", "five six"]


def test_error_rates_are_fractions_of_the_reference() -> None:
    result = score(["a", "b", "c"], REFERENCES, HYPOTHESES)
    assert np.array_equal(result.word_errors, [2, 1, 0])
    assert np.array_equal(result.words, [3, 1, 2])
    assert result.wer == 3 / 6
    assert np.array_equal(result.character_errors, [7, 4, 0])  # w -> o, and " three" (6 characters) is one too many
    assert result.cer == 11 / (13 + 4 + 8)
    for said, heard, errors, pairs in zip(REFERENCES, HYPOTHESES, (2, 1, 0), result.alignments, strict=True):
        assert [one for _, one, _ in pairs if one] == said.split()
        assert [other for _, _, other in pairs if other] == heard.split()
        assert sum(operation != "equal" for operation, _, _ in pairs) == errors
        assert all((operation == "equal") == (one == other) for operation, one, other in pairs)
    assert result.alignments[1] == [["delete", "four", None]]


def test_error_rates_agree_with_torchmetrics() -> None:
    from torchmetrics.text import CharErrorRate, WordErrorRate

    generator = np.random.default_rng(0)
    words = ["one", "two", "three", "four"]
    pairs = [[" ".join(generator.choice(words, generator.integers(1, 8))) for _ in range(2)] for _ in range(50)]
    references, hypotheses = (list(side) for side in zip(*pairs, strict=True))
    result = score([str(k) for k in range(50)], references, hypotheses)
    assert result.wer == pytest.approx(float(WordErrorRate()(hypotheses, references)))
    assert result.cer == pytest.approx(float(CharErrorRate()(hypotheses, references)))


def test_transcripts_survive_saving(tmp_path: Path) -> None:
    result = score(["a", "b", "c"], REFERENCES, HYPOTHESES)
    result.save(tmp_path / "transcripts.json")
    loaded = Transcripts.load(tmp_path / "transcripts.json")
    assert (loaded.wer, loaded.cer, loaded.ids) == (result.wer, result.cer, result.ids)
    assert loaded.alignments == result.alignments
    with pytest.raises(IrnnError, match=r"no transcripts at .*none\.json"):
        Transcripts.load(tmp_path / "none.json")
    (tmp_path / "transcripts.json").write_text("[]")
    with pytest.raises(IrnnError, match="holds no transcripts of format 1"):
        Transcripts.load(tmp_path / "transcripts.json")


def test_what_cannot_be_scored_is_named() -> None:
    with pytest.raises(IrnnError, match="utterance b has an empty reference"):
        score(["a", "b"], ["x", " "], ["x", "y"])
    with pytest.raises(IrnnError, match="2 ids, 1 references and 2 hypotheses"):
        score(["a", "b"], ["x"], ["x", "y"])


def system(error_rate: float, seed: int, utterances: int = 400) -> Transcripts:
    """Recognizes each of five words wrongly with the given probability."""
    generator = np.random.default_rng(seed)
    wrong = generator.random((utterances, 5)) < error_rate
    hypotheses = [" ".join("x" if bad else "one" for bad in row) for row in wrong]
    return score([str(k) for k in range(utterances)], ["one one one one one"] * utterances, hypotheses)


def test_bootstrap_interval_matches_the_normal_one() -> None:
    a, b = system(0.2, 1), system(0.25, 2)
    found = paired_bootstrap(a, b, samples=4000)
    assert found.difference == pytest.approx(b.wer - a.wer)
    # All utterances have five words, so the statistic is a mean and the central limit theorem gives its interval.
    half = 1.96 * ((b.word_errors - a.word_errors) / 5).std() / np.sqrt(400)
    assert found.low == pytest.approx(found.difference - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.difference + half, abs=0.1 * half)
    assert not paired_bootstrap(system(0.1, 1), system(0.3, 2), samples=1000).contains_zero


def test_bootstrap_is_paired() -> None:
    a = system(0.2, 1)
    same_errors = paired_bootstrap(a, a, samples=100)
    assert (same_errors.low, same_errors.difference, same_errors.high) == (0, 0, 0)
    assert same_errors.contains_zero
    assert paired_bootstrap(a, system(0.2, 3), unit="character", samples=100).low < 0
    with pytest.raises(IrnnError, match="only be compared on the same utterances"):
        paired_bootstrap(a, system(0.2, 1, utterances=10))
    with pytest.raises(IrnnError, match="unit='phone' is unknown"):
        paired_bootstrap(a, a, unit="phone")
