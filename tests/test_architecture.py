"""The house's layout: imports go one way, and the command line starts light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import facecnn

PACKAGE = Path(facecnn.__file__).parent

# Each room may import from those that stand after it. Photos and runs are leaves that any other may import; reports
# tells of these two, and only jobs and cli make reports.
ORDER = ["cli", "jobs", "config", "recognition", "learning", "faces", "network", "kernels", "settings", "errors"]
LEAVES = {"photos", "runs"}
BASE = {"settings", "errors"}


def _allowed(room: str) -> set[str]:
    if room in LEAVES:
        return {room} | BASE
    if room == "reports":
        return {room} | LEAVES | BASE
    return LEAVES | set(ORDER[ORDER.index(room) :]) | ({"reports"} if room in ("cli", "jobs") else set())


def _room(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def _imported(path: Path) -> set[str]:
    """First names below facecnn that a module imports, wherever in the file."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "facecnn":
            rooms |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("facecnn."):
            rooms.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("facecnn.")}
    return rooms - {"__version__"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    room = _room(path)
    if room in ("__init__", "__main__"):
        return
    assert _imported(path) <= _allowed(room)


def test_the_help_imports_nothing_heavy() -> None:
    code = "import sys, facecnn.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "typer" in loaded
    heavy = {"numpy", "numba", "PIL", "pydantic", "ruamel", "tqdm", "matplotlib", "safetensors", "rich", "jinja2"}
    assert not heavy & set(loaded)
