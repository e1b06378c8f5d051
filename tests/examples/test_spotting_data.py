"""What the keyword spotter learns from: targets, speech, alarms and their bound."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

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
    with pytest.raises(IrnnError, match="holds no digit for train"):
        data.digit_clips(tmp_path, "train")


def test_speech_is_nothing(tmp_path: Path) -> None:
    lines = ["utt\tsplit\tpath"]
    for name, split, seconds in (("a", "train", 2.0), ("b", "train", 0.3), ("c", "dev", 3.0), ("d", "test", 1.5)):
        soundfile.write(tmp_path / f"{name}.flac", tone(seconds, 16000), 16000)
        lines.append(f"{name}\t{split}\t{name}.flac")
    (tmp_path / "splits.tsv").write_text("\n".join(lines) + "\n")
    clips, targets = data.speech_clips(tmp_path)
    assert clips.shape == (10, 64, 20)  # the short one has no clip
    assert set(targets.flatten().tolist()) == {data.NOTHING}
    assert data.speech_minutes(tmp_path) == pytest.approx(4.5 / 60)

    def scores(best: list[int]) -> np.ndarray:
        return np.eye(11, dtype=np.int32)[None, best]

    said = {
        298: [10] * 20 + [3] * 9 + [10] * 80 + [4] * 7 + [10] * 20 + [5] * 40 + [6] * 16 + [10] * 101,
        148: [10] * 144,
    }
    runs = SimpleNamespace(quantize=lambda x: x, run=lambda x: (scores(said[x.shape[1]]), None), logits_scale=4.0)
    # Three is there for nine steps, four for seven, which are too few; six comes while five rests.
    assert data.alarms(runs, tmp_path) == 2


@pytest.mark.parametrize(("count", "bound"), [(0, 2.9957), (1, 4.7439), (10, 16.9622), (150, 171.76)])
def test_the_bound_of_a_count(count: int, bound: float) -> None:
    """Half of chi-square's 95 % quantile at 2 count + 2 degrees of freedom."""
    assert data.upper_bound(count) == pytest.approx(bound, rel=2e-3)
    terms = [-bound + k * math.log(bound) - math.lgamma(k + 1) for k in range(count + 1)]
    assert sum(map(math.exp, terms)) == pytest.approx(0.05, rel=0.05)
