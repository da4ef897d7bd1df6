"""Photos of people, read as ``facecnn train`` reads them."""

from __future__ import annotations

from pathlib import Path

from facecnn.faces.finder import FaceFinder
from facecnn.jobs.faces import installed_finder
from facecnn.jobs.people import read_people
from facecnn.jobs.stderr import StderrConsole
from facecnn.photos.dataset import Dataset
from facecnn.photos.preparation import PhotoSettings

CONSOLE = StderrConsole(quiet=True, verbose=False)


def read_album(folder: Path, settings: PhotoSettings, threads: int | None = None) -> tuple[Dataset, FaceFinder | None]:
    """Read a folder of people. Returns its photos, and what finds faces; None where photos are cropped to the middle.

    Raises PhotoError.
    """
    finder = installed_finder(settings, CONSOLE, threads)
    return read_people(folder, settings, finder, CONSOLE, strict=False, for_training=True), finder
