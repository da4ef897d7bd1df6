"""How sharp pictures of faces are."""

import numpy as np
from PIL import Image, ImageFilter

from facecnn.photos.preparation import sharpness

RANDOM = np.random.default_rng(0)
SHARP = Image.fromarray(RANDOM.integers(0, 256, (48, 48), dtype=np.uint8))


def stacked(*pictures: Image.Image) -> np.ndarray:
    return np.stack([np.asarray(picture)[..., None] for picture in pictures])


def test_the_more_blurred_the_less_sharp() -> None:
    blurred = [SHARP.filter(ImageFilter.GaussianBlur(radius)) for radius in (0.5, 1, 2, 4)]
    values = sharpness(stacked(SHARP, *blurred))
    assert (np.diff(values) < 0).all()


def test_contrast_makes_no_difference() -> None:
    """Of noise the Laplacian's variance is 4² + 4 · 1² times its own."""
    faint = Image.fromarray((100 + np.asarray(SHARP) // 8).astype(np.uint8))
    np.testing.assert_allclose(sharpness(stacked(SHARP, faint)), [20, 20], rtol=0.1)


def test_one_grey_has_none() -> None:
    assert sharpness(np.full((1, 48, 48, 3), 77, np.uint8)).tolist() == [0]
