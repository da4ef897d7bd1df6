"""Random words, augmentation and the preparation of photos."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import numpy as np

from contract.cases.numbers import times
from facecnn.arrays import Array
from facecnn.kernels import reference
from facecnn.kernels.cases import Case, Out, Size
from facecnn.kernels.protocol import AUGMENTATION, AUGMENTATION_NONE, Normalise

NORMALISATIONS: tuple[Normalise, ...] = get_args(Normalise)
EPOCH = np.array([7], np.int32)
RANGES = (True, 0.06, 0.1, 8.0, 0.5, 0.3, 0.2, 0.2, 0.3)
OFTEN_BLURRED = (*RANGES[:-2], 0.5, 0.5)
NOTHING = (False, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
WIDTH = len(AUGMENTATION)
COLUMN = {name: i for i, name in enumerate(AUGMENTATION)}


def pixels_of(*shape: int) -> Array:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def drawn(*photos: int) -> Array:
    """Augmentation's parameters, as the reference draws them."""
    parameters = np.zeros((len(photos), WIDTH), np.float32)
    workspace = reference.Workspace()
    reference.draw_augmentation(parameters, np.array(photos, np.int32), EPOCH, 3, *OFTEN_BLURRED, workspace=workspace)
    return parameters


def _set(**values: float) -> Array:
    parameters = AUGMENTATION_NONE.copy()[None]
    for name, value in values.items():
        parameters[0, COLUMN[name]] = value
    return parameters


def _prepare(
    name: str, shape: tuple[int, int, int], margin: tuple[int, int], parameters: Array, normalise: Normalise
) -> Case:
    pixels = pixels_of(3, shape[0] + 2 * margin[0], shape[1] + 2 * margin[1], shape[2])
    rows = np.array([2, 0, 1, 1], np.int32)[: len(parameters)]
    arguments = Out((len(parameters), *shape)), pixels, rows, parameters, normalise
    return Case("prepare_photos", f"{normalise}, {name}", arguments, tolerance=1e-5)


def _usual() -> Iterator[Case]:
    rows, parameters = np.array([5, 0, 0, 3, 2, 1, 4, 4], np.int32), drawn(*range(8))
    assert len(np.unique(parameters[:, COLUMN["blur"]] > 0)) == 2
    for normalise in NORMALISATIONS:
        for shape, margin in [((12, 9, 1), (3, 2)), ((20, 24, 3), (5, 6)), ((4, 4, 1), (0, 0)), ((2, 3, 1), (1, 1))]:
            pixels = pixels_of(6, shape[0] + 2 * margin[0], shape[1] + 2 * margin[1], shape[2])
            arguments = Out((8, *shape)), pixels, rows, parameters, normalise
            name = f"{normalise}, eight of {times(*shape)}"
            # Local contrast divides by as little as 4 / 255, so that rounding is magnified; its numbers lie within -4
            # and 4.
            yield Case("prepare_photos", name, arguments, "usual", tolerance=3e-4, least_scale=1)


def _large() -> Case:
    generator = np.random.default_rng(0)
    parameters = generator.uniform(0, 0.3, (23, WIDTH)).astype(np.float32) + np.float32(0.7)
    photos = np.arange(23, dtype=np.int32)
    arguments = Out((23, 12, 12, 1)), pixels_of(23, 20, 20, 1), photos, parameters, "local_contrast"
    return Case("prepare_photos", "large", arguments, "large", tolerance=3e-4, least_scale=1)


def _words(name: str, count: int, seed: int, purpose: int, photo: int, size: Size = "tiny") -> Case:
    return Case("random_words", name, (Out((count,), np.uint32), seed, purpose, photo, EPOCH), size)


def _augmentation(name: str, photos: Array, seed: int, ranges: tuple[float, ...], size: Size = "tiny") -> Case:
    """Equal to the bit, whatever the backend."""
    arguments = Out((len(photos), WIDTH), np.float32), photos, EPOCH, seed, *ranges
    return Case("draw_augmentation", name, arguments, size, tolerance=0.0)


_BLURRED = _set(blur=0.9, mirror=1, angle=-20, shift_x=0.1)
# A box whose edges lie halfway between pixels, of 8 a side, and one that ends at the photo's border.
_BOX = _set(erase_y=2.5 / 8, erase_x=3.5 / 8, erase_height=1.5 / 8, erase_width=2.5 / 8)
_CORNER = _set(erase_y=0.6, erase_x=0.7, erase_height=0.4, erase_width=0.3)
_NONE = AUGMENTATION_NONE[None]
_DRAWN = drawn(0, 1, 2, 3)
assert set(_DRAWN[:, COLUMN["blur"]] > 0) == set(_DRAWN[:, COLUMN["erase_width"]] > 0) == {False, True}

CASES = [
    _words("one", 1, 0, 1, 0),
    _words("not a multiple of four", 17, 2**32 - 1, 2**32 - 1, 2**31 - 1),
    _words("more than one turn", 203, 5, 3, 12),
    *(
        _words(f"{count} of {(seed, purpose, photo)}", count, seed, purpose, photo, "usual")
        for count in (1, 4, 17)
        for seed, purpose, photo in [(0, 1, 0), (2**32 - 1, 2**32 - 1, 2**31 - 1), (5, 3, 12)]
        if (count, seed) not in [(1, 0), (17, 2**32 - 1)]  # above
    ),
    _augmentation("all", np.arange(31, dtype=np.int32), 3, OFTEN_BLURRED),
    _augmentation("nothing", np.array([2**31 - 1, 0], np.int32), 2**32 - 1, NOTHING),
    _augmentation("all of a hundred", np.arange(100, dtype=np.int32), 3, OFTEN_BLURRED),
    _augmentation("nothing of a hundred", np.arange(100, dtype=np.int32), 3, NOTHING),
    _augmentation("all of five hundred", np.arange(500, dtype=np.int32), 3, RANGES, "usual"),
    _augmentation("nothing of five hundred", np.arange(500, dtype=np.int32), 3, NOTHING, "usual"),
    _prepare("one pixel", (1, 1, 1), (0, 0), _NONE, "none"),
    _prepare("four photos", (12, 9, 1), (3, 2), _DRAWN, "none"),
    _prepare("colour, blurred", (6, 7, 3), (1, 1), _BLURRED, "none"),
    _prepare("turned by more than a right angle", (5, 7, 1), (1, 1), _set(angle=-140), "none"),
    _prepare("upside down", (5, 7, 1), (1, 1), _set(angle=200, zoom=1.2), "none"),
    _prepare("box", (8, 8, 3), (1, 0), _BOX, "none"),
    _prepare("box in the corner", (10, 10, 1), (0, 2), _CORNER, "none"),
    _prepare("one pixel", (1, 1, 1), (0, 0), _NONE, "standardise"),
    _prepare("four photos", (9, 13, 1), (3, 2), _DRAWN, "standardise"),
    _prepare("colour, blurred", (6, 7, 3), (1, 1), _BLURRED, "standardise"),
    _prepare("box", (8, 8, 3), (1, 0), _BOX, "standardise"),
    _prepare("one pixel", (1, 1, 1), (0, 0), _NONE, "local_contrast"),
    _prepare("four photos", (9, 13, 1), (3, 2), _DRAWN, "local_contrast"),
    _prepare("colour, wide", (8, 17, 3), (1, 1), _BOX, "local_contrast"),
    _prepare("large", (34, 19, 1), (1, 1), _CORNER, "local_contrast"),
    *_usual(),
    _large(),
]
