"""Write a trained model in a format that other programs read."""

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import Any, Literal

from facecnn.body.embedder import CHIP_SETTINGS
from facecnn.errors import OutputError, UsageError, shown
from facecnn.export.model import ExportedModel, npz_bytes
from facecnn.jobs.console import Console
from facecnn.jobs.faces import finds_faces
from facecnn.jobs.models import UNFINISHED, ModelFile, read_model, view_options
from facecnn.learning.calibration import Calibration
from facecnn.network.layers import with_outputs
from facecnn.network.stages import plan
from facecnn.runs.atomic import check_output, write_atomically

To = Literal["onnx", "npz"]

_INSTALL = "pip install 'facecnn[onnx]'"


def export(path: Path, to: To, file: Path | None, overwrite: bool, console: Console) -> dict[str, Any]:
    """Write a model to a file.

    ``file``: to write; None: beside the checkpoint ``path``, with its name and the format's suffix.

    Returns:
        The ``export`` JSON.

    Raises:
        UsageError: the extra for the format isn't installed.
        CheckpointError: the model can't be read.
        OutputError: the file exists, or can't be written.
    """
    file = path.with_suffix(f".{to}") if file is None else file
    if to == "onnx" and importlib.util.find_spec("onnx") is None:
        raise UsageError(f"--to onnx: ONNX files can't be written without the package onnx: {_INSTALL}")
    check_output(file)
    if not overwrite and os.path.lexists(file):
        raise OutputError(f"{shown(file)}: already exists: give --overwrite, or another --out")
    source = read_model(path)
    if source.calibration is None:
        console.warning(UNFINISHED)
    model = exported(source)
    contents, described = _encode(model, to)
    write_atomically(file, contents)
    return {
        "model": str(path),
        "to": to,
        "file": str(file),
        "bytes": len(contents),
        "sha256": hashlib.sha256(contents).hexdigest(),
        "classes": list(model.classes),
        **described,
    }


def _encode(model: ExportedModel, to: To) -> tuple[bytes, dict[str, Any]]:
    """The file's contents, and ``input`` and ``outputs`` of the JSON."""
    if to == "onnx":
        from facecnn.export.onnx_file import onnx_bytes, signature

        return onnx_bytes(model), signature(model)
    return npz_bytes(model), {
        "input": {"name": None, "dtype": "uint8", "shape": ["faces", *model.input_shape]},
        "outputs": [{"name": None, "dtype": "float32", "shape": ["faces", len(model.classes)]}],
    }


def exported(source: ModelFile) -> ExportedModel:
    """What is exported of a checkpoint. ``Recogniser`` answers with the same views and normalisation."""
    settings, checkpoint = source.settings, source.checkpoint
    views = {"mirror": True, "shift": 0.0} if source.by_embeddings else view_options(settings)
    return ExportedModel(
        stages=plan(with_outputs(settings.network, len(checkpoint.classes)), settings.photos.shape),
        arrays={
            name.removeprefix("model."): array for name, array in checkpoint.arrays.items() if name.startswith("model.")
        },
        classes=tuple(checkpoint.classes),
        calibration=source.calibration or Calibration(),
        photos=settings.photos,
        finds_faces=finds_faces(checkpoint.arrays),
        normalise=CHIP_SETTINGS.normalise if source.by_embeddings else settings.photos.normalise,
        by_embeddings=source.by_embeddings,
        sha256=hashlib.sha256(source.path.read_bytes()).hexdigest(),
        **views,
    )
