"""Would the tests notice? Bugs are put into a copy of facecnn, one at a time, and the tests that must notice are run.

``mutants.toml`` beside this file lists the bugs: a name, a file, the text to replace in it (which occurs there once),
the new text, and the test files of which one must fail. They are run like README's test command, without marked tests,
to the first failure. A bug that none of them notices survives; where that can't be helped, ``survives`` says why.

The results are kept in ``--results`` (docs/MUTANTS.md), a table with the commit: a later run leaves out the bugs that
are in it, unless ``--again`` or names are given. Before anything else each test file is run in a copy without a bug,
since tests that fail anyway catch nothing.

A bug in a kernel starts from the compiled kernels without it, except for the functions that depend on the changed file,
so it takes seconds.

The bugs are written by hand, since those that matter ("trains on the test fold") don't come from exchanging one
operator for another, as cosmic-ray and mutmut do. Besides, cosmic-ray runs one command for all bugs, which would be the
whole suite, and mutmut calls functions through a wrapper with ``*args``, which Numba can't compile.
"""

from __future__ import annotations

import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from common.command import at_least, commit, parser, say
from facecnn.runs.atomic import write_atomically

ROOT = Path(__file__).resolve().parent.parent
TABLE = Path(__file__).with_name("mutants.toml")
RESULTS = ROOT / "docs" / "MUTANTS.md"
KERNELS = Path("facecnn", "kernels", "cpu")
SHARED = {KERNELS.with_name("formulas.py"), KERNELS.with_name("update_rules.py")}
UNMARKED = "not (slow or browser or fault or cuda or ptx or parity)"
SECONDS = 900
"""Time limit for the tests of a bug; it counts as caught, since it made something endless."""

_HEAD = """# Bugs that the tests notice

`python scripts/mutants.py` puts each bug of `scripts/mutants.toml` into a copy of facecnn and runs the test files named
for it, without marked tests, up to the first failure. Of {known} bugs, {run} were put in and {caught} noticed, at this
commit and by this test:

| bug | commit | caught by |
|---|---|---|
"""
_SURVIVED = "**nothing**"


@dataclass(frozen=True)
class Mutant:
    """A bug."""

    name: str
    file: str
    """Path within the repository."""
    old: str
    new: str
    tests: tuple[str, ...]
    """Test files, one of which must fail."""
    quick: bool
    """Whether they compile nothing."""
    survives: str = ""
    """Why it survives, if that can't be helped."""

    def put_in(self, root: Path) -> str:
        """Put the bug into a copy. Returns the file's text from before.

        Raises ValueError where it fits nowhere, or in several places.
        """
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.old!r} is in {self.file} {text.count(self.old)} times, not once")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")
        return text


@dataclass(frozen=True)
class Result:
    """The result of a bug."""

    name: str
    commit: str
    caught_by: str | None
    """The test that failed first; None if none did."""


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("names", nargs="*", metavar="NAME", help="of a bug (default: all bugs without a result)")
    arguments.add_argument("--sample", type=at_least(1), metavar="N", help="this many bugs, drawn at random")
    arguments.add_argument("--seed", type=at_least(0), default=0, help="of the draw (default: 0)")
    arguments.add_argument("--quick", action="store_true", help="only bugs whose tests compile nothing")
    arguments.add_argument("--again", action="store_true", help="bugs with a result, too")
    arguments.add_argument(
        "--workers", type=at_least(1), default=os.cpu_count() or 1, help="(default: one per processor)"
    )
    arguments.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help="(default: docs/MUTANTS.md)")
    arguments.add_argument("--json", action="store_true", help="print total, caught, survivors and table")
    options = arguments.parse_args()
    known = read_table(TABLE)
    results = read_results(options.results)
    among = {name: mutant for name, mutant in known.items() if mutant.quick or not options.quick}
    chosen = choose(among, results, options.names, options.again, options.sample, options.seed)
    found: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        for result in run(chosen, Path(folder), options.workers):
            found.append(result)
            results[result.name] = result
            write_atomically(options.results, as_markdown(results, known).encode())
            say(f"{len(found)} of {len(chosen)}: {result.name}: {result.caught_by or 'SURVIVED'}")
    survivors = [result.name for result in found if result.caught_by is None]
    if options.json:
        caught = len(found) - len(survivors)
        print(json.dumps({"total": len(found), "caught": caught, "survivors": survivors, "table": len(known)}))
    else:
        print(f"{len(found) - len(survivors)} of {len(found)} were noticed; the table has {len(known)}")
        print("".join(f"not noticed: {name}\n" for name in survivors), end="")
    sys.exit(1 if survivors else 0)


