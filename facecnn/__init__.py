"""facecnn: train a small convolutional network to tell people's faces apart.

``facecnn.train`` and ``facecnn.load`` make a ``Model``, which says who is in a photo; ``facecnn.find_faces`` only finds
faces. docs/LIBRARY.md has examples. Whatever goes wrong is a ``FacecnnError``. Nothing heavy is imported before it is
used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from facecnn.errors import (
    CheckpointError,
    DeviceError,
    DivergedError,
    FacecnnError,
    OutputError,
    PhotoError,
    UsageError,
)

if TYPE_CHECKING:
    from facecnn.library.answers import Evaluation, Face, FoundFace
    from facecnn.library.finding import find_faces
    from facecnn.library.model import Model, load
    from facecnn.library.training import train

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "DeviceError",
    "DivergedError",
    "Evaluation",
    "Face",
    "FacecnnError",
    "FoundFace",
    "Model",
    "OutputError",
    "PhotoError",
    "UsageError",
    "__version__",
    "find_faces",
    "load",
    "train",
]

_HOMES = {
    "Evaluation": "answers",
    "Face": "answers",
    "FoundFace": "answers",
    "Model": "model",
    "find_faces": "finding",
    "load": "model",
    "train": "training",
}
"""The module of ``facecnn.library`` that each name is imported from when it is first used."""

if not TYPE_CHECKING:  # to a type checker, every name would exist

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'facecnn' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"facecnn.library.{_HOMES[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
