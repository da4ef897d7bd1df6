"""Embeddings: the body's output for a crop and its mirror image, kept by content."""

from __future__ import annotations

import sqlite3
from math import prod
from pathlib import Path

import numpy as np
import pytest

from facecnn.arrays import Array, Float32Array, UInt8Array
from facecnn.body import embedder as module
from facecnn.body.embedder import Embedder, crop_keys, key_of_bytes
from facecnn.body.embedding_cache import embeddings_folder, forget_embeddings
from facecnn.body.folding import shapes
from facecnn.kernels import cpu, reference
from facecnn.network.layers import Body
from facecnn.network.network import Network
from facecnn.photos.cache_folder import CACHE_VARIABLE

Arrays = dict[str, Float32Array]


def drawn(seed: int) -> Arrays:
    """Weights that nobody trained, as large as they must be for numbers to stay as large as they are."""
    random = np.random.default_rng(seed)
    return {
        name: random.normal(0, (2 / prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.01, shape).astype(np.float32)
        for name, shape in shapes().items()
    }


@pytest.fixture(scope="module")
def weights() -> Arrays:
    return drawn(0)


def crops(count: int, seed: int = 0) -> UInt8Array:
    return np.random.default_rng(seed).integers(0, 256, (count, 150, 150, 3), np.uint8)


class Asked(list[int]):
    """The first numbers of the crops that the body was asked for."""

    def __call__(self, _: Embedder, pixels: Array, rows: Array) -> Float32Array:
        """Stands for the body: all of an embedding is its crop's first number."""
        top, left = (pixels.shape[1] - 150) // 2, (pixels.shape[2] - 150) // 2
        found = [int(pixels[row, top, left, 0]) for row in rows.tolist()]
        self.extend(found)
        return np.repeat(np.array(found, np.float32)[:, None], 128, axis=1)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asked:
    """What is run from now on, with a cache that is empty."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    run = Asked()
    monkeypatch.setattr(Embedder, "compute", lambda *arguments: run(*arguments))
    return run


def numbered(count: int, margin: int = 0) -> UInt8Array:
    """Crops, of which each says its number first."""
    pixels = np.zeros((count, 150 + 2 * margin, 150 + 2 * margin, 3), np.uint8)
    pixels[:, margin, margin, 0] = np.arange(count)
    return pixels


def test_it_is_the_mean_of_what_the_body_says_of_a_crop_and_its_mirror_image(weights: Arrays) -> None:
    pixels = crops(2)
    views = np.concatenate([pixels, pixels[:, :, ::-1]])
    network = Network((Body(),), (150, 150, 3), reference, 4, dtype=np.float64, keep="outputs")
    network.weights.from_host(weights)
    network.input[...] = views / 255
    network.forward(4)
    expected = (network.output[:2] + network.output[2:]) / 2
    found = Embedder(cpu, weights).embed(pixels, np.array([1, 0]))
    np.testing.assert_allclose(found, expected[::-1], rtol=0, atol=1e-4 * np.abs(expected).max())
    assert np.abs(network.output[:2] - network.output[2:]).max() > 0.01 * np.abs(expected).max()


def test_each_row_gets_its_own_however_many_there_are(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BETWEEN_SAVES", 4)
    rows = np.array([7, 3, 3, 9, 0, 7, 5, 1, 8])
    told: list[tuple[int, int]] = []
    found = Embedder(reference, drawn(0)).embed(numbered(10), rows, lambda done, total: told.append((done, total)))
    assert found[:, 0].tolist() == rows.tolist()
    assert sorted(asked) == [0, 1, 3, 5, 7, 8, 9], "each once"
    assert told[-1] == (9, 9)


def test_a_crop_is_run_once(asked: Asked, weights: Arrays) -> None:
    Embedder(reference, weights).embed(numbered(3), np.array([0, 1]))
    found = Embedder(reference, weights).embed(numbered(3), np.array([2, 1, 0]))
    assert found[:, 0].tolist() == [2, 1, 0]
    assert asked == [0, 1, 2]


def test_another_body_has_embeddings_of_its_own(asked: Asked, weights: Arrays) -> None:
    for body in (weights, drawn(1), weights):
        Embedder(reference, body).embed(numbered(1), np.array([0]))
    assert len(asked) == 2
    assert len(list(embeddings_folder().iterdir())) == 2


def test_the_margin_around_a_crop_does_not_count(asked: Asked, weights: Arrays) -> None:
    narrow, wide = numbered(5), numbered(5, margin=38)
    wide[:, :38] = 200
    assert crop_keys(wide, np.arange(5)) == crop_keys(narrow, np.arange(5))
    Embedder(reference, weights).embed(narrow, np.arange(5))
    assert Embedder(reference, weights).embed(wide, np.arange(5))[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert len(asked) == 5


def test_what_was_damaged_on_the_disk_is_made_anew(asked: Asked, weights: Arrays) -> None:
    Embedder(reference, weights).embed(numbered(3), np.array([1, 2]))
    (file,) = embeddings_folder().glob("*.sqlite")
    with sqlite3.connect(file) as index:
        index.execute("update embeddings set embedding = zeroblob(512)")
    index.close()
    assert Embedder(reference, weights).embed(numbered(3), np.array([1, 2]))[:, 0].tolist() == [1, 2]
    assert asked == [1, 2, 1, 2]


@pytest.mark.parametrize("margin", [0, 38])
def test_an_embedding_is_forgotten_by_the_crop_that_the_cache_of_photos_has(
    asked: Asked, weights: Arrays, margin: int
) -> None:
    """Without its shape, and with the margin that photos have which are augmented."""
    pixels = numbered(3, margin)
    Embedder(reference, weights).embed(pixels, np.arange(3))
    key = key_of_bytes(pixels[1].ravel())
    assert key is not None
    none = np.zeros((0, 128), np.float32)
    assert forget_embeddings([key], none) == 1
    assert forget_embeddings([key], none) == 0
    Embedder(reference, weights).embed(pixels, np.arange(3))
    assert asked == [0, 1, 2, 1]


def test_a_crop_of_another_size_has_no_embedding() -> None:
    assert key_of_bytes(np.zeros(40 * 40, np.uint8)) is None
