"""The part of benchmark.py that measures how fast photos become crops of faces: decoding, finding, aligning.

facecnn takes many photos at once, on all threads, as at the start of training, from an empty cache of photos. Beside
it are the other finders of studies/face_finders.py, where they are installed: they only decode and find, one photo
after the other. On large photos they are slow, so they see only some of them.

There are small photos (250x250, the size of those of LFW) and large ones (12 megapixels). Unless photos are given,
they are made of the sample's faces: pasted, each in its own size, into pictures that are full of detail and of noise,
since a JPEG without them is decoded too quickly.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.processes import FACECNN, HERE, Conditions, Implementation, Process, ask_facecnn, in_turns, started
from common.command import say
from common.worker import LineProcess
from facecnn.errors import FacecnnError, PhotoError, UsageError, shown
from facecnn.photos.folder import list_photos
from facecnn.photos.sample import write_sample
from studies.face_finders import FINDERS

ROUNDS, QUICK_ROUNDS = 7, 2
PEOPLE = 40
NOISE = 3.0
"""Standard deviation of the grain of a large photo, in grey levels."""
FINDER_SCRIPT = HERE.parent / "studies" / "face_finders.py"


@dataclass(frozen=True)
class Kind:
    """Photos of one size."""

    name: str
    size: tuple[int, int]
    """Width and height."""
    count: int
    quick_count: int
    for_peers: int
    """How many of them the other finders see, at most."""
    faces: tuple[int, ...]
    """How many faces the photos have, in turns."""


KINDS = (
    Kind("250x250", (250, 250), 200, 40, 40, (1,)),
    Kind("12 megapixels", (4000, 3000), 16, 4, 2, (1, 1, 2, 12)),
)


@dataclass
class Tally:
    """What one finder needed for the photos of one kind."""

    photos: str
    implementation: str
    milliseconds: list[float] = field(default_factory=list)
    """A photo, in each turn."""
    processor_milliseconds: list[float] = field(default_factory=list)
    count: int = 0
    faces: int = 0

    def row(self) -> dict[str, Any]:
        median = statistics.median(self.milliseconds)
        return {
            "photos": self.photos,
            "implementation": self.implementation,
            "count": self.count,
            "faces": self.faces,
            "median_ms": median,
            "min_ms": min(self.milliseconds),
            "photos_per_second": 1000 / median,
            "median_processor_ms": statistics.median(self.processor_milliseconds),
        }


def measure(conditions: Conditions, folder: Path | None, peer_python: Path | None) -> list[dict[str, Any]] | None:
    """Measure ``pipeline``: a row for each kind of photos and each finder.

    Args:
        conditions: how many threads and rounds.
        folder: photos of faces to make the others of; None: the sample's.
        peer_python: the Python that has the other finders; None: this one.

    Returns:
        None where there are no photos, or where faces can't be found.

    Raises:
        FacecnnError: where facecnn fails.
    """
    rows = []
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        try:
            sources = list_photos(folder or write_sample(Path(temporary) / "sample", people=PEOPLE).folder).files
        except PhotoError as error:
            if folder is not None:
                raise
            say(f"pipeline is left out: {error}")
            return None
        say("Pipeline: making photos ...")
        made = {kind: make_photos(kind, sources, Path(temporary) / kind.name, conditions.quick) for kind in KINDS}
        options = {**conditions.options, "temporary": temporary}
        (own,) = stack.enter_context(started([Implementation(FACECNN, "pipeline_worker.py", options)]))
        peers = {name: stack.enter_context(peer) for name, peer in others(conditions, peer_python)}
        for kind, photos in made.items():
            rows += [tally.row() for tally in turns(conditions, kind, photos, own, peers)]
    return rows


def make_photos(kind: Kind, sources: Sequence[Path], folder: Path, quick: bool) -> list[Path]:
    """Make JPEGs out of photos of faces; the same ones each time."""
    random = np.random.default_rng(0)
    folder.mkdir()
    made, (width, height) = [], kind.size
    order = random.permutation(len(sources))
    for number in range(kind.quick_count if quick else kind.count):
        faces = kind.faces[number % len(kind.faces)]
        chosen = [sources[order[(number + turn) % len(order)]] for turn in range(faces + 1)]
        behind, *others = (_opened(source) for source in chosen)
        # The picture behind is upside down, so that it isn't taken for a face.
        picture = behind.resize(kind.size, Image.Resampling.BICUBIC).transpose(Image.Transpose.ROTATE_180)
        columns = int(np.ceil(np.sqrt(faces * width / height)))
        cell = min(width // columns, height // -(-faces // columns))
        for place, face in enumerate(others):
            side = int(cell * random.uniform(0.4, 0.9))
            face = face.resize((side, side * face.height // face.width), Image.Resampling.BICUBIC)
            left = place % columns * cell + int(random.integers(0, cell - side + 1))
            top = place // columns * cell + int(random.integers(0, max(1, cell - face.height + 1)))
            picture.paste(face, (left, top))
        grain = random.normal(0, NOISE, (height, width, 1)).astype(np.float32)
        pixels = np.clip(np.asarray(picture, np.float32) + grain, 0, 255).astype(np.uint8)
        made.append(folder / f"{number:03}.jpg")
        Image.fromarray(pixels).save(made[-1], quality=90, subsampling="4:2:0")
    return made


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


class Peer(contextlib.AbstractContextManager["Peer"]):
    """Another finder, in a process of its own."""

    def __init__(self, name: str, python: Path, threads: int) -> None:
        """Raises ModuleNotFoundError where it isn't installed, UsageError where that Python can't be run."""
        try:
            self._lines = LineProcess([python, FINDER_SCRIPT, name, str(threads)])
        except OSError as error:
            raise UsageError(f"--peer-python {shown(python)}: can't be run ({error.strerror})") from error
        first = self._lines.answer()
        if "missing" in first:
            self._lines.close()
            raise ModuleNotFoundError(first["missing"])
        self.version: str = first["version"]

    def __exit__(self, *_: object) -> None:
        self._lines.close()

    def turn(self, photos: Sequence[Path]) -> dict[str, Any]:
        """Decode photos and find their faces, one after the other: figures as those of pipeline_worker.py."""
        answers = [self._lines.ask(str(photo)) for photo in photos]
        return {
            "milliseconds": statistics.mean(one["decoding_milliseconds"] + one["milliseconds"] for one in answers),
            "processor_milliseconds": statistics.mean(one["processor_milliseconds"] for one in answers),
            "faces": sum(len(one["faces"]) for one in answers),
        }


def others(conditions: Conditions, python: Path | None) -> Iterator[tuple[str, Peer]]:
    """The other finders that are installed, by name and version; those that aren't are named on stderr."""
    for name in FINDERS:
        if name == FACECNN:
            continue
        try:
            peer = Peer(name, python or Path(sys.executable), conditions.threads)
        except (ModuleNotFoundError, FacecnnError) as error:
            if isinstance(error, UsageError):
                raise
            say(f"{name} is left out: {error}")
            continue
        yield f"{name} {peer.version}", peer


