"""The LZ4 decoder against the library's own frames, whole and damaged."""

import contextlib
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecnn.faces.lz4 import decompress

STEADY = settings(deadline=None, derandomize=True)

lz4: Any = pytest.importorskip("lz4.frame", reason="needs the package lz4, which comes with the extra faces")

# Pieces that are repeated compress into matches, also into such as overlap what they make.
CONTENTS = st.lists(
    st.tuples(st.binary(max_size=40), st.integers(1, 400)).map(lambda piece: piece[0] * piece[1]), max_size=8
).map(b"".join)


@STEADY
@given(
    CONTENTS,
    st.sampled_from([0, 3, 12]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_what_the_library_compressed_comes_back(
    content: bytes, level: int, linked: bool, checksum: bool, block_checksum: bool, size: bool
) -> None:
    frame = lz4.compress(
        content,
        compression_level=level,
        block_linked=linked,
        content_checksum=checksum,
        block_checksum=block_checksum,
        store_size=size,
    )
    assert decompress(frame) == content


def test_matches_reach_back_over_blocks() -> None:
    """150 kB in blocks of 64 KiB, the second half like the first: most matches lie in the block before."""
    half = random.Random(0).randbytes(50_000)
    content = half + half + half
    frame = lz4.compress(content, block_size=lz4.BLOCKSIZE_MAX64KB, block_linked=True, compression_level=12)
    assert len(frame) < 60_000
    assert decompress(frame) == content


@STEADY
@given(CONTENTS, st.booleans(), st.data())
def test_a_frame_that_is_cut_short_is_an_error(content: bytes, block_checksum: bool, data: st.DataObject) -> None:
    frame = lz4.compress(content, block_checksum=block_checksum)
    length = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(ValueError, match=r"cut short|too early"):
        decompress(frame[:length])


@STEADY
@given(CONTENTS.filter(bool), st.data())
def test_damage_is_an_error_or_goes_unseen_but_nothing_else(content: bytes, data: st.DataObject) -> None:
    frame = bytearray(lz4.compress(content))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        assert isinstance(decompress(bytes(frame)), bytes)


@STEADY
@given(st.binary(max_size=200))
def test_other_bytes_are_no_frame(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"no LZ4|too early"):
        decompress(b"\0" + data)


def block(*compressed: int) -> bytes:
    """A frame of one compressed block."""
    return bytes([4, 0x22, 0x4D, 0x18, 0x60, 0x40, 0, len(compressed), 0, 0, 0, *compressed, 0, 0, 0, 0])


def test_a_match_that_repeats_itself() -> None:
    # Two literals, then 8 bytes from 2 back; then the literal "c".
    assert decompress(block(0x24, *b"ab", 2, 0, 0x10, *b"c")) == b"abababababc"


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        pytest.param(block(0x24, *b"ab", 3, 0, 0x10, *b"c"), "before the start", id="a match before the start"),
        pytest.param(block(0x24, *b"ab", 0, 0, 0x10, *b"c"), "before the start", id="a match of distance 0"),
        pytest.param(block(0x50, *b"ab"), "early", id="fewer literals than said"),
        pytest.param(block(0xF0, 255, 255), "early", id="a length without end"),
        pytest.param(bytes([4, 0x22, 0x4D, 0x18, 0x61, 0x40, 0, 0, 0, 0, 0]), "dictionary", id="a dictionary"),
        pytest.param(bytes([4, 0x22, 0x4D, 0x18, 0xA0, 0x40, 0, 0, 0, 0, 0]), "version", id="another version"),
    ],
)
def test_what_is_wrong_is_said(frame: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decompress(frame)
