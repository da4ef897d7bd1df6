"""Reading dlib's file: the right numbers, and nothing but CheckpointErrors from a damaged one."""

import contextlib
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecnn.body.dat import BodyFile, read_body
from facecnn.errors import CheckpointError

PATH = Path("somewhere/network.dat")

# Where the file has what, found by taking it apart by hand.
FIRST_WEIGHTS = 352
FIRST_AFFINE = 19_400
DENSE_WEIGHTS = 22_334_922
WITHOUT_WEIGHTS = [
    (0, 352),
    (19_296, 19_400),
    (19_656, 19_820),
    (22_334_922 - 300, 22_334_922),
    (22_465_994, 22_466_066),
]
"""Parts of the file without weights: head, first convolution and affine layer, relu and pool, the end."""


def floats(data: bytes, start: int, count: int) -> tuple[float, ...]:
    return struct.unpack_from(f"<{count}f", data, start)


def test_shapes_and_the_number_of_weights(body: BodyFile) -> None:
    shapes = [convolution.weight.shape for convolution in body.convolutions]
    three = [(32, 32, 3, 3)] * 6
    four = [(64, 32, 3, 3), *[(64, 64, 3, 3)] * 7]
    middle = [(128, 64, 3, 3), *[(128, 128, 3, 3)] * 5]
    last = [(256, 128, 3, 3), *[(256, 256, 3, 3)] * 7]
    assert shapes == [(32, 3, 7, 7), *three, *four, *middle, *last]
    assert body.dense.shape == (256, 128)
    numbers = body.dense.size
    for convolution in body.convolutions:
        kernels = len(convolution.weight)
        assert convolution.bias.shape == convolution.gamma.shape == convolution.beta.shape == (kernels,)
        numbers += convolution.weight.size + 3 * kernels
    assert numbers == 5_614_592


def test_the_mean_is_that_of_dlibs_example(body: BodyFile) -> None:
    # dlib/dnn/input.h: the default colours of input_rgb_image_sized.
    assert body.mean == tuple(float(np.float32(value)) for value in (122.782, 117.001, 104.298))


def test_weights_lie_where_the_file_has_them(body: BodyFile, data: bytes) -> None:
    first = body.convolutions[0]
    assert tuple(first.weight[0, 0, 0]) == floats(data, FIRST_WEIGHTS, 7)
    # Maps before rows before columns: the second kernel's last map.
    assert tuple(first.weight[1, 2, 6]) == floats(data, FIRST_WEIGHTS + 4 * (2 * 147 - 7), 7)
    assert tuple(first.bias) == floats(data, FIRST_WEIGHTS + 4 * 32 * 147, 32)
    assert tuple(first.gamma) == floats(data, FIRST_AFFINE, 32)
    assert tuple(first.beta) == floats(data, FIRST_AFFINE + 4 * 32, 32)
    assert tuple(body.dense[0]) == floats(data, DENSE_WEIGHTS, 128)
    assert tuple(body.dense[-1]) == floats(data, DENSE_WEIGHTS + 4 * 255 * 128, 128)


def test_some_weights_as_they_are_known(body: BodyFile) -> None:
    first = body.convolutions[0]
    np.testing.assert_allclose(first.weight[0, 0, 0, :3], [-0.029329920, -0.018865306, -0.0056693899], rtol=1e-6)
    np.testing.assert_allclose(first.gamma[:3], [12.166323, 10.559221, 17.430050], rtol=1e-6)
    np.testing.assert_allclose(body.dense[0, :3], [-0.0067462474, -0.010189231, 0.0052482453], rtol=1e-6)


