"""MNIST's files, tiny: pictures of noise whose first pixel says the label."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np


def write_mnist(folder: Path, train: int = 60, test: int = 20, *, packed: bool = True) -> Path:
    """The four files in the IDX format."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", train), ("t10k", test)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        pictures = rng.integers(0, 20, (count, 28, 28)).astype(np.uint8)
        pictures[:, :14] += 20 * labels[:, None, None]
        head = np.array([2051, count, 28, 28], ">i4").tobytes(), np.array([2049, count], ">i4").tobytes()
        for kind, content in (
            ("images-idx3", head[0] + pictures.tobytes()),
            ("labels-idx1", head[1] + labels.tobytes()),
        ):
            path = folder / f"{name}-{kind}-ubyte"
            if packed:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)
    return folder
