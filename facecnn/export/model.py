"""What is exported of a model, its description in words and numbers, which goes with every format, and the file of
NumPy arrays."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from facecnn import __version__
from facecnn.arrays import Array
from facecnn.kernels.protocol import Normalise
from facecnn.learning.calibration import Calibration
from facecnn.network.layers import Pool, Residual, Stage
from facecnn.photos.chip import WEIGHTS
from facecnn.photos.folder import UNKNOWN
from facecnn.photos.preparation import PhotoSettings, landmark_template

FORMAT_VERSION = 1
"""Of the description: raise it whenever a program that reads it has to know of a change."""


@dataclass(frozen=True)
class ExportedModel:
    """A model, from the crop of a face to the answer."""

    stages: tuple[Stage, ...]
    arrays: Mapping[str, Array]
    """Weights and statistics by name (``conv1.weight``)."""
    classes: tuple[str, ...]
    """Names of the outputs; ``unknown`` last if it is one of them."""
    calibration: Calibration
    photos: PhotoSettings
    finds_faces: bool
    """Whether crops are aligned on found faces; else they are the middle of the photo."""
    normalise: Normalise
    mirror: bool
    """Whether answers are averaged over a photo and its mirror image."""
    shift: float
    """Whether they are also averaged over shifts by this fraction of the side; 0: they aren't."""
    by_embeddings: bool
    """Whether what is averaged over these views is not the answer but the input of the last two layers."""
    sha256: str
    """Of the model's file."""

    @property
    def people(self) -> tuple[str, ...]:
        return tuple(name for name in self.classes if name != UNKNOWN)

    @property
    def margin(self) -> tuple[int, int]:
        """Rows and columns that the answer needs on each edge of the window: none if nothing is shifted."""
        return self.photos.margin if self.shift else (0, 0)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of a crop with its margin: rows, columns, channels."""
        rows, columns = self.margin
        return self.photos.height + 2 * rows, self.photos.width + 2 * columns, self.photos.channels


def describe(model: ExportedModel) -> dict[str, Any]:
    """What a program needs to know to use an exported model, as strict JSON. docs/EXPORT.md explains each entry."""
    calibration = model.calibration
    return {
        "format_version": FORMAT_VERSION,
        "facecnn_version": __version__,
        "model_sha256": model.sha256,
        "classes": list(model.classes),
        "people": list(model.people),
        "preparation": {
            "height": model.photos.height,
            "width": model.photos.width,
            "margin": list(model.margin),
            "colour": model.photos.colour,
            "normalise": model.normalise,
            "crop": _crop(model),
        },
        "views": {
            "mirror": model.mirror,
            "shift": model.shift,
            "averaged": "embeddings" if model.by_embeddings else "log_probabilities",
        },
        "calibration": {
            "temperature": calibration.temperature,
            "stranger_bias": calibration.stranger_bias,
            "threshold": calibration.threshold,
            "highest_confidence": calibration.highest_confidence,
        },
    }


def _crop(model: ExportedModel) -> dict[str, Any]:
    """How a photo is cropped."""
    if not model.finds_faces:
        return {"kind": "centre", "share": model.photos.crop}
    rows, columns = (needed - stored for needed, stored in zip(model.margin, model.photos.margin, strict=True))
    points = np.add(landmark_template(model.photos), (columns, rows)).tolist()
    weights = WEIGHTS.tolist() if model.photos.align == "dlib" else [1.0] * len(points)
    return {"kind": model.photos.align, "landmarks": points, "weights": weights}


DESCRIPTION = "description"
"""Name of the array (n,) uint8 that holds the description, JSON in UTF-8."""


def npz_bytes(model: ExportedModel) -> bytes:
    """The file's contents; equal models give equal bytes. Nothing in it is pickled."""
    text = json.dumps(describe(model) | {"layers": layers(model.stages)}, allow_nan=False)
    arrays = dict(sorted((name, np.asarray(array)) for name, array in model.arrays.items()))
    stream = io.BytesIO()
    np.savez(stream, **{DESCRIPTION: np.frombuffer(text.encode(), np.uint8)}, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def layers(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """The layers as JSON: keyword, name (``conv1``), shapes of input and output, and their settings."""
    return [_layer(stage) for stage in stages]


def _layer(stage: Stage) -> dict[str, Any]:
    settings = {} if isinstance(stage.layer, Residual) else asdict(stage.layer)  # type: ignore[call-overload]
    if isinstance(stage.layer, Residual):
        settings = {"activation": stage.layer.activation, "slope": stage.layer.slope, "layers": layers(stage.inner)}
    elif isinstance(stage.layer, Pool):
        settings["size"], settings["stride"] = stage.layer.window(stage.shape)
    head = {"layer": stage.layer.keyword, "name": stage.name, "input": stage.shape, "output": stage.out_shape}
    return head | {"settings": settings}
