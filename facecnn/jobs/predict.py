"""Who is it? Answers for photos whose people are not known."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from facecnn.errors import shown
from facecnn.jobs.console import Console
from facecnn.jobs.models import UNFINISHED, open_model
from facecnn.kernels import open_device
from facecnn.photos.dataset import load_files


def predict(
    model_path: Path,
    photos: Iterable[Path],
    threshold: float | str,
    console: Console,
    device_name: str = "auto",
    threads: int | None = None,
) -> list[dict[str, Any]]:
    """An answer for each photo, in the order given, a folder standing for the photos in it (the ``predict`` JSON).

    ``threshold``: "auto", "off", or the unknown-score beyond which a face is a stranger's. A photo without an answer
    has ``label`` None and an ``error``. Raises CheckpointError, DeviceError.
    """
    device = open_device(device_name, threads)
    console.info(f"Model: {shown(model_path)}")
    model = open_model(model_path, device.kernels)
    if not model.calibrated:
        console.info(UNFINISHED)
    limit = model.recogniser.threshold(threshold)
    if limit is None and threshold == "auto":
        console.info("This model has no threshold for strangers: everybody is named as one of its people.")
    with console.counting("Reading photos") as progress:
        loaded = load_files(photos, model.settings.photos, progress)
    usable = np.flatnonzero(loaded.row >= 0)
    answers = model.recogniser.answers(loaded.pixels, loaded.row[usable], limit)
    described = dict(zip(usable.tolist(), model.recogniser.describe(answers), strict=True))
    results: list[dict[str, Any]] = []
    for number, path in enumerate(loaded.paths):
        answer = described.get(number)
        if answer is None:
            results.append(
                {
                    "path": str(path),
                    "label": None,
                    "confidence": None,
                    "probabilities": None,
                    "unknown_score": None,
                    "box": None,
                    "faces": [],
                    "error": loaded.reasons[number],
                }
            )
            continue
        width, height = loaded.sizes[number].tolist()
        face = {
            "box": list(model.settings.photos.window(width, height)),
            "landmarks": None,
            "label": answer.label,
            "confidence": answer.confidence,
            "probabilities": answer.probabilities,
            "unknown_score": answer.unknown_score,
        }
        results.append(
            {
                "path": str(path),
                "label": answer.label,
                "confidence": answer.confidence,
                "probabilities": answer.probabilities,
                "unknown_score": answer.unknown_score,
                "box": face["box"],
                "faces": [face],
                "error": None,
            }
        )
    return results
