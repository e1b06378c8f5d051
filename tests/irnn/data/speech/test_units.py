"""Units of transcripts: characters, words and pieces, saved, matched and refused."""

from pathlib import Path

import numpy as np
import pytest

from irnn.data.speech.units import BLANK, BOS, EOS, Units, UnitsConfig
from irnn.errors import IrnnError

TEXTS = ["THE CAT SAT", "A MAN'S HAT", "THE HAT SAT ON A CAT", "THAT MAN SAT"] * 5


@pytest.mark.parametrize(
    "config", [UnitsConfig("characters"), UnitsConfig("words"), UnitsConfig("sentencepiece", size=16)]
)
def test_units_round_trip_and_survive_saving(tmp_path: Path, config: UnitsConfig) -> None:
    units = Units.train(TEXTS, config)
    for text in TEXTS[:4]:
        ids = units.encode(text)
        assert ids.dtype == np.int64
        assert ids.min() > EOS
        assert ids.max() < len(units)
        assert units.decode([BOS, *ids, BLANK, EOS]) == text
    units.save(tmp_path)
    loaded = Units.load(tmp_path)
    assert loaded.describe() == units.describe()
    assert np.array_equal(loaded.encode(TEXTS[1]), units.encode(TEXTS[1]))
    assert Units.train(TEXTS, config).fingerprint == units.fingerprint
    with pytest.raises(IrnnError, match=r"file\.flac: '(Z|ZOO)' is not among the \d+"):
        units.encode("THE ZOO", "file.flac")
    with pytest.raises(IrnnError, match=f"unit id {len(units)} is out of range"):
        units.decode([len(units)])


def test_ids_of_characters_are_fixed() -> None:
    units = Units.train(["B A", "A"], UnitsConfig("characters"))
    assert units.names == ["<blank>", "<bos>", "<eos>", " ", "A", "B"]
    assert np.array_equal(units.encode("A B"), [4, 3, 5])


def test_vocabulary_that_does_not_match_a_checkpoint_is_named() -> None:
    ours, theirs = (Units.train([text], UnitsConfig("characters")) for text in ("ABC", "ABCD"))
    ours.check_matches(ours.describe(), "model.safetensors")
    with pytest.raises(IrnnError, match=r"6 characters .* does not match model\.safetensors, which was trained with 7"):
        ours.check_matches(theirs.describe(), "model.safetensors")


def test_damaged_units_are_named(tmp_path: Path) -> None:
    with pytest.raises(IrnnError, match=r"no units at .*units\.json"):
        Units.load(tmp_path)
    Units.train(TEXTS, UnitsConfig("sentencepiece", size=16)).save(tmp_path / "a")
    Units.train(TEXTS, UnitsConfig("sentencepiece", size=17)).save(tmp_path / "b")
    (tmp_path / "a" / "units.model").write_bytes((tmp_path / "b" / "units.model").read_bytes())
    with pytest.raises(IrnnError, match=r"belongs to another units\.model"):
        Units.load(tmp_path / "a")
    (tmp_path / "a" / "units.json").write_text("{")
    with pytest.raises(IrnnError, match=r"units\.json is damaged JSON"):
        Units.load(tmp_path / "a")


def test_units_that_cannot_be_made_are_refused() -> None:
    for config, message in (
        (lambda: UnitsConfig("syllables"), "kind='syllables' is unknown"),
        (lambda: UnitsConfig("sentencepiece"), "the size belongs to sentencepiece"),
        (lambda: UnitsConfig("words", size=10), "the size belongs to sentencepiece"),
        (
            lambda: Units.train(TEXTS, UnitsConfig("sentencepiece", size=5000)),
            r"size=5000: SentencePiece .* \(Vocabulary size too high",
        ),
    ):
        with pytest.raises(IrnnError, match=message) as caught:
            config()
        assert "\n" not in str(caught.value)
