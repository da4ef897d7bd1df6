"""``import facecnn`` is light, and offers what it says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import facecnn


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = "import sys, facecnn; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numpy", "numba", "PIL", "pydantic", "matplotlib", "ruamel", "safetensors", "logging", "typer", "sklearn"}
    assert not heavy & set(done.stdout.split())
    assert "facecnn.errors" in done.stdout.split()


def test_a_single_photo_is_answered_without_numba_and_matplotlib(runs: Path, people: Path) -> None:
    code = (
        "import sys, facecnn; "
        f"facecnn.load({str(runs / 'two')!r}).predict({str(people / 'ann' / '00.png')!r}); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numba", "matplotlib", "ruamel.yaml", "jinja2", "typer"} & set(done.stdout.split())
    assert "PIL.Image" in done.stdout.split()


def test_all_names_are_there_and_documented() -> None:
    assert set(facecnn.__all__) <= set(dir(facecnn))
    for name in facecnn.__all__:
        assert name == "__version__" or getattr(facecnn, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'facecnn' has no attribute 'lode'"):
        facecnn.lode  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    """Those that are imported for them alone are those that are imported when used, from the same modules."""
    source = Path(facecnn.__file__).read_text(encoding="utf-8")
    (block,) = (
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    )
    imported = {
        alias.name: node.module.removeprefix("facecnn.library.")
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    assert imported == facecnn._HOMES


@pytest.mark.slow
def test_a_users_program_passes_mypy(tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(
        "import numpy as np\n"
        "import facecnn\n"
        "model: facecnn.Model = facecnn.train('people', 'smoke', train={'epochs': 3}, seed=1)\n"
        "faces: list[facecnn.Face] = model.predict('photo.jpg')\n"
        "photos = [np.zeros((9, 9), np.uint8)]\n"
        "several: list[list[facecnn.Face]] = model.predict(photos, threshold='off')\n"
        "names: list[str] = [face.name for face in faces]\n"
        "accuracy: float | None = model.evaluate('people').accuracy\n"
        "found: list[facecnn.FoundFace] = facecnn.find_faces('photo.jpg')\n",
        encoding="utf-8",
    )
    (tmp_path / "wrong.py").write_text(
        "import facecnn\n"
        "facecnn.load('run').predict('photo.jpg', threshold='none')\n"
        "facecnn.lode('run')\n"
        "number: int = facecnn.load('run').predict('photo.jpg')\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    right = subprocess.run([*command, "right.py"], capture_output=True, text=True, cwd=tmp_path)
    assert right.returncode == 0, right.stdout
    wrong = subprocess.run([*command, "wrong.py"], capture_output=True, text=True, cwd=tmp_path)
    assert [line.split(":")[1] for line in wrong.stdout.splitlines() if ": error:" in line] == ["2", "3", "4"]
