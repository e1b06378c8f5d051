"""What the keyword spotter learns from: targets, speech, alarms and their bound."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from examples import spotting_data as data
from irnn.errors import IrnnError
from tests.support.speech_files import tone, write_fsdd


def test_a_digit_is_asked_for_from_its_end_on(tmp_path: Path) -> None:
    folder = write_fsdd(tmp_path / "fsdd", speakers=("ann",))
    for part, count in (("train", 20), ("test", 20)):
        clips, targets = data.digit_clips(folder, part)
        assert clips.shape == (count, 64, 20)
        assert targets.shape == (count, 60)
        assert targets[:, -1].tolist() == [digit for digit in range(10) for _ in range(2)]
        for row in targets:
            changes = [int(v) for v, w in zip(row, [None, *row[:-1].tolist()], strict=True) if v != w]
            assert changes == [data.NOTHING, -100, int(row[-1])]
    again, _ = data.digit_clips(folder, "train", draws=2)
    first, _ = data.digit_clips(folder, "train")
    assert len(again) == 40
    assert again[:20].equal(first)
    assert not again[20:].equal(first)  # other noise, another place
    with pytest.raises(IrnnError, match="holds no digit for train"):
        data.digit_clips(tmp_path, "train")


def test_speech_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["utt\tsplit\tpath"]
    for name, split, seconds in (("a", "train", 2.0), ("b", "train", 0.3), ("c", "dev", 3.0), ("d", "test", 1.5)):
        soundfile.write(tmp_path / f"{name}.flac", tone(seconds, 16000), 16000)
        lines.append(f"{name}\t{split}\t{name}.flac")
    (tmp_path / "splits.tsv").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(data, "SPEECH_CLIPS", 7)
    clips, targets = data.speech_clips(tmp_path)  # all of the long one
    assert clips.shape == (7, 64, 20)
    assert set(targets.flatten().tolist()) == {data.NOTHING}
    (whole,) = data.listen(tmp_path, "dev")
    assert whole.shape == (298, 20)
    long, _ = data.listen(tmp_path, "train")
    places = long.unfold(0, 64, 1).transpose(1, 2)
    for clip in clips:  # a stretch of it, louder or quieter by the same in all bands and frames
        louder = (clip - places).flatten(1)
        assert (louder.std(1) < 1e-5).any()
        assert louder[louder.std(1).argmin()].abs().max() <= data.LOUDER / data.SPREAD + 1e-5


def test_scores_are_nats() -> None:
    quiet = SimpleNamespace(
        quantize=lambda x: x, run=lambda x: (scored([10] * (x.shape[1] - 4))[None], None), logits_scale=4.0
    )
    frames = torch.zeros(20, 20)
    assert data.by_integers(quiet)(frames).max() == 16.0
    assert data.in_float(lambda x: x[:, 4:, :11] + 2.5)(frames).tolist() == [[2.5] * 11] * 16


def scored(best: list[int]) -> np.ndarray:
    """Scores of a program whose ``logits_scale`` is 4: the best stands 4 above the others."""
    return 4 * np.eye(11, dtype=np.int32)[best]


def test_what_is_heard() -> None:
    """Three is there for nine steps, four for seven, which are too few; six comes while five rests."""
    said = [10] * 20 + [3] * 9 + [10] * 80 + [4] * 7 + [10] * 20 + [5] * 40 + [6] * 16 + [10] * 101
    assert data.heard(scored(said), data.Rule(3.0, 8)) == [3, 5]
    assert data.heard(scored(said), data.Rule(3.0, 10)) == [5]
    assert data.heard(scored(said), data.Rule(4.0, 8)) == []
    assert data.missed([scored(said)] * 2, [3, 4], data.Rule(3.0, 8)) == 1


def test_the_rule_is_the_quietest_that_misses_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """By digits that were learned from and the part "dev"; the part "test" has no say."""
    digits = [scored([10] * 30 + [3] * 14 + [10] * 30)] * 10
    noise = [scored([10] * 9 + [7] * 9 + [10] * 60 + [8] * 13 + [10] * 9)]
    asked: list[str] = []

    def streams(folder, part, count=None):
        asked.append(part)
        return digits, [3] * 10

    def listen(folder, part):
        asked.append(part)
        return noise

    monkeypatch.setattr(data, "streams", streams)
    monkeypatch.setattr(data, "listen", listen)
    # 16 steps would raise no alarm and miss all digits; of what hears them 12 steps wait the longest.
    assert data.choose(lambda x: x, Path(), Path()) == data.Rule(2.0, 12)
    assert asked == ["train", "dev"]


@pytest.mark.parametrize(("count", "bound"), [(0, 2.9957), (1, 4.7439), (10, 16.9622), (150, 171.76)])
def test_the_bound_of_a_count(count: int, bound: float) -> None:
    """Half of chi-square's 95 % quantile at 2 count + 2 degrees of freedom."""
    assert data.upper_bound(count) == pytest.approx(bound, rel=2e-3)
    terms = [-bound + k * math.log(bound) - math.lgamma(k + 1) for k in range(count + 1)]
    assert sum(map(math.exp, terms)) == pytest.approx(0.05, rel=0.05)
