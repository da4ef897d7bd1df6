"""How do training and judging go with very many people?

Draws photos of noise, grey JPEGs of 64×64 pixels, ``--photos`` for each of ``--people``, and runs on them, each as a
process of its own: ``facecnn train`` for three epochs, ``eval``, ``predict`` on ten photos, ``report``, and
``cross-validate`` with two folds of one epoch. Faces aren't looked for. Photos, cache and runs are kept in FOLDER; a
later run goes on with them.

Seconds are processor time, of all threads together: other work on the machine hardly changes them. "peak MB" is
that of the process, without pages of files (RssAnon, Linux only). "figures MB" and "page MB" are the sizes
of the run's figures.json and report.html, "answers MB" is what ``cross-validate --format json`` prints. "photos a
second" is the median over the epochs, as ``train`` says.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import add_config, at_least, exit_on_error, parser, say
from common.tables import table
from facecnn.photos.cache_folder import CACHE_VARIABLE
from studies.many_photos import Watched, draw, place, watched

COLUMNS = (
    "people", "photos", "photos a second", "train", "peak MB", "eval", "peak MB", "predict", "peak MB", "report",
    "peak MB", "cross-validate", "peak MB", "figures MB", "page MB", "answers MB",
)  # fmt: skip


@exit_on_error()
def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("folder", type=Path, metavar="FOLDER", help="for photos, cache and runs")
    arguments.add_argument("--people", type=at_least(2), nargs="+", default=[1_000, 10_000])
    arguments.add_argument("--photos", type=at_least(2), default=5, help="of each person (default: 5)")
    add_config(arguments)
    options = arguments.parse_args()
    settings = [argument for setting in options.set for argument in ("--set", setting)]
    rows = [row(options.folder / f"{n}-people", n, options.photos, options.config, settings) for n in options.people]
    print(table(rows, COLUMNS))


def row(folder: Path, people: int, photos: int, config: str, settings: Sequence[str]) -> list[object]:
    size, album, out = people * photos, folder / "photos", folder / "runs"
    say(f"{people:,} people: drawing ...")
    draw(album, size, people)
    environment = {CACHE_VARIABLE: str(folder / "cache"), "NUMBA_CACHE_DIR": str(folder.parent / "kernels")}

    def run(command: str, *arguments: object) -> tuple[Watched, float]:
        say(f"{people:,} people: {command} ...")
        given = ["-m", "facecnn", command, *map(str, arguments), "--format", "json", "--quiet"]
        before = _processor_seconds()
        process = watched([sys.executable, *given], environment)
        return process, _processor_seconds() - before

    made = [album, "-c", config, "--set", "photos.faces=off", "--set", "train.least_steps=0", *settings]
    trained = run("train", *made, "--epochs", 3, "--out", out, "--name", "run", "--overwrite")
    judged = run("eval", "-m", out / "run")
    named = run("predict", *(place(album, number, people) for number in range(10)), "-m", out / "run")
    reported = run("report", out / "run")
    folds = run("cross-validate", *made, "--epochs", 1, "--folds", 2)
    files = [(out / "run" / name).stat().st_size for name in ("figures.json", "report.html")]
    return [
        f"{people:,}",
        f"{size:,}",
        f"{json.loads(trained[0].said)['photos_per_second']:,.0f}",
        *(cell for one in (trained, judged, named, reported, folds) for cell in _cells(*one)),
        *(f"{size / 1e6:,.1f}" for size in (*files, len(folds[0].said))),
    ]


def _processor_seconds() -> float:
    """Of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cells(process: Watched, seconds: float) -> tuple[str, str]:
    return f"{seconds:,.1f} s", f"{process.peak / 1e6:,.0f}"


if __name__ == "__main__":
    main()
