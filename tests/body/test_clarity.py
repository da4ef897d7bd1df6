"""Which faces show enough."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from facecnn.body.clarity import crop_sharpness, why_unclear
from facecnn.photos.face import Face


def face(left: float, top: float, side: float) -> Face:
    middle = (left + side / 2, top + side / 2)
    return Face((left, top, left + side, top + side), (middle,) * 5, 0.99)


@pytest.mark.parametrize(
    ("found", "sharp", "reason"),
    [
        (face(50, 50, 60), 0.4, None),
        (face(50, 50, 31), 0.4, None),
        (face(50, 50, 29), 0.4, "too small: 29 pixels"),
        (face(50, 50, 60), 0.05, "blurred"),
        (face(-20, 50, 60), 0.4, "cut off"),
        (face(-10, 50, 60), 0.4, None),
        (face(100, 170, 60), 0.4, "cut off"),
        (face(180, 50, 60), 0.4, "cut off"),
    ],
)
def test_why_a_face_is_unclear(found: Face, sharp: float, reason: str | None) -> None:
    why = why_unclear(found, 200, 200, sharp)
    assert why is None if reason is None else (why or "").startswith(reason)


def test_a_blurred_crop_is_less_sharp() -> None:
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (50, 50, 3), np.uint8)).resize(
        (150, 150), Image.Resampling.BICUBIC
    )
    crops = np.stack([np.asarray(coarse.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 3, 9)])
    sharp = crop_sharpness(crops, np.array([2, 0, 1, 0]))
    assert sharp[1] == sharp[3] > sharp[2] > sharp[0]
    assert sharp[0] < 0.1 < sharp[1]


def test_background_does_not_count() -> None:
    """Only the edges of the crop differ."""
    random = np.random.default_rng(0)
    plain = np.full((150, 150, 3), 100, np.uint8)
    plain[40:110, 40:110] += random.integers(0, 9, (70, 70, 1), np.uint8)
    busy = plain.copy()
    for edge in (np.s_[:12], np.s_[132:], np.s_[:, :15], np.s_[:, 135:]):
        busy[edge] = random.integers(0, 256, busy[edge].shape, np.uint8)
    assert np.ptp(crop_sharpness(np.stack([plain, busy]), np.arange(2))) == 0
