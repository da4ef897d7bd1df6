"""The face finder of a job: that of the extra ``faces``, or the one stored in a model."""

from collections.abc import Mapping

from facecnn.arrays import Array
from facecnn.errors import UsageError
from facecnn.faces.finder import FaceFinder
from facecnn.faces.weights import installed_arrays
from facecnn.jobs.console import Console
from facecnn.photos.face import Finder
from facecnn.photos.preparation import PhotoSettings

PREFIX = "finder."
"""Prefix of a finder's arrays in a checkpoint."""

_INSTALL = "pip install 'facecnn[faces]' installs it"


def installed_finder(settings: PhotoSettings, console: Console, threads: int | None = None) -> FaceFinder | None:
    """The finder of the extra ``faces``, on ``threads`` threads of the CPU (default: all).

    None if photos are cropped to the middle instead. Raises UsageError if it isn't installed, though
    ``photos.faces`` requires it or faces are to be hidden.
    """
    arrays = None if settings.faces == "off" else installed_arrays()
    if arrays is not None:
        return FaceFinder(arrays, threads)
    if settings.hide_face:
        raise UsageError(f"photos.hide_face: faces have to be found to be hidden, and {_why_not(settings)}")
    if settings.faces == "required":
        raise UsageError(f"photos.faces: required: face finding isn't installed: {_INSTALL}; or choose auto or off")
    if settings.faces == "auto":
        console.info(
            f"Faces: not looked for, since face finding isn't installed ({_INSTALL}): photos are cropped to the "
            "middle, not aligned, which costs accuracy unless faces are in the same place in all"
        )
    return None


def required_finder() -> FaceFinder:
    """The finder of the extra ``faces``, on all threads of the CPU.

    Raises UsageError if it isn't installed, and CheckpointError if it is of another version, or damaged.
    """
    arrays = installed_arrays()
    if arrays is None:
        raise UsageError(f"face finding isn't installed: {_INSTALL}")
    return FaceFinder(arrays)


def is_installed() -> bool:
    """Whether the extra ``faces`` is installed. Raises CheckpointError if it is of another version, or damaged."""
    return installed_arrays() is not None


def run_installed_networks() -> bool:
    """Run the installed finder's networks on blank pictures, to compile their kernels; whether there is a finder."""
    arrays = installed_arrays()
    if arrays is None:
        return False
    FaceFinder(arrays).run_blank()
    return True


def _why_not(settings: PhotoSettings) -> str:
    if settings.faces == "off":
        return "photos.faces is off: choose auto"
    return f"face finding isn't installed: {_INSTALL}"


def arrays_for_checkpoint(finder: Finder | None) -> dict[str, Array]:
    """A finder's arrays for a checkpoint, so that the model works where the extra isn't installed."""
    return {} if finder is None else {f"{PREFIX}{name}": array for name, array in finder.arrays.items()}


def finds_faces(arrays: Mapping[str, Array]) -> bool:
    """Whether a checkpoint holds a finder."""
    return any(name.startswith(PREFIX) for name in arrays)


def finder_of_checkpoint(
    arrays: Mapping[str, Array], threads: int | None = None, device: str = "cpu"
) -> FaceFinder | None:
    """The finder that a model's photos were prepared with; None if they were cropped to the middle.

    ``device``: ``cpu`` or ``reference``; see ``FaceFinder``. Raises CheckpointError if the arrays are not those of a
    finder.
    """
    own = {name.removeprefix(PREFIX): array for name, array in arrays.items() if name.startswith(PREFIX)}
    return FaceFinder(own, threads, device) if own else None
