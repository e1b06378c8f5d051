"""MNIST as sequences: handwritten digits, pixel after pixel (LeCun, Cortes and Burges; sequential: Le, Jaitly and
Hinton 2015), in their order or in one random order."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irnn.data.audio.features import Normalization
from irnn.data.folders import shown
from irnn.data.labelled.base import LabelledConfig, LabelledCorpus
from irnn.errors import IrnnError

SIDE, CLASSES = 28, 10
PIXELS = SIDE * SIDE
DEV_SHARE = 6  # the last sixth of the training pictures is dev: 10,000 of 60,000
WHITE = 256  # pixels become 0 to 255/256
# Name of a file -> (its magic number, what it holds)
_IMAGES, _LABELS = 2051, 2049


@dataclass(frozen=True, kw_only=True)
class MnistConfig(LabelledConfig):
    """dir: folder with the four files, as they are or as .gz.  pixels: of one step, a divisor of 784.
    permutation: seed of the order of all pixels; None: row by row."""

    dir: str | None = None
    pixels: int = 1
    permutation: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dir:
            raise IrnnError("`dir` is not set; add dir=FOLDER, the folder with train-images-idx3-ubyte and its kin")
        if not 1 <= self.pixels <= PIXELS or PIXELS % self.pixels:
            raise IrnnError(f"pixels={self.pixels} must divide {PIXELS}; 1 is pixel by pixel, {SIDE} row by row")
        if self.permutation is not None and not 0 <= self.permutation < 2**32:
            raise IrnnError(f"permutation={self.permutation} must be a seed, 0 to 2**32 - 1, or null")


@dataclass(frozen=True)
class PictureSplit:
    """pictures: uint8 [pictures, 784], in the order in which their pixels are read.  labels: int64 [pictures]."""

    pictures: np.ndarray
    labels: np.ndarray
    pixels: int

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def frames(self) -> np.ndarray:
        """Steps of every sequence, int64 [pictures]."""
        return np.full(len(self), PIXELS // self.pixels)

    def features(self, index: int) -> np.ndarray:
        """float32 [steps, pixels] of 0 to 255, not normalized."""
        return self.pictures[index].reshape(-1, self.pixels).astype(np.float32)


@dataclass(frozen=True)
class PictureCorpus(LabelledCorpus):
    """Nothing is augmented and nothing left out."""

    config: MnistConfig

    @property
    def feature_size(self) -> int:
        """Pixels of a step."""
        return self.config.pixels

    def together(self, split: str, members: list[int]) -> np.ndarray:
        """All of them have as many pixels."""
        part = self.splits[split]
        assert isinstance(part, PictureSplit)  # what `load_mnist` makes
        pixels = part.pictures[members].astype(np.float32)
        return self.normalization.apply(pixels.reshape(len(members), -1, self.config.pixels))

    def metadata(self) -> dict[str, Any]:
        """How a picture becomes a sequence."""
        return {"pixels": self.config.pixels, "permutation": self.config.permutation, "white": WHITE}


def load_mnist(config: MnistConfig) -> PictureCorpus:
    """Read the four files; one that is missing, truncated or something else is an `IrnnError`."""
    folder = Path(config.dir or "")
    if not folder.is_dir():
        raise IrnnError(f"dir={shown(folder)} is not a folder; give the folder of the MNIST files")
    order = np.arange(PIXELS)
    if config.permutation is not None:
        # The generator with which the published permutations were drawn.
        order = np.random.RandomState(config.permutation).permutation(PIXELS)
    digest, found = hashlib.sha256(json.dumps([config.pixels, order.tolist()]).encode()), {}
    for name in ("train", "t10k"):
        pictures = _read(folder / f"{name}-images-idx3-ubyte", _IMAGES, (SIDE, SIDE)).reshape(-1, PIXELS)
        labels = _read(folder / f"{name}-labels-idx1-ubyte", _LABELS, ())
        if len(pictures) != len(labels) or not len(labels):
            raise IrnnError(f"dir={shown(folder)}: {name} has {len(pictures)} pictures and {len(labels)} labels; "
                            "they belong to different files")  # fmt: skip
        if labels.max() >= CLASSES:
            raise IrnnError(f"dir={shown(folder)}: {name} has the label {labels.max()}; MNIST has 0 to {CLASSES - 1}")
        digest.update(pictures.tobytes() + labels.tobytes())
        found[name] = pictures[:, order], labels.astype(np.int64)
    dev = len(found["train"][1]) // DEV_SHARE
    if not dev:
        raise IrnnError(f"dir={shown(folder)}: train has {len(found['train'][1])} pictures; dev needs a sixth of them")
    parts = {
        "train": (found["train"][0][:-dev], found["train"][1][:-dev]),
        "dev": (found["train"][0][-dev:], found["train"][1][-dev:]),
        "test": found["t10k"],
    }
    splits = {name: PictureSplit(pictures, labels, config.pixels) for name, (pictures, labels) in parts.items()}
    normalization = Normalization(np.zeros(config.pixels, np.float32), np.full(config.pixels, WHITE, np.float32))
    return PictureCorpus(config, splits, tuple("0123456789"), normalization, digest.hexdigest())


def _read(path: Path, magic: int, shape: tuple[int, ...]) -> np.ndarray:
    """A file in the IDX format: uint8 [count, *shape]."""
    packed = path.with_name(f"{path.name}.gz")
    try:
        content = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
    except FileNotFoundError:
        raise IrnnError(f"{shown(path)} is not there, nor as .gz; give the folder of the MNIST files") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise IrnnError(f"{shown(packed)} is truncated or damaged; fetch it again") from None
    except OSError as error:
        raise IrnnError(f"{shown(path)} cannot be read ({error.strerror}); mend its permissions") from None
    head = 4 * (2 + len(shape))
    numbers = np.frombuffer(content[:head], ">i4").tolist() if len(content) >= head else []
    if numbers[:1] != [magic] or tuple(numbers[2:]) != shape:
        raise IrnnError(f"{shown(path)} begins with {numbers or 'too few bytes'}, not with {magic}; it is no such file "
                        "of MNIST")  # fmt: skip
    wanted = head + numbers[1] * int(np.prod(shape))
    if len(content) != wanted:
        raise IrnnError(f"{shown(path)} has {len(content)} bytes, its {numbers[1]} items take {wanted}: it is "
                        "truncated or damaged; fetch it again")  # fmt: skip
    return np.frombuffer(content[head:], np.uint8).reshape(-1, *shape)
