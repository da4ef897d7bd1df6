"""A decoder of LZ4 frames, as far as the weights' files need it.

Formats: https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md and lz4_Block_format.md.
"""

from __future__ import annotations

_MAGIC = 0x184D2204
_VERSION, _VERSION_MASK = 0x40, 0xC0
_BLOCK_CHECKSUM, _CONTENT_SIZE, _DICTIONARY = 0x10, 0x08, 0x01
_UNCOMPRESSED = 1 << 31
_LEAST_MATCH = 4
_EXTENDED = 15
"""A length of four bits with this value goes on in the bytes that follow."""


def decompress(frame: bytes) -> bytes:
    """The content of one frame; blocks may refer to those before them. Checksums are skipped, not compared.

    Raises ValueError where it isn't a frame, needs a dictionary, or is damaged in a way that shows.
    """
    out = bytearray()
    try:
        position, block_checksum = _header(frame)
        while True:
            size, position = _number(frame, position, 4), position + 4
            if size == 0:
                return bytes(out)
            stored, size = size & _UNCOMPRESSED, size & ~_UNCOMPRESSED
            block = frame[position : position + size]
            if len(block) < size:
                raise ValueError("the last block is cut short")
            if stored:
                out += block
            else:
                _block(out, block)
            position += size + (4 if block_checksum else 0)
    except IndexError as error:
        raise ValueError("it ends too early") from error


def _number(data: bytes, position: int, size: int) -> int:
    if len(data) < position + size:
        raise IndexError
    return int.from_bytes(data[position : position + size], "little")


def _header(frame: bytes) -> tuple[int, bool]:
    """Where the first block begins, and whether a checksum follows each block."""
    if _number(frame, 0, 4) != _MAGIC:
        raise ValueError("it is no LZ4 frame")
    flags = frame[4]
    if flags & _VERSION_MASK != _VERSION:
        raise ValueError("its version is not known")
    if flags & _DICTIONARY:
        raise ValueError("it needs a dictionary")
    # magic, flags, block size, the content's size maybe, the header's checksum
    return 4 + 1 + 1 + (8 if flags & _CONTENT_SIZE else 0) + 1, bool(flags & _BLOCK_CHECKSUM)


def _block(out: bytearray, block: bytes) -> None:
    """Append what a compressed block stands for: pieces of literal bytes, each followed by a match in ``out``."""
    position, end = 0, len(block)
    while position < end:
        token = block[position]
        length, position = _length(block, position + 1, token >> 4)
        if position + length > end:
            raise IndexError
        out += block[position : position + length]
        position += length
        if position == end:  # the last piece has no match
            return
        offset = _number(block, position, 2)
        length, position = _length(block, position + 2, token & 15)
        length += _LEAST_MATCH
        if not 0 < offset <= len(out):
            raise ValueError("a match lies before the start")
        match = bytes(out[len(out) - offset : len(out) - offset + length])
        # A match may reach into what it is itself making: then it repeats.
        out += (match * -(-length // offset))[:length] if offset < length else match


def _length(block: bytes, position: int, length: int) -> tuple[int, int]:
    """A length whose first four bits are given, and the position behind it."""
    if length == _EXTENDED:
        while True:
            byte = block[position]
            position += 1
            length += byte
            if byte != 255:
                break
    return length, position