def read_table(path: Path) -> dict[str, Mutant]:
    """Read the bugs, by name. Raises ValueError where two have the same name."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    compile_nothing = set(table["compile_nothing"])
    mutants = [
        Mutant(
            **{**row, "tests": tuple(row["tests"])},
            quick=compile_nothing.issuperset(row["tests"]) and not is_compiled(Path(row["file"])),
        )
        for row in table["mutant"]
    ]
    found = {mutant.name: mutant for mutant in mutants}
    if len(found) < len(mutants):
        raise ValueError(f"{path}: {len(mutants) - len(found)} bugs share another's name")
    return found


def choose(
    known: dict[str, Mutant],
    results: dict[str, Result],
    names: Sequence[str],
    again: bool,
    sample: int | None,
    seed: int,
) -> list[Mutant]:
    """Choose the bugs to run."""
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"error: {', '.join(unknown)}: no such bug in {TABLE.name}")
    chosen = [known[name] for name in names or known if names or again or sample or name not in results]
    return random.Random(seed).sample(chosen, min(sample, len(chosen))) if sample else chosen


def run(mutants: Sequence[Mutant], folder: Path, workers: int) -> Iterable[Result]:
    """Run the tests of each bug, several bugs at once, each in a copy of the repository in ``folder``."""
    here = commit()
    copies: SimpleQueue[Path] = SimpleQueue()
    for number in range(workers):
        copies.put(copy(folder / str(number)))

    def clean(test: str) -> None:
        root = copies.get()
        failed = first_failure(root, [test])
        copies.put(root)
        if failed is not None:
            raise SystemExit(f"error: without any bug {failed} fails, so it can't catch one")

    def caught(mutant: Mutant) -> Result:
        root = copies.get()
        with bug_in(root, mutant):
            failed = first_failure(root, mutant.tests)
        copies.put(root)
        return Result(mutant.name, here, failed)

    with ThreadPoolExecutor(workers) as pool:
        files = dict.fromkeys(test for mutant in mutants for test in mutant.tests)
        say(f"First without a bug: {len(files)} test files")
        list(pool.map(clean, files))
        yield from pool.map(caught, mutants)


@contextmanager
def bug_in(root: Path, mutant: Mutant) -> Iterator[None]:
    """Put a bug into a copy; if it is in a kernel, with all compiled code that is still valid."""
    without = compiled_code(root) if is_compiled(Path(mutant.file)) else None
    before = mutant.put_in(root)
    within = None if without is None else compiled_code(root)
    try:
        if without is not None and within is not None:
            link_code(without, within, but=dependents(root / KERNELS, _module(Path(mutant.file))))
        yield
    finally:
        (root / mutant.file).write_text(before, encoding="utf-8")
        if within is not None:
            shutil.rmtree(within)


def is_compiled(file: Path) -> bool:
    """Whether code is compiled from it."""
    return file.is_relative_to(KERNELS) or file in SHARED


def link_code(source: Path, target: Path, but: set[str]) -> None:
    """Link compiled code into a second folder, except that of some modules."""
    for file in source.rglob("*.nb?"):
        link = target / file.relative_to(source)
        if file.name.split(".")[0] not in but and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, link)


def compiled_code(root: Path) -> Path | None:
    """Find the folder of a copy's compiled kernels; None where they can't be imported, or kept."""
    program = "from facecnn.kernels.cpu import jit; print(jit.cache_folder() or '')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=environment(root), capture_output=True, text=True
    )
    return Path(done.stdout.strip()) if done.stdout.strip() else None


def dependents(folder: Path, name: str) -> set[str]:
    """The modules of a folder that import one of them, directly or not, and itself."""
    imports = {_module(path): _imported(path) for path in folder.rglob("*.py")}
    found: set[str] = set()
    new = {name}
    while new:
        found |= new
        new = {stem for stem, imported in imports.items() if imported & new} - found
    return found


def _module(path: Path) -> str:
    """A module's last name."""
    return path.parent.name if path.stem == "__init__" else path.stem


def _imported(path: Path) -> set[str]:
    """The last names of all modules that a file imports, and the names that it imports from them."""
    statements = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.ImportFrom)]
    modules = {(statement.module or "").rpartition(".")[2] for statement in statements}
    return modules | {alias.name for statement in statements for alias in statement.names}


def copy(folder: Path) -> Path:
    """Copy the repository, without generated files."""

    def made(within: str, names: list[str]) -> set[str]:
        own = {"runs", "build", "dist", "__pycache__"} if Path(within) == ROOT else {"__pycache__"}
        return {name for name in names if name.startswith(".") or name in own}

    return Path(shutil.copytree(ROOT, folder, ignore=made))


def first_failure(root: Path, tests: Sequence[str]) -> str | None:
    """Run tests in a copy. Returns the first one that fails, or None."""
    command = [sys.executable, "-m", "pytest", "-x", "-n", "0", "-p", "no:cacheprovider", "-m", UNMARKED, *tests]
    try:
        done = subprocess.run(command, cwd=root, env=environment(root), capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return f"{' '.join(tests)} (stopped after {SECONDS} s)"
    if done.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return found[1].partition("[")[0] if found else f"{' '.join(tests)} (exit code {done.returncode})"


def environment(root: Path) -> dict[str, str]:
    """The environment in which a copy's facecnn is imported."""
    return {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}


def read_results(path: Path) -> dict[str, Result]:
    """Read results, by the bugs' names."""
    if not path.exists():
        return {}
    cells = [re.split(r" *\| *", line.strip("| ")) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in cells if len(row) == 3 and row[0] not in ("bug", "---")]
    return {
        name: Result(name, commit, None if caught_by.startswith(_SURVIVED) else caught_by.strip("`"))
        for name, commit, caught_by in rows
    }


def as_markdown(results: dict[str, Result], known: dict[str, Mutant]) -> str:
    """Format the results of the bugs that are still in the table, in its order."""
    rows = [results[name] for name in known if name in results]
    lines = []
    for row in rows:
        why = known[row.name].survives
        caught_by = f"`{row.caught_by}`" if row.caught_by is not None else f"{_SURVIVED}: {why}" if why else _SURVIVED
        lines.append(f"| {row.name} | {row.commit} | {caught_by} |\n")
    caught = sum(row.caught_by is not None for row in rows)
    return _HEAD.format(known=len(known), run=len(rows), caught=caught) + "".join(lines)


if __name__ == "__main__":
    main()
