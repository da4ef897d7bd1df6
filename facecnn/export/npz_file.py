"""A model as NumPy arrays: its weights by name, and its description."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from facecnn.export.model import ExportedModel, describe
from facecnn.network.layers import Pool, Residual, Stage

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
