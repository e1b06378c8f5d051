"""Is an audio file as long as its header states? libsndfile takes what is there, and says nothing."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

# Sizes from here on are what programs write that cannot go back to the header: 0x7ffff000, 0x7fffffff, 0x80000000,
# 0xffffffff. Such a stream states no length.
_UNSTATED = 0x7FFFF000
_UNSTATED_64 = 1 << 48
# Enough for every file that was written in earnest.
_MAX_CHUNKS = 10_000
# No Ogg page has more bytes.
_OGG_PAGE = 27 + 255 + 255 * 255
_W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"


def what_is_missing(file: BinaryIO, size: int) -> str:
    """What `file`, `size` bytes long, lacks of the sound that it states, in words; nothing for a whole one.

    Known are WAV (RIFF, RIFX, RF64, BW64), W64, AIFF, 8SVX, AU, CAF, NIST SPHERE and Ogg. Of other headers, and of
    those that state no length, nothing is said here: FLAC and MP3 tell while they are decoded.
    """
    file.seek(0)
    head = file.read(40)
    if head[:4] == b"OggS":
        return "" if _ogg_ends(file, size) else "the page that ends an Ogg stream is not there"
    try:
        end = _stated_end(file, head)
    except struct.error:  # the header itself is cut: libsndfile refuses it
        return ""
    return f"its header states {end - size} bytes more than it has" if end > size else ""


def _ogg_ends(file: BinaryIO, size: int) -> bool:
    """Is the last page whole, and is it marked as the end of its stream?"""
    file.seek(max(0, size - 2 * _OGG_PAGE))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < 27 or not page[5] & 4:
        return False
    segments = page[27 : 27 + page[26]]
    return len(segments) == page[26] and 27 + len(segments) + sum(segments) <= len(page)


def _stated_end(file: BinaryIO, head: bytes) -> int:
    """Position behind the last byte of sound, as the header states it; 0 where it does not."""
    kind, form = head[:4], head[8:12]
    if kind in (b"RIFF", b"RIFX", b"RF64", b"BW64") and form == b"WAVE":
        return _chunked_end(file, b"data", ">" if kind == b"RIFX" else "<")
    if kind == b"FORM" and form in (b"AIFF", b"AIFC"):
        return _chunked_end(file, b"SSND", ">")
    if kind == b"FORM" and form in (b"8SVX", b"16SV"):
        return _chunked_end(file, b"BODY", ">")
    if head[:16] == _W64:
        return _w64_end(file)
    if kind == b"caff":
        return _caf_end(file)
    if kind in (b".snd", b"dns."):
        start, length = struct.unpack((">" if kind == b".snd" else "<") + "4xII", head[:12])
        return 0 if length >= _UNSTATED else start + length
    if head[:8] == b"NIST_1A\n":
        return _sphere_end(file)
    return 0


def _chunked_end(file: BinaryIO, wanted: bytes, order: str) -> int:
    stated64 = 0
    for name, start, length in _chunks(file, order):
        if name == b"ds64":  # RF64 and BW64 state their lengths here, in 64 bits
            file.seek(start + 8)
            (stated64,) = struct.unpack("<Q", file.read(8))
        if name == wanted and length == 0xFFFFFFFF and 0 < stated64 < _UNSTATED_64:
            return start + stated64
        if name == wanted:
            return 0 if length >= _UNSTATED else start + length
    return 0


def _chunks(file: BinaryIO, order: str) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, length) of the chunks behind a header of 12 bytes; each begins at an even position."""
    position = 12
    for _ in range(_MAX_CHUNKS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            return
        name, length = struct.unpack(order + "4sI", head)
        yield name, position + 8, length
        position += 8 + length + length % 2


def _w64_end(file: BinaryIO) -> int:
    """Sony Wave64: chunks at multiples of 8; names have 16 bytes, lengths 64 bits and count name and length."""
    position = 40
    for _ in range(_MAX_CHUNKS):
        file.seek(position)
        name, length = struct.unpack("<4s12xQ", file.read(24))
        if length >= _UNSTATED_64:
            return 0
        if name == b"data":
            return position + length
        position += max(24, length + -length % 8)
    return 0


def _caf_end(file: BinaryIO) -> int:
    """Apple's CAF: chunks with names of 4 bytes and lengths of 64 bits, of which -1 says that it is not known."""
    position = 8
    for _ in range(_MAX_CHUNKS):
        file.seek(position)
        name, length = struct.unpack(">4sq", file.read(12))
        if not 0 <= length < _UNSTATED_64:
            return 0
        if name == b"data":
            return position + 12 + length
        position += 12 + length
    return 0


def _sphere_end(file: BinaryIO) -> int:
    """NIST SPHERE: lines of text, `sample_count -i 16000`, in a header of as many bytes as its second line says."""
    file.seek(0)
    fields = [line.split(maxsplit=2) for line in file.read(1024).split(b"\n")]
    length = int(fields[1][0]) if len(fields[1]) == 1 and fields[1][0].isdigit() else 0
    values = {parts[0]: int(parts[2]) for parts in fields if len(parts) == 3 and parts[2].strip().isdigit()}
    names = (b"sample_count", b"sample_n_bytes", b"channel_count")
    if not length or not all(name in values for name in names):
        return 0
    return length + values[names[0]] * values[names[1]] * values[names[2]]
