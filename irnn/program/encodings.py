"""How a constant is packed on disk, and which integers it may hold: the encodings of a tensor.

Elements are fields of 1 to 8 bits, packed along the last axis from the lowest bit on; each row starts at a byte.  So
the field of element ``k`` starts at bit ``bits * k`` of its row, bit ``j`` of a row being bit ``j % 8`` of byte
``j // 8``.  Packed tensors are unpacked when they are loaded: in memory they have the dtype that stands below.

===========  ==============  =====  =============================================================================
encoding     in memory       bits   field
===========  ==============  =====  =============================================================================
int8         int8            8      two's complement
int4         int8            4      two's complement; what format version 1 gives to 3 bits, too
int3         int8            3      two's complement
int2         int8            2      two's complement
ternary      int8            2      two's complement, -1, 0 or 1
binary       int8            1      1 stands for 1, 0 for -1
codebook     int16           1-8    place of the value among the tensor's distinct values, which ascend beside it
uint16, ...  the same        8-32   the dtype itself
===========  ==============  =====  =============================================================================
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irnn.errors import IrnnError


@dataclass(frozen=True)
class Encoding:
    """dtype: in memory.  low, high: the integers that it holds (None: a float).  bits: of a packed field, or None."""

    name: str
    dtype: str
    low: int | None
    high: int | None
    bits: int | None = None

    def storage_bits(self, bits: int) -> int:
        """Bits that one element takes on disk, of a tensor of ``bits``."""
        if self.name == "codebook":
            return bits
        return 8 * np.dtype(self.dtype).itemsize if self.bits is None else self.bits


def _dtype(name: str) -> Encoding:
    if np.dtype(name).kind == "f":
        return Encoding(name, name, None, None)
    return Encoding(name, name, int(np.iinfo(name).min), int(np.iinfo(name).max))


ENCODINGS = {
    encoding.name: encoding
    for encoding in (
        _dtype("int8"),
        Encoding("int4", "int8", -8, 7, 4),
        Encoding("int3", "int8", -4, 3, 3),
        Encoding("int2", "int8", -2, 1, 2),
        Encoding("ternary", "int8", -1, 1, 2),
        Encoding("binary", "int8", -1, 1, 1),
        Encoding("codebook", "int16", -32768, 32767, 8),
        *(_dtype(name) for name in ("uint16", "int16", "int32", "float32")),
    )
}


def find(name: str) -> Encoding:
    """An encoding by its name; an unknown one is an :class:`IrnnError` that lists the known ones."""
    if name not in ENCODINGS:
        raise IrnnError(f"unknown encoding {name!r}; known are {', '.join(ENCODINGS)}")
    return ENCODINGS[name]


def version_1(dtype: str, bits: int) -> str:
    """The encoding that format version 1 gives to a tensor of ``dtype`` and ``bits``."""
    if dtype == "int8" and bits <= 4:
        return "int2" if bits <= 2 else "int4"
    return dtype


def problem(data: np.ndarray, bits: int, name: str) -> str | None:
    """Why the tensor's integers cannot be of the encoding, in words; None where they are."""
    if name not in ENCODINGS:  # the name of a dtype that no encoding has
        return f"is {name}; the known encodings are {', '.join(ENCODINGS)}"
    encoding = ENCODINGS[name]
    if str(data.dtype) != encoding.dtype:
        return f"is {data.dtype}, {name} holds {encoding.dtype}"
    if encoding.low is None or encoding.high is None or data.size == 0:
        return None
    low, high = int(data.min()), int(data.max())
    if low < encoding.low or high > encoding.high:
        worst = low if low < encoding.low else high
        return f"holds {worst}, {name} reaches from {encoding.low} to {encoding.high}"
    if name == "binary" and not np.all(data):
        return "holds 0, binary is -1 or 1"
    if name == "codebook" and not 1 <= bits <= 8:
        return f"is a codebook of {bits} bits, 1 to 8 are allowed"
    if name == "codebook" and len(np.unique(data)) > 1 << bits:
        return f"holds {len(np.unique(data))} different values, a codebook of {bits} bits {1 << bits}"
    return None


def encode(data: np.ndarray, bits: int, name: str) -> tuple[np.ndarray, list[int] | None]:
    """(what is written to disk, the codebook or None); what does not fit the encoding is an :class:`IrnnError`."""
    encoding = find(name)
    if encoding.bits is None:
        return data, None
    if wrong := problem(data, bits, name):
        raise IrnnError(f"a tensor {wrong}: it cannot be stored")
    if name == "binary":
        return pack((data + 1) // 2, 1), None
    if name == "codebook":
        codebook, places = np.unique(data, return_inverse=True)
        return pack(places.reshape(data.shape).astype(np.uint8), bits), codebook.tolist()
    return pack(data, encoding.bits), None


def decode(stored: np.ndarray, bits: int, name: str, length: int, codebook: list[int] | None) -> np.ndarray:
    """The reverse of :func:`encode`: the tensor in memory, ``[..., length]``."""
    encoding = find(name)
    if encoding.bits is None:
        return stored
    if name == "binary":
        return (2 * unpack(stored, 1, length, signed=False).astype(np.int8) - 1).astype(np.int8)
    if name == "codebook":
        return np.array(codebook, np.int16)[unpack(stored, bits, length, signed=False)]
    return unpack(stored, encoding.bits, length)


def pack(data: np.ndarray, bits: int) -> np.ndarray:
    """int8 or uint8 ``[..., n]`` with values of ``bits`` -> uint8 ``[..., ceil(n * bits / 8)]``."""
    fields = (data.view(np.uint8)[..., None] >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(fields.reshape(*data.shape[:-1], -1), axis=-1, bitorder="little")


def unpack(packed: np.ndarray, bits: int, length: int, *, signed: bool = True) -> np.ndarray:
    """The reverse of :func:`pack`: int8 (two's complement) or uint8 ``[..., length]``."""
    flat = np.unpackbits(packed, axis=-1, count=length * bits, bitorder="little")
    fields = flat.reshape(*packed.shape[:-1], length, bits)
    value = np.bitwise_or.reduce(fields << np.arange(bits, dtype=np.uint8), axis=-1)
    if not signed:
        return value
    wide = value.astype(np.int16)
    return np.where(wide >= 1 << (bits - 1), wide - (1 << bits), wide).astype(np.int8)
