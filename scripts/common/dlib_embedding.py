"""dlib's own way from photos to embeddings: detector, landmarks, network."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Box = tuple[float, float, float, float]


def embeddings(files: Sequence[str | Path], boxes: Sequence[Box] | None = None) -> npt.NDArray[np.float32]:
    """Embed the face nearest the middle of each photo, which dlib finds, if need be at a lower threshold.

    Args:
        files: the photos.
        boxes: of a face in each (left, top, right, bottom), to be taken where dlib finds none; by default the whole
            photo is taken then.

    Returns:
        (n, 128)

    Raises:
        ModuleNotFoundError: dlib's models aren't installed.
    """
    import dlib

    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("dlib's models aren't installed: pip install 'facecnn[pretrained]'")
    models = Path(spec.origin).parent / "models"
    detector = dlib.get_frontal_face_detector()
    predictor = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
    network = dlib.face_recognition_model_v1(str(models / "dlib_face_recognition_resnet_model_v1.dat"))
    found = []
    for number, file in enumerate(files):
        with Image.open(file) as image:
            picture = np.array(image.convert("RGB"))
        height, width, _ = picture.shape
        box = _box(dlib, detector, picture, (0, 0, width, height) if boxes is None else boxes[number])
        found.append(np.array(network.compute_face_descriptor(picture, predictor(picture, box)), np.float32))
    return np.array(found)


def _box(dlib: Any, detector: Any, picture: npt.NDArray[np.uint8], otherwise: Box) -> Any:
    height, width, _ = picture.shape
    boxes = detector(picture, 1) or detector.run(picture, 1, -1.0)[0]
    if not boxes:
        return dlib.rectangle(*map(round, otherwise))
    return min(boxes, key=lambda box: np.hypot(box.center().x - width / 2, box.center().y - height / 2))
