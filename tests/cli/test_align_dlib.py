"""Commands on faces that are aligned as dlib does."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facecnn.photos.sample import write_sample

from .running import Facecnn

ALIGN = ("--set", "photos.faces=auto", "--set", "photos.align=dlib", "--set", "photos.size=64")
ALIGN_RGB = (*ALIGN, "--set", "photos.colour=rgb")


@pytest.mark.parametrize("augment", ["null", "{mirror: true, shift: 0.05}"])
def test_what_cuts_crops_works_with_them(augment: str, tmp_path: Path, face_finding: None, facecnn: Facecnn) -> None:
    """Without a margin, where nothing is augmented, and with one."""
    people, run = write_sample(tmp_path / "people").folder, tmp_path / "runs" / "run"
    chosen = (*ALIGN_RGB, "--set", f"photos.augment={augment}")
    options = ("-c", "smoke", "--epochs", "2", "--out", run.parent, "--name", run.name)
    done = facecnn("train", people, *options, *chosen)
    assert done.exit_code == 0, done.stderr
    photo = min((people / "s1").iterdir())
    drawn, explained = tmp_path / "drawn", tmp_path / "explained"
    done = facecnn("predict", photo, "-m", run, "--draw", drawn, "--explain", explained)
    assert done.exit_code == 0, done.stderr
    assert [len([*folder.iterdir()]) for folder in (drawn, explained)] == [1, 1]
    assert facecnn("eval", people, "-m", run, "--hide-face").exit_code == 0
    assert facecnn("report", run).exit_code == 0
    crops = tmp_path / "crops"
    done = facecnn("data", "crop", people, crops, *chosen)
    assert done.exit_code == 0, done.stderr
    with Image.open(crops / "s1" / photo.with_suffix(".png").name) as crop:
        assert np.asarray(crop).shape == (64, 64, 3)


def test_weights_of_the_other_alignment_are_warned_of(tmp_path: Path, face_finding: None, facecnn: Facecnn) -> None:
    people = write_sample(tmp_path / "people").folder
    options = ("-c", "smoke", "--epochs", "1", "--out", tmp_path)
    done = facecnn("train", people, *options, "--name", "one", *ALIGN)
    assert done.exit_code == 0, done.stderr
    start = ("--init-from", tmp_path / "one")
    done = facecnn("train", people, *options, "--name", "two", *start, *ALIGN, "--set", "photos.eye_distance=0.5")
    assert done.exit_code == 0, done.stderr
    assert "prepared in another way" not in done.stderr
    done = facecnn("train", people, *options, "--name", "three", *start, *ALIGN, "--set", "photos.align=arcface")
    assert done.exit_code == 0, done.stderr
    assert "prepared in another way (photos.align dlib instead of arcface)" in done.stderr
