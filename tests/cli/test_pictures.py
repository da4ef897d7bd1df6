"""What can go wrong with the pictures that ``facecnn predict`` makes of photos, by ``--draw`` or ``--explain``."""

import shutil
from pathlib import Path

import pytest

from facecnn.jobs.pictures import PictureNames

from .running import Facecnn, Trained, all_names

KINDS = pytest.mark.parametrize(
    ("kind", "suffix", "done_with"), [("draw", ".drawn.jpg", "Drawn"), ("explain", ".explained.png", "Explained")]
)


@KINDS
def test_a_folder_that_cannot_be_made(
    kind: str, suffix: str, done_with: str, trained: Trained, tmp_path: Path, facecnn: Facecnn
) -> None:
    (tmp_path / "file").write_text("text")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        done = facecnn("predict", trained.photos, "-m", trained.path, f"--{kind}", folder)
        assert (done.exit_code, done.stdout) == (6, "")
        assert str(folder) in done.stderr
    assert (tmp_path / "file").read_text() == "text"


@KINDS
def test_a_photo_that_is_gone_by_then(
    kind: str,
    suffix: str,
    done_with: str,
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    facecnn: Facecnn,
) -> None:
    """Its answer stands; there are pictures of the others."""
    for name in ("a.png", "b.png"):
        shutil.copy(trained.photos / "ann" / "00.png", tmp_path / name)

    def names_after_removal(folder: Path, suffix: str) -> PictureNames:
        (tmp_path / "a.png").unlink()
        return PictureNames(folder, suffix)

    monkeypatch.setattr(f"facecnn.jobs.{kind}.PictureNames", names_after_removal)
    arguments = ["predict", tmp_path / "a.png", tmp_path / "b.png", "-m", trained.path]
    done = facecnn(*arguments, f"--{kind}", tmp_path / "pictures")
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 2)
    assert all_names(tmp_path / "pictures") == {f"b{suffix}"}
    assert f"{done_with}: 1 of 2 photos" in done.stderr
    assert f"{tmp_path / 'a.png'}: no such file" in done.stderr
