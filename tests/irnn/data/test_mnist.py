"""MNIST as sequences: order of pixels, splits, and files that are not what they should be."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from irnn.data.labelled.batches import LabelledBatches
from irnn.data.labelled.corpus import load_labelled
from irnn.data.labelled.mnist import MnistConfig
from irnn.errors import IrnnError
from tests.support import needs
from tests.support.pictures import write_mnist


def config(folder: Path, **more) -> MnistConfig:
    return MnistConfig(source="mnist", dir=str(folder), batch_size=10, **more)


@pytest.mark.parametrize("packed", [True, False])
def test_pictures_become_sequences(tmp_path: Path, packed: bool) -> None:
    corpus = load_labelled(config(write_mnist(tmp_path, packed=packed)))
    assert {name: len(split) for name, split in corpus.splits.items()} == {"train": 50, "dev": 10, "test": 20}
    assert corpus.labels == tuple("0123456789")
    (batch, *_) = LabelledBatches(corpus, "train", 10)
    assert batch.features.shape == (10, 784, 1)
    assert batch.frames.tolist() == [784] * 10
    assert batch.labels.tolist() == list(range(10))
    assert torch.equal(batch.features[3, :, 0] * 256, torch.from_numpy(corpus.splits["train"].pictures[3]).float())
    rows = load_labelled(config(tmp_path, pixels=28))
    (batch, *_) = LabelledBatches(rows, "train", 10)
    assert batch.features.shape == (10, 28, 28)
    assert torch.equal(batch.features.flatten(1)[3] * 256, torch.from_numpy(corpus.splits["train"].pictures[3]).float())
    alone = [rows.normalization.apply(rows.splits["train"].features(member)) for member in (7, 2)]
    assert np.array_equal(rows.together("train", [7, 2]), np.stack(alone))


def test_the_permuted_order_is_the_published_one(tmp_path: Path) -> None:
    plain, permuted = (load_labelled(config(write_mnist(tmp_path), permutation=p)) for p in (None, 92916))
    order = np.random.RandomState(92916).permutation(784)
    assert np.array_equal(permuted.splits["test"].pictures, plain.splits["test"].pictures[:, order])
    assert len({corpus.fingerprint for corpus in (plain, permuted, load_labelled(config(tmp_path, pixels=2)))}) == 3
    again = load_labelled(dataclasses.replace(config(tmp_path), batch_size=3))
    assert again.fingerprint == plain.fingerprint


def test_the_real_files_are_read() -> None:
    corpus = load_labelled(config(needs.data("mnist")))
    assert {name: len(split) for name, split in corpus.splits.items()} == {"train": 50000, "dev": 10000, "test": 10000}
    assert np.bincount(corpus.splits["test"].labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def shortened(folder: Path) -> str:
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    return r"train-images-idx3-ubyte\.gz is truncated or damaged; fetch it again"


def cut_inside(folder: Path) -> str:
    path = folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))
    return r"has 15695 bytes, its 20 items take 15696: it is truncated or damaged"


def exchanged(folder: Path) -> str:
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    return r"begins with \[2049, 20, .*\], not with 2051"


def gone(folder: Path) -> str:
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    return r"t10k-labels-idx1-ubyte is not there, nor as \.gz"


def of_another_set(folder: Path) -> str:
    write_mnist(folder / "other", test=10)
    (folder / "other/t10k-labels-idx1-ubyte.gz").rename(folder / "t10k-labels-idx1-ubyte.gz")
    return r"t10k has 20 pictures and 10 labels"


@pytest.mark.parametrize("damage", [shortened, cut_inside, exchanged, gone, of_another_set])
def test_files_that_cannot_be_used_are_one_line(tmp_path: Path, damage) -> None:
    message = damage(write_mnist(tmp_path))
    with pytest.raises(IrnnError, match=message):
        load_labelled(config(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": 27}, "pixels=27 must divide 784"),
        ({"permutation": -1}, "permutation=-1 must be a seed"),
        ({"dir": None}, "`dir` is not set"),
        ({"dir": "/nowhere"}, "dir=/nowhere is not a folder"),
    ],
)
def test_bad_settings_are_one_line(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(IrnnError, match=message):
        load_labelled(dataclasses.replace(config(tmp_path), **change))
