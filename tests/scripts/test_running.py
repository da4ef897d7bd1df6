"""Every script runs as a file, from any folder."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from scripts.running import SCRIPTS

QUICK = ("linear_neuron.py", "experiments/linear_neuron.py", "studies/compare_optimizers.py")


def scripts() -> list[str]:
    paths = [*SCRIPTS.glob("*.py"), *(SCRIPTS / "machine").glob("*roofline.py")]
    paths += [path for folder in ("experiments", "studies") for path in (SCRIPTS / folder).glob("*.py")]
    helpers = {"album.py", "embedded_album.py", "face_finders.py", "threshold_fit.py"}
    return [path.relative_to(SCRIPTS).as_posix() for path in sorted(paths) if path.name not in helpers]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in scripts()]
)
def test_help_from_another_folder(name: str, tmp_path: Path) -> None:
    if name == "studies/hog_svm.py" and find_spec("skimage") is None:
        pytest.skip("needs scikit-image")
    done = subprocess.run(
        [sys.executable, SCRIPTS / name, "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"usage: {Path(name).name}" in done.stdout
    assert list(tmp_path.iterdir()) == []
