"""The house's layout: imports go one way, and the command line starts light."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import facecnn

PACKAGE = Path(facecnn.__file__).parent
SCRIPTS = PACKAGE.parent / "scripts"

# Each room may import from those that stand after it, but faces not from body, which stands beside it. Photos and runs
# are leaves that any other may import; reports tells of these two, and only jobs and cli make reports. The command line
# and the library stand side by side on the jobs.
ORDER = [
    "cli",
    "sklearn",
    "library",
    "jobs",
    "config",
    "export",
    "recognition",
    "learning",
    "faces",
    "body",
    "network",
    "kernels",
    "settings",
    "process_wide",
    "errors",
    "arrays",
]
LEAVES = {"photos", "runs", "parallel"}
BASE = {"settings", "process_wide", "errors", "arrays"}


def _allowed(room: str) -> set[str]:
    if room in LEAVES:
        return {room} | BASE
    if room == "reports":
        return {room} | LEAVES | BASE
    if room == "faces":
        return _allowed("body") - {"body"} | {room}
    if room == "cli":
        return _allowed("jobs") | {room}
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


def _functions(path: Path) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef))


def _arguments(function: ast.FunctionDef) -> int:
    """Their number, without that of the object."""
    found = function.args
    names = [argument.arg for argument in (*found.posonlyargs, *found.args, *found.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


LONG_KERNELS = {
    "facecnn/kernels/cpu/conv/winograd.py": {"_forward", "forward"},
    "facecnn/kernels/cpu/conv/winograd_gradient.py": {"_backward_weight", "backward"},
}
"""Their steps share so many arrays and sizes that a part would take more lines to call than it has."""


def test_functions_and_files_are_short() -> None:
    """A kernel's arguments are all its arrays and sizes: it may have many."""
    too_long = []
    for path in (file for folder in (PACKAGE, SCRIPTS) for file in folder.rglob("*.py")):
        name = path.relative_to(PACKAGE.parent).as_posix()
        if name != "facecnn/kernels/reference.py" and len(path.read_text(encoding="utf-8").splitlines()) > 500:
            too_long.append(name)
        for function in _functions(path):
            assert function.end_lineno is not None
            is_exempt = function.name in LONG_KERNELS.get(name, ())
            if function.end_lineno - function.lineno + 1 > 60 and not is_exempt:
                too_long.append(f"{name}: {function.name}")
            if _arguments(function) > 10 and not name.startswith("facecnn/kernels/"):
                too_long.append(f"{name}: the arguments of {function.name}")
    assert not too_long


def test_the_help_imports_nothing_heavy() -> None:
    code = "import sys, facecnn.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "typer" in loaded
    heavy = {"numpy", "numba", "PIL", "pydantic", "ruamel", "tqdm", "matplotlib", "safetensors", "rich", "jinja2"}
    heavy |= {"onnx", "optuna"}
    assert not heavy & set(loaded)


GUIDE = (PACKAGE.parent / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("example", "steps"),
    re.findall(r"^### an? \w+ \(example: `(\w+)`\)\n\n((?:.+\n)+)", GUIDE, re.MULTILINE),
    ids=lambda text: text if "\n" not in text else "",
)
def test_what_is_added_stands_where_the_guide_says(example: str, steps: str) -> None:
    """The guide's example is named in each of the files of its list, and in no other file of facecnn but the
    self-test's cases."""
    listed = {step.split("`")[1] for step in re.split(r"^\d\. ", steps, flags=re.MULTILINE)[1:]}
    named = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(rf"(?<![\w-]){example}(?!\w)", path.read_text(encoding="utf-8"), re.IGNORECASE)
    }
    assert named - {"facecnn/kernels/cases.py"} == listed


def test_the_guide_has_a_list_for_each_thing_to_add() -> None:
    things = ["activation", "optimizer", "layer", "case", "command", "plot"]
    assert re.findall(r"^### an? (\w+)", GUIDE, re.MULTILINE) == things


def test_every_file_that_the_guide_names_exists() -> None:
    files = set(re.findall(r"`([\w./]+\.(?:py|yaml)|[\w/]+/)`", GUIDE)) - {"unknown/"}
    assert len(files) > 30
    roots = (PACKAGE.parent, PACKAGE, PACKAGE / "kernels")
    assert [file for file in files if not any((root / file).exists() for root in roots)] == ["config.yaml"]
