"""The first hour with an NVIDIA card: everything that only a card can show, in parts that can be continued.

    python scripts/first_card.py OUT [--photos PHOTOS]

runs each part that isn't finished yet, in a process of its own with a time limit of its own: a part that hangs is
ended, and the others are run all the same. ``PLAN`` below is their order, which begins with what matters most. A part's
findings are in ``OUT/PART.json``, with machine, card, versions, commit and time, and its output is in ``OUT/PART.log``.
A part that failed, or was ended at its limit, is tried again at the next start, and goes on from its findings so far.
``OUT/page.md``, a section for docs/RESULTS.md, is made from these files. The exit code is 1 where a part failed or
found something wrong, and 5 where there is no card.

``cards/parts.py`` has what each part does, ``cards/page.py`` the page.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cards.page import all_is_well, page, verdict
from common.command import at_least, commit, exit_on_error, parser
from common.worker import last_line
from facecnn.errors import DeviceError, FacecnnError, UsageError, shown
from facecnn.runs.atomic import make_folder, write_atomically

HERE = Path(__file__).resolve().parent
MACHINE_SECONDS = 60
"""Time limit for finding the card."""


@dataclass(frozen=True)
class Part:
    """A part of the plan."""

    name: str
    seconds: int
    """Time limit."""
    what: str
    needs_card: bool = True


PLAN = (
    Part("doctor", 100, "what facecnn finds here, and every kernel once against the reference"),
    Part("cases", 290, "the tests of the kernels, each with its options and edges"),
    Part("repeats", 130, "the same training twice: are the weights equal to the bit?"),
    Part("accuracy", 180, "the same training on the card and on the processor"),
    Part("steps_seed", 200, "a step of seed against PyTorch's"),
    Part("steps_deep", 200, "a step of deep against PyTorch's"),
    Part("steps_default", 200, "a step of default against PyTorch's"),
    Part("steps_many", 200, "a step of many against PyTorch's"),
    # -------------------------------------------------------------------------------------- 25 minutes at most, so far
    Part("kernels", 300, "how long each kernel takes in a step"),
    Part("memory_checks", 480, "every kernel under NVIDIA's compute-sanitizer"),
    Part("streaming", 240, "photos that are sent batch by batch, against those that stay on the card"),
    Part("estimates", 480, "how long each kernel was estimated to take", needs_card=False),
)


@dataclass(frozen=True)
class Order:
    """What the user asks for."""

    out: Path
    photos: Path | None = None
    small: bool = False
    again: bool = False
    limit: int | None = None
    """Seconds for each part, in place of its own."""
    minutes: float | None = None


Command = Callable[[Part, Path, Order], list[str]]
"""The command of a part, whose process writes ``{name: finding}`` to the path after each finding."""


def part_command(part: Part, found: Path, order: Order) -> list[str]:
    """The command of the real parts."""
    options = {"photos": None if order.photos is None else str(order.photos.resolve()), "small": order.small}
    return [sys.executable, str(HERE / "cards" / "parts.py"), part.name, str(found.resolve()), json.dumps(options)]


def run_plan(
    parts: Sequence[Part], order: Order, machine: dict[str, Any], command: Command = part_command
) -> list[dict[str, Any]]:
    """Run the parts that aren't finished. Returns the records of all that have been run, now or before."""
    records = []
    end = None if order.minutes is None else time.monotonic() + 60 * order.minutes
    for part in parts:
        record = read_record(order.out, part.name)
        if not order.again and record is not None and is_finished(record, order):
            announce(f"{part.name}: was done at {record['time']}: {verdict(record)}")
        else:
            seconds = order.limit or part.seconds
            if end is not None and time.monotonic() + seconds > end:
                announce(
                    f"{part.name}: may take {seconds} s, more than is left of --minutes {order.minutes:g}: stopped here"
                )
                break
            announce(f"{part.name}: {part.what} ({seconds} s at most) ...")
            record = run_part(part, seconds, order, machine, command)
            how = "done" if record["unfinished"] is None else record["unfinished"]
            announce(f"{part.name}: {how}, {record['seconds']:.0f} s: {verdict(record)}")
        records.append(record)
    return records


