"""Pictures made up for tests."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int, width: int = 60, height: int = 80) -> Image.Image:
    """A smooth coloured picture, another one for each seed, that no turn or mirror leaves as it is."""
    coarse = np.random.default_rng(seed).integers(0, 256, (10, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def write_people(folder: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """A folder of photos per person; every photo is another picture."""
    for person, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image = picture(seed + 1000 * person + index)
            (folder / name / f"{index:03d}.jpg").write_bytes(encoded(image, "JPEG", quality=90))
    return folder
