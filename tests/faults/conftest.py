"""Faults that users meet: one test a row of the fault table, and a table of how each row ends.

A test carries ``@pytest.mark.fault("I01")``, the row's id. ``pytest tests/faults -m fault --fault-table`` runs all of
them and prints the table; the rows that also carry the mark ``long`` are left out by ``.ci/run``. A row that can't be
tried on this machine is skipped with the reason, which the table shows.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cli.running import Outcome

TABLE = Path(__file__).parents[3] / "shared" / "faults" / "FAULTS.tsv"

COMMAND = [sys.executable, "-m", "facecnn"]

WITHOUT_ROOT = [
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
]
"""Before a command, so that file modes count for root, too; nothing for anybody else."""
if hasattr(os, "geteuid") and os.geteuid() != 0:
    WITHOUT_ROOT = []


# The table


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", action="store_true", help="print the fault table and how each of its rows ended")


_ends: dict[str, list[tuple[str, str]]] = defaultdict(list)  # (outcome, reason) of each test of a row


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        mark = item.get_closest_marker("fault")
        if mark is not None:  # a property, since it comes with the report from another process, too
            item.user_properties.append(("fault", str(mark.args[0])))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    identity = dict(report.user_properties).get("fault")
    if not isinstance(identity, str) or (report.when != "call" and report.passed):
        return
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _ends[identity].append(("not here", reason.removeprefix("Skipped: ")))
    elif report.failed:
        _ends[identity].append(("FAILED", str(getattr(report.longrepr, "reprcrash", None) or "")[:200]))
    else:
        _ends[identity].append(("as expected", ""))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not config.getoption("--fault-table"):
        return
    rows = _table_rows()
    write = terminalreporter.write_line
    write("")
    counts: dict[str, int] = defaultdict(int)
    for identity, fault in rows.items():
        end, reason = _end(identity)
        counts[end] += 1
        write(f"{identity}  {end:<12} {fault}" + (f": {reason}" if reason else ""))
    write(f"{len(rows)} rows: " + ", ".join(f"{number} {end}" for end, number in counts.items()))


def _end(identity: str) -> tuple[str, str]:
    """How a row ended, the worst of its tests first."""
    ends = dict(_ends.get(identity, []))
    for end in ("FAILED", "not here", "as expected"):
        if end in ends and not (end == "not here" and "as expected" in ends):
            return end, ends[end]
    return "no test", ""


def _table_rows() -> dict[str, str]:
    """The fault of each row by its id; of rows that are only here, the id alone."""
    rows: dict[str, str] = {}
    if TABLE.is_file():
        with TABLE.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                rows[row["id"]] = row["fault"]
    return rows | {identity: "" for identity in sorted(_ends) if identity not in rows}


# Ways to call the command line


def assert_refusal(done: Outcome, *said: str, exit_code: int, longest: int) -> None:
    """A refusal with these texts in it, in one block of fewer characters than ``longest``."""
    assert done.exit_code == exit_code, done.stderr
    done.one_block()
    assert len(done.stderr) < longest
    for text in said:
        assert text in done.stderr


Run = Callable[..., Outcome]


@pytest.fixture(scope="session")
def run() -> Run:
    """Runs ``facecnn`` in a process of its own; ``shell`` limits come before it: ``run("predict", x, before="ulimit -v
    4000000")``. ``prefix``: words before the command. ``environment``: variables that are added."""

    def call(
        *arguments: str | Path | bytes,
        before: str = "",
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        timeout: float = 120,
        **options: Any,
    ) -> Outcome:
        words: list[str | bytes] = [*prefix, *COMMAND]
        words += [one if isinstance(one, bytes) else os.fspath(one) for one in arguments]
        if before:
            words = ["bash", "-c", f'{before}; exec "$@"', "bash", *words]
        own: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": timeout}
        own["env"] = os.environ | dict(environment or {})
        done = subprocess.run(words, **own | options)
        stdout, stderr = ((out or b"").decode("utf-8", "surrogateescape") for out in (done.stdout, done.stderr))
        code = done.returncode if done.returncode >= 0 else 128 - done.returncode
        return Outcome(code, stdout, stderr)

    return call


# Material


@pytest.fixture(scope="session")
def images(corpus: Path) -> Path:
    """The odd and broken pictures: ``made/`` and ``real/``."""
    return corpus


def _make(images: Path, *arguments: str | Path) -> None:
    command = [sys.executable, str(images / "make_images.py"), *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


def make_people(images: Path, folder: Path, people: int, photos: int) -> Path:
    """A clean data set in a folder that isn't there yet: ``person_0000`` and so on, with photos of drawn faces."""
    _make(images, "--people", folder, str(people), str(photos))
    return folder


@pytest.fixture(scope="session")
def made_people(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean data set of 3 people with 12 photos each. Not to be written to: copy it (``data``)."""
    return make_people(images, tmp_path_factory.mktemp("made-people") / "people", 3, 12)


@pytest.fixture
def data(made_people: Path, tmp_path: Path) -> Path:
    """A clean data set of 3 people with 12 photos each, to be damaged."""
    return Path(shutil.copytree(made_people, tmp_path / "DATA"))


@pytest.fixture(scope="session")
def special(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a repository can't hold: pipes, links, odd names, a sparse giant. Not to be written to."""
    if sys.platform != "linux":
        pytest.skip("made for Linux")
    folder = tmp_path_factory.mktemp("special") / "S"
    _make(images, "--special", folder)
    return folder


@pytest.fixture(scope="session")
def model(made_people: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on ``made_people``. Not to be written to: copy it."""
    out = tmp_path_factory.mktemp("fault-runs")
    done = run("train", made_people, *QUICK, "--out", out, "--name", "run", timeout=300)
    assert done.exit_code == 0, done.stderr
    return out / "run"


QUICK = ("-c", "smoke", "--set", "photos.faces=off", "--epochs", "2", "--device", "cpu")
"""Options of a training that takes a second."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a tmpfs of a given size (``1m``, or other options as ``nr_inodes=20``) and takes it away afterwards."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", options if "=" in options else f"size={options}", "none", str(folder)]
        if subprocess.run(words, capture_output=True).returncode != 0:
            pytest.skip("mounting a file system needs root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True)
