"""Whether the headers of an Ogg file are whole: libsndfile loses memory with every one that it opens and cannot read.

libsndfile 1.2.2 does not free its decoder if the headers of Vorbis or Opus are cut or damaged: 5.7 KiB for each file,
even of 58 bytes. The pages that hold the headers are therefore checked before libsndfile sees the file.

Source: RFC 3533 (pages of Ogg), RFC 7845 (headers of Opus), the Vorbis I specification, section 4.2 (headers).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator

from slm_plugin.errors import AudioError

MAGIC = b"OggS"
_HEADERS = {
    b"\x01vorbis": (b"\x01vorbis", b"\x03vorbis", b"\x05vorbis"),
    b"OpusHead": (b"OpusHead", b"OpusTags"),
}
"""Start of the first packet -> how the header packets of that codec start."""

MOST_HEADER_BYTES = 2**22
"""Most bytes of header pages, pictures in their comments included."""

_MOST_CHECKED_BYTES = 2**18
"""Bytes of a page whose checksum is calculated, at about a megabyte a second."""


def require_whole_headers(start: bytes, name: str) -> None:
    """Refuse an Ogg file whose header packets are not all there; other files, and other codecs in Ogg, pass.

    Args:
        start: The file, or its first :data:`MOST_HEADER_BYTES` bytes.
        name: What an error calls it.

    Raises:
        AudioError: A header packet is cut, damaged or missing.
    """
    if not start.startswith(MAGIC):
        return
    wanted: tuple[bytes, ...] = ()
    for number, packet in enumerate(_packets(start), 1):
        if number == 1:
            wanted = next((starts for first, starts in _HEADERS.items() if packet.startswith(first)), ())
            if not wanted:
                return
        if not packet.startswith(wanted[number - 1]):
            break
        if number == len(wanted):
            return
    raise AudioError(f"{name} cannot be read (the headers of the Ogg file are cut or damaged); send it again whole.")


def _packets(start: bytes) -> Iterator[bytes]:
    """Yield the whole packets of the first stream, up to the first page that is cut or damaged."""
    offset, serial, packet = 0, b"", bytearray()
    while True:
        head = start[offset : offset + 27]
        if len(head) < 27 or not head.startswith(MAGIC) or head[4] != 0:
            return
        lacing = start[offset + 27 : offset + 27 + head[26]]
        begin = offset + 27 + len(lacing)
        end = begin + sum(lacing)
        if len(lacing) < head[26] or end > min(len(start), MOST_HEADER_BYTES):
            return
        if end - offset <= _MOST_CHECKED_BYTES and not _is_intact(start[offset:end]):
            return
        serial = serial or head[14:18]
        if head[14:18] == serial:
            for length in lacing:
                packet += start[begin : begin + length]
                begin += length
                if length < 255:
                    yield bytes(packet)
                    packet.clear()
        offset = end


def _is_intact(page: bytes) -> bool:
    (recorded,) = struct.unpack_from("<I", page, 22)
    table, crc = _crc_table(), 0
    for byte in page[:22] + bytes(4) + page[26:]:
        crc = (crc << 8 & 0xFFFFFFFF) ^ table[crc >> 24 ^ byte]
    return crc == recorded


@functools.cache
def _crc_table() -> tuple[int, ...]:
    """Return the checksums of all bytes: polynomial 0x04C11DB7, neither reflected nor inverted."""
    found = []
    for byte in range(256):
        crc = byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
        found.append(crc)
    return tuple(found)
