"""The three networks against a few lines of NumPy in float64, on the package's own files as joblib reads them.

So this also tests that the weights were read in the right order and layout: nothing here comes from facecnn.
"""

import importlib.util
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from facecnn.arrays import Array
from facecnn.errors import CheckpointError
from facecnn.faces.nets import NETS, Nets, face_probability

Arrays = Mapping[str, npt.NDArray[np.float32]]

TOLERANCE = 2e-4


@pytest.fixture(scope="module")
def nets(arrays: Arrays) -> Nets:
    return Nets(arrays, threads=1)


def file_arrays(name: str) -> Iterator[Array]:
    joblib = pytest.importorskip("joblib", reason="needs joblib, which comes with the extra faces")
    spec = importlib.util.find_spec("mtcnn")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    weights = Path(spec.submodule_search_locations[0]) / "assets" / "weights" / f"{name}.lz4"
    return iter([np.asarray(array, np.float64) for array in joblib.load(weights)])


def conv(x: Array, numbers: Iterator[Array]) -> Array:
    """x (row, column, map), weights (row, column, map, kernel)."""
    weight, bias = next(numbers), next(numbers)
    rows, columns = x.shape[0] - weight.shape[0] + 1, x.shape[1] - weight.shape[1] + 1
    return bias + sum(
        x[r : r + rows, c : c + columns] @ weight[r, c] for r, c in product(*map(range, weight.shape[:2]))
    )


def dense(x: Array, numbers: Iterator[Array]) -> Array:
    weight, bias = next(numbers), next(numbers)
    return np.asarray(x @ weight + bias)


def prelu(x: Array, numbers: Iterator[Array]) -> Array:
    return np.where(x > 0, x, x * next(numbers).reshape(-1))


def pool(x: Array, size: int) -> Array:
    """At every second place; windows may reach over the right and bottom edge."""
    rows, columns = (-(-(side - size) // 2) + 1 for side in x.shape[:2])
    return np.array(
        [[x[2 * r : 2 * r + size, 2 * c : 2 * c + size].max((0, 1)) for c in range(columns)] for r in range(rows)]
    )


def pnet(x: Array, numbers: Iterator[Array]) -> Array:
    x = pool(prelu(conv(x, numbers), numbers), 2)
    x = prelu(conv(x, numbers), numbers)
    x = prelu(conv(x, numbers), numbers)
    return np.concatenate([conv(x, numbers), conv(x, numbers)], axis=-1)


def rnet(x: Array, numbers: Iterator[Array]) -> Array:
    x = pool(prelu(conv(x, numbers), numbers), 3)
    x = pool(prelu(conv(x, numbers), numbers), 3)
    x = prelu(conv(x, numbers), numbers)
    x = prelu(dense(x.swapaxes(0, 1).reshape(-1), numbers), numbers)  # column by column
    return np.concatenate([dense(x, numbers), dense(x, numbers)])


def onet(x: Array, numbers: Iterator[Array]) -> Array:
    x = pool(prelu(conv(x, numbers), numbers), 3)
    x = pool(prelu(conv(x, numbers), numbers), 3)
    x = pool(prelu(conv(x, numbers), numbers), 2)
    x = prelu(conv(x, numbers), numbers)
    x = prelu(dense(x.swapaxes(0, 1).reshape(-1), numbers), numbers)
    return np.concatenate([dense(x, numbers), dense(x, numbers), dense(x, numbers)])


REFERENCES = {"pnet": pnet, "rnet": rnet, "onet": onet}


def pictures(name: str, count: int) -> npt.NDArray[np.uint8]:
    side = NETS[name].side
    return np.random.default_rng(1).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", NETS)
def test_outputs_are_those_of_the_plain_formulas(nets: Nets, name: str) -> None:
    shown = pictures(name, 2)
    outputs = np.concatenate(nets.run(name, shown), axis=-1)
    for picture, output in zip(shown, outputs, strict=True):
        numbers = file_arrays(name)
        expected = REFERENCES[name]((picture - 127.5) / 128, numbers)
        assert not list(numbers)  # all of the file was used
        assert expected.std() > 0.1
        np.testing.assert_allclose(output, expected, atol=TOLERANCE * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("name", NETS)
def test_a_picture_gets_the_same_answer_in_whatever_company(nets: Nets, name: str) -> None:
    shown = pictures(name, NETS[name].batch_size + 3)  # more than one batch
    together = nets.run(name, shown)
    assert [len(output) for output in together] == [len(shown)] * len(together)
    for number in (0, len(shown) - 1):
        for one, all_of_them in zip(nets.run(name, shown[number : number + 1]), together, strict=True):
            np.testing.assert_array_equal(one[0], all_of_them[number])


@pytest.mark.parametrize("name", NETS)
def test_no_pictures_no_answers(nets: Nets, name: str) -> None:
    heads = nets.run(name, pictures(name, 0))
    assert [len(head) for head in heads] == [0] * len(NETS[name].heads)


def test_the_second_logit_is_for_a_face() -> None:
    probability = face_probability(np.array([[0, 0], [0, 3], [3, 0]], np.float32))
    np.testing.assert_allclose(probability, [0.5, 1 / (1 + np.exp(-3)), 1 - 1 / (1 + np.exp(-3))], rtol=1e-6)
    assert probability.dtype == np.float32
    with np.errstate(over="raise"):
        extreme = face_probability(np.array([[-1000, 1000], [1000, -1000]], np.float32))
    np.testing.assert_array_equal(extreme, [1, 0])


def without(arrays: Arrays, name: str) -> dict[str, Array]:
    return {key: array for key, array in arrays.items() if key != name}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param(lambda arrays: without(arrays, "rnet.dense1.bias"), "dense1.bias", id="one is missing"),
        pytest.param(lambda arrays: {**arrays, "qnet.conv1.bias": np.zeros(1)}, "qnet.conv1.bias", id="one too many"),
        pytest.param(
            lambda arrays: {**arrays, "pnet.conv1.bias": np.zeros(9, np.float32)}, "conv1.bias", id="another shape"
        ),
        pytest.param(
            lambda arrays: {**arrays, "onet.conv1.bias": np.full(32, np.nan, np.float32)}, "onet.conv1.bias", id="NaN"
        ),
    ],
)
def test_arrays_of_something_else_are_refused(arrays: Arrays, change: Any, named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        Nets(change(dict(arrays)), threads=1)