@pytest.mark.parametrize(
    ("position", "new", "message"),
    [
        (0, b"\x00", "byte 0: the loss's version: no integer begins with the byte 0x00"),
        (0, b"\x71", "byte 0: .* the byte 0x71"),
        (1, b"\x02", "byte 0: the loss's version is 2, 1 expected"),
        (0, b"\x81", "byte 0: the loss's version is -1, 1 expected"),
        (4, b"L", "byte 2: 'Loss_metric_2' found, loss_metric_2 expected"),
        (5, b"\x00", r"byte 2: 'l\\x00ss_metric_2' found"),
        (30, b"\x03", "byte 29: a layer's version is 3, 2 expected"),
        (288, b"\x02", "byte 287: a layer's version is 2, 3 expected"),
        (312, b"\x83", "byte 312: a colour's mean is -122.782, 0 to 255 expected"),
        (331, b"\x97", "byte 330: a side of the input is 151, 150 expected"),
        (342, b"\x01", "byte 341: a tensor's version is 1, 2 expected"),
        (344, b"\x81", "byte 343: a size of a tensor is 4737, 4736 expected"),
        (19_297, b"\x21", "byte 19296: a setting of a convolution is 33, 32 expected"),
        (19_311, b"\x02", "byte 19310: a window's version is 2, 1 expected"),
        (19_315, b"\x04", "byte 19314: a size of a window is 4, 3 expected"),
        (19_348, b"2", "byte 19348: a flag is the byte 0x32, 0 or 1 expected"),
        (19_352, b"\x01", "byte 19351: a size of a tensor is 1, 0 expected"),
        (19_380, b"\x02", "byte 19379: inputs made of each picture is 2, 1 expected"),
        (19_677, b"\x01", "byte 19676: the kind of an affine layer is 1, 0 expected"),
        (19_764, b"\x02", "byte 19763: a setting of max_pool_2 is 2, 3 expected"),
        (22_466_006, b"\x00", "byte 22466005: .* is 0, 1 expected"),
        (FIRST_WEIGHTS + 4, struct.pack("<f", np.nan), "byte 356: a weight isn't finite"),
        (DENSE_WEIGHTS + 8, struct.pack("<f", -np.inf), "byte 22334930: a weight isn't finite"),
    ],
)
def test_a_field_that_is_not_as_expected(position: int, new: bytes, message: str, data: bytes) -> None:
    damaged = data[:position] + new + data[position + len(new) :]
    assert damaged != data
    with pytest.raises(CheckpointError, match=rf"^somewhere/network\.dat: .*{message}.*: pip install .*==0\.3\.0$"):
        read_body(PATH, damaged)


def test_infinity_is_no_number(data: bytes) -> None:
    # dlib writes infinity with the exponent 32000, in three bytes: the second number of the loss.
    damaged = data[:27] + b"\x02\x00\x7d" + data[29:]
    with pytest.raises(CheckpointError, match="byte 23: a number with the exponent 32000"):
        read_body(PATH, damaged)


def test_bytes_left_over_are_refused(data: bytes) -> None:
    with pytest.raises(CheckpointError, match="byte 22466066: bytes after the end: 1"):
        read_body(PATH, data + b"\0")


def test_a_size_beyond_all_memory_asks_for_none(data: bytes) -> None:
    damaged = data[:343] + b"\x08" + b"\xff" * 8 + data[346:]
    tracemalloc.start()
    try:
        with pytest.raises(
            CheckpointError, match="byte 343: a size of a tensor is 18446744073709551615, 4736 expected"
        ):
            read_body(PATH, damaged)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("other", [b"", b"\x01", b"\x88", bytes(1000), b"\x18" * 1000, b"\x80\x04\x95"])
def test_another_file(other: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"network\.dat: not dlib's face network, or damaged: byte \d+: "):
        read_body(PATH, other)


@settings(max_examples=60, deadline=None)
@given(end=st.integers(0, 22_466_065) | st.integers(0, 20_000))
def test_a_file_that_is_cut_short(end: int, data: bytes) -> None:
    with pytest.raises(CheckpointError, match="cut short"):
        read_body(PATH, data[:end])


@settings(max_examples=80, deadline=None)
@given(draw=st.data())
def test_flipped_bytes_are_refused_or_harmless(draw: st.DataObject, data: bytes) -> None:
    """Outside the weights nearly every byte is checked: not numbers of dlib's training, flags and colours."""
    first, last = draw.draw(st.sampled_from(WITHOUT_WEIGHTS))
    positions = draw.draw(st.lists(st.integers(first, last - 1), min_size=1, max_size=3))
    damaged = bytearray(data)
    for position in positions:
        damaged[position] ^= draw.draw(st.integers(1, 255))
    began = time.perf_counter()
    with contextlib.suppress(CheckpointError):
        found = read_body(PATH, bytes(damaged))
        assert found.dense.shape == (256, 128)
        assert all(0 <= colour <= 255 for colour in found.mean)
        assert all(np.isfinite(convolution.weight).all() for convolution in found.convolutions)
    assert time.perf_counter() - began < 5


@settings(max_examples=100, deadline=None)
@given(rest=st.binary(max_size=500))
def test_any_bytes_after_a_right_beginning(rest: bytes, data: bytes) -> None:
    for start in (0, 29, 287, 334, 343):
        with pytest.raises(CheckpointError, match="byte"):
            read_body(PATH, data[:start] + rest)