def run_part(part: Part, seconds: float, order: Order, machine: dict[str, Any], command: Command) -> dict[str, Any]:
    """Run a part to its end or its limit, and write its record."""
    path, log = order.out / f"{part.name}.json", order.out / f"{part.name}.log"
    found = order.out / f"{part.name}.found.json"
    origin = {"commit": commit(), "small": order.small, "photos": None if order.photos is None else str(order.photos)}
    before = read_record(order.out, part.name)
    goes_on = before is not None and not order.again and all(before[name] == origin[name] for name in origin)
    write_atomically(found, json.dumps(before["found"] if before is not None and goes_on else {}).encode())
    record: dict[str, Any] = {
        "part": part.name,
        "time": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        **origin,
        "limit": seconds,
        "seconds": 0.0,
        "unfinished": "interrupted",
        "machine": machine,
        "found": {},
    }
    started = time.monotonic()
    try:
        with log.open("wb") as output, group_of(command(part, found, order), output) as process:
            try:
                code = process.wait(seconds)
                said = last_line(log.read_text(encoding="utf-8", errors="replace"))
                record["unfinished"] = None if code == 0 else f"failed ({said})"
            except subprocess.TimeoutExpired:
                record["unfinished"] = "ended at its limit"
    finally:
        record["seconds"] = time.monotonic() - started
        record["found"] = json.loads(found.read_bytes())
        write_atomically(path, json.dumps(record, indent=1).encode() + b"\n")
        found.unlink()
    return record


@contextlib.contextmanager
def group_of(command: list[str], output: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that is ended with the block, together with all that it has started where the system has process
    groups."""
    paths = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=HERE.parent,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


def read_record(out: Path, name: str) -> dict[str, Any] | None:
    """Read a part's record; None if it wasn't run."""
    path = out / f"{name}.json"
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_bytes())
    return record


def is_finished(record: dict[str, Any], order: Order) -> bool:
    """Whether a part needn't be run again; a run with --small doesn't count for one without."""
    return record["unfinished"] is None and record["small"] == order.small


def this_machine() -> dict[str, Any]:
    """Find card, driver, processor and versions, in another process, since a card may serve only one at a time."""
    command = [sys.executable, str(HERE / "cards" / "parts.py"), "machine"]
    try:
        done = subprocess.run(command, cwd=HERE.parent, capture_output=True, encoding="utf-8", timeout=MACHINE_SECONDS)
    except subprocess.TimeoutExpired:
        raise DeviceError(f"to find the card took more than {MACHINE_SECONDS} s: try `facecnn doctor`") from None
    if done.returncode:
        raise FacecnnError(done.stderr.strip() or f"{command[1]}: exit code {done.returncode}")
    machine: dict[str, Any] = json.loads(done.stdout)
    return machine


def write_page(plan: Sequence[Part], out: Path) -> Path:
    """Write ``OUT/page.md`` from all records."""
    records = {part.name: read_record(out, part.name) for part in plan}
    write_atomically(out / "page.md", page(records).encode())
    return out / "page.md"


def announce(text: str) -> None:
    print(text, flush=True)


@exit_on_error()
def main() -> None:
    known = {part.name: part for part in PLAN}
    arguments = parser(__doc__)
    add = arguments.add_argument
    add("out", type=Path, metavar="OUT", help="a folder for the findings; made if it doesn't exist")
    add("--photos", type=Path, help="a folder of photos per person to train on (default: the sample people)")
    add("--part", action="append", metavar="NAME", help=f"only this part: {', '.join(known)}. Repeatable")
    add("--again", action="store_true", help="run finished parts, too")
    add("--limit", type=at_least(1), metavar="SECONDS", help="for each part, instead of the plan's")
    add("--minutes", type=float, help="stop before a part that may not fit in the rest of this time")
    add("--small", action="store_true", help="as little as possible, to see that the script runs; no figures to keep")
    add("--page", action="store_true", help="only write OUT/page.md from what is there")
    options = arguments.parse_args()
    if (options.minutes or 0) < 0:
        arguments.error("--minutes: must not be negative")
    if unknown := [name for name in options.part or [] if name not in known]:
        raise UsageError(f"--part {shown(unknown[0])}: there is no such part; choose among {', '.join(known)}")
    chosen = [part for part in PLAN if not options.part or part.name in options.part]
    make_folder(options.out)
    if options.page:
        announce(f"Page: {shown(write_page(PLAN, options.out))}")
        return
    machine = this_machine()
    if machine["card"] is None and any(part.needs_card for part in chosen):
        raise DeviceError(f"--device cuda: {machine['no_card']}")
    announce(f"Card: {machine['card'] or 'none'}; driver {machine['driver'] or 'unknown'}; commit {commit()}")
    order = Order(options.out, options.photos, options.small, options.again, options.limit, options.minutes)
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # which ends the part, too
    try:
        records = run_plan(chosen, order, machine)
    finally:
        signal.signal(signal.SIGTERM, before)
        announce(f"Page: {shown(write_page(PLAN, options.out))}")
    if not all(all_is_well(record) for record in records):
        sys.exit(1)


if __name__ == "__main__":
    main()