def turns(
    conditions: Conditions, kind: Kind, photos: Sequence[Path], own: Process, peers: dict[str, Peer]
) -> list[Tally]:
    """Show the photos to facecnn and to the others, in turns; a first turn, which compiles, isn't counted."""
    tallies = {name: Tally(kind.name, name, count=len(photos)) for name in (FACECNN, *peers)}
    rounds = conditions.turns(ROUNDS, QUICK_ROUNDS)
    for number, in_order in enumerate(in_turns(list(tallies.values()), 1 + rounds)):
        say(f"Pipeline: {kind.name}, round {number} of {rounds} ..." if number else f"Pipeline: {kind.name} ...")
        for tally in in_order:
            if tally.implementation == FACECNN:
                found = ask_facecnn(own, "turn", photos=[str(photo) for photo in photos])
            else:
                seen = photos[: kind.for_peers if number else 1]
                found, tally.count = peers[tally.implementation].turn(seen), len(seen)
            if number:
                tally.milliseconds.append(found["milliseconds"])
                tally.processor_milliseconds.append(found["processor_milliseconds"])
                tally.faces = found["faces"]
    return list(tallies.values())


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Format for a terminal of 80 columns."""
    lines = [
        "",
        "From JPEGs to the crops of their faces, milliseconds a photo (facecnn: several",
        "photos at once; the others decode and find, one after the other):",
        f"{'':45}{'median':>9}{'min':>8}{'processor':>10}{'faces':>8}",
    ]
    for row in rows:
        lines.append(
            f"  {row['photos']:14}{row['implementation'][:28]:29}{row['median_ms']:9.2f}{row['min_ms']:8.2f}"
            f"{row['median_processor_ms']:10.2f}{row['faces'] / row['count']:8.2f}"
        )
    return lines
