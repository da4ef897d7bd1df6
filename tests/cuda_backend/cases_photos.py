"""Random words, augmentation and the preparation of photos."""

from typing import Any

import numpy as np

from contract.harness import Out
from facecnn.kernels import reference
from facecnn.kernels.protocol import AUGMENTATION, AUGMENTATION_NONE, Normalise

EPOCH = np.array([7], np.int32)
RANGES = (True, 0.06, 0.1, 8.0, 0.5, 0.3, 0.2, 0.5, 0.5)
NOTHING = (False, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
COLUMN = {name: i for i, name in enumerate(AUGMENTATION)}


def _parameters(*photos: int) -> Any:
    drawn = np.zeros((len(photos), len(AUGMENTATION)), np.float32)
    reference.draw_augmentation(drawn, np.array(photos, np.int32), EPOCH, 3, *RANGES, workspace=reference.Workspace())
    return drawn


def _prepare(
    shape: tuple[int, int, int], margin: tuple[int, int], parameters: Any, normalise: Normalise
) -> tuple[Any, ...]:
    stored = (3, shape[0] + 2 * margin[0], shape[1] + 2 * margin[1], shape[2])
    pixels = np.random.default_rng(0).integers(0, 256, stored, dtype=np.uint8)
    rows = np.array([2, 0, 1, 1], np.int32)[: len(parameters)]
    return Out((len(parameters), *shape)), pixels, rows, parameters, normalise


def _set(**values: float) -> Any:
    parameters = AUGMENTATION_NONE.copy()[None]
    for name, value in values.items():
        parameters[0, COLUMN[name]] = value
    return parameters


BLURRED = _set(blur=0.9, mirror=1, angle=-20, shift_x=0.1)
# A box whose edges lie halfway between pixels, of 8 a side, and one that ends at the photo's border.
BOX = _set(erase_y=2.5 / 8, erase_x=3.5 / 8, erase_height=1.5 / 8, erase_width=2.5 / 8)
CORNER = _set(erase_y=0.6, erase_x=0.7, erase_height=0.4, erase_width=0.3)
DRAWN = _parameters(0, 1, 2, 3)
assert set(DRAWN[:, COLUMN["blur"]] > 0) == set(DRAWN[:, COLUMN["erase_width"]] > 0) == {False, True}

CASES: dict[str, tuple[Any, ...]] = {
    "random_words, one": (Out((1,), np.uint32), 0, 1, 0, EPOCH),
    "random_words, not a multiple of four": (Out((17,), np.uint32), 2**32 - 1, 2**32 - 1, 2**31 - 1, EPOCH),
    "random_words, more than one turn": (Out((203,), np.uint32), 5, 3, 12, EPOCH),
    "draw_augmentation, all": (
        Out((31, len(AUGMENTATION)), np.float32), np.arange(31, dtype=np.int32), EPOCH, 3, *RANGES,
    ),
    "draw_augmentation, nothing": (
        Out((2, len(AUGMENTATION)), np.float32), np.array([2**31 - 1, 0], np.int32), EPOCH, 2**32 - 1, *NOTHING,
    ),
    "prepare_photos, none, one pixel": _prepare((1, 1, 1), (0, 0), AUGMENTATION_NONE[None], "none"),
    "prepare_photos, none, four photos": _prepare((12, 9, 1), (3, 2), DRAWN, "none"),
    "prepare_photos, none, colour, blurred": _prepare((6, 7, 3), (1, 1), BLURRED, "none"),
    "prepare_photos, none, turned by more than a right angle": _prepare((5, 7, 1), (1, 1), _set(angle=-140), "none"),
    "prepare_photos, none, upside down": _prepare((5, 7, 1), (1, 1), _set(angle=200, zoom=1.2), "none"),
    "prepare_photos, none, box": _prepare((8, 8, 3), (1, 0), BOX, "none"),
    "prepare_photos, none, box in the corner": _prepare((10, 10, 1), (0, 2), CORNER, "none"),
    "prepare_photos, standardise, one pixel": _prepare((1, 1, 1), (0, 0), AUGMENTATION_NONE[None], "standardise"),
    "prepare_photos, standardise, four photos": _prepare((9, 13, 1), (3, 2), DRAWN, "standardise"),
    "prepare_photos, standardise, colour, blurred": _prepare((6, 7, 3), (1, 1), BLURRED, "standardise"),
    "prepare_photos, standardise, box": _prepare((8, 8, 3), (1, 0), BOX, "standardise"),
    "prepare_photos, local_contrast, one pixel": _prepare((1, 1, 1), (0, 0), AUGMENTATION_NONE[None], "local_contrast"),
    "prepare_photos, local_contrast, four photos": _prepare((9, 13, 1), (3, 2), DRAWN, "local_contrast"),
    "prepare_photos, local_contrast, colour, wide": _prepare((8, 17, 3), (1, 1), BOX, "local_contrast"),
    "prepare_photos, local_contrast, large": _prepare((34, 19, 1), (1, 1), CORNER, "local_contrast"),
}  # fmt: skip
