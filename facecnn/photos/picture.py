"""Photos in memory, which take the place of files."""

import hashlib
from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True, eq=False)
class Picture:
    """A photo in memory. Nothing of it is kept in the caches on disk."""

    image: Image.Image
    """Of any mode that ``decode`` takes. It isn't changed."""
    name: str
    """What messages call it."""


def content_hash(image: Image.Image) -> str:
    """SHA-256, hexadecimal, of a decoded picture."""
    digest = hashlib.sha256(f"{image.mode} {image.width}x{image.height}\n".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()
