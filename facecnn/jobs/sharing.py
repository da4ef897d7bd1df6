"""What the jobs that share their work among ranks have in common."""

import contextlib
import platform
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from facecnn.config import Loaded
from facecnn.errors import DeviceError, PhotoError, shown
from facecnn.jobs.console import Console
from facecnn.jobs.faces import installed_finder
from facecnn.jobs.people import find_folder
from facecnn.parallel.ranks import PortionSize, Ranks, Silent, Work
from facecnn.photos.cache import load_photos
from facecnn.photos.cache_folder import CACHE_VARIABLE, make_private, photo_cache_folder
from facecnn.photos.folder import scan

PHOTOS = PortionSize(smallest=32)
"""Each portion opens caches and starts threads, which takes as long as reading a few photos."""


def warn_of_lost(ranks: Ranks, console: Console) -> None:
    """Say which ranks have fallen silent over their part."""
    for reason in ranks.lost:
        console.warning(f"{reason}: what it was at work on was given to others")


def or_silent(work: Work, ranks: Ranks) -> Work:
    """``work``, but on ranks other than 0 an error is returned in place of the results. On rank 0 it is raised."""

    def worked(start: int, stop: int, done: Callable[[int], None]) -> Sequence[Any]:
        try:
            return work(start, stop, done)
        except Exception as error:
            if ranks.rank == 0:
                raise
            return [Silent(f"rank {ranks.rank} of {ranks.size} failed: {error}")] * (stop - start)

    return worked


def fill_caches(
    count: int, look: Callable[[int, int, Callable[[int], None]], None], what: str, ranks: Ranks, console: Console
) -> None:
    """Let ranks process photos, so that rank 0, which then processes all of them, finds the results in the cache.

    So if a rank fails or dies, rank 0 does what that rank left undone.

    ``look`` looks at the photos from a start to a stop, and tells how many are done. All ranks call this.
    """
    if ranks.size == 1:
        return
    others = _without_the_cache(ranks)
    if others:
        console.warning(
            f"{' and '.join(f'rank {rank}' for rank in others)} of {ranks.size} can't see the cache of rank 0, which "
            f"therefore does alone what they could do: set {CACHE_VARIABLE} to a folder that all of them reach"
        )
        return

    def looked(start: int, stop: int, done: Callable[[int], None]) -> list[None]:
        look(start, stop, done)
        return [None] * (stop - start)

    with console.counting(what) as progress:
        results = ranks.share_out(count, or_silent(looked, ranks), PHOTOS, progress)
    for reason in dict.fromkeys(result.reason for result in results if isinstance(result, Silent)):
        console.warning(f"{reason}: rank 0 does what it has left undone")
    warn_of_lost(ranks, console)


def find_shared_folder(argument: Path | None, loaded: Loaded, console: Console, ranks: Ranks) -> Path:
    """The folder of photos that rank 0 finds; see ``find_folder``."""
    found = find_folder(argument, loaded, console) if ranks.rank == 0 else None
    told = ranks.broadcast(None if found is None else found.absolute(), patiently=True)
    return found or told


def prepare_beforehand(folder: Path, loaded: Loaded, threads: int | None, ranks: Ranks, console: Console) -> None:
    """Share finding the faces in the photos of people's folders, and preparing them: see ``fill_caches``.

    All ranks call this. Raises PhotoError if the folder can't be scanned, and UsageError if faces can't be found,
    and have to be.
    """
    if ranks.size == 1:
        return
    settings = loaded.settings.photos
    finder = installed_finder(settings, Console(), threads)  # it is opened again, and says so then
    files = [file for files in scan(folder.absolute()).classes.values() for file in files] if ranks.rank == 0 else []
    files = ranks.broadcast(files if ranks.rank == 0 else None, patiently=True)

    def prepare(start: int, stop: int, done: Callable[[int], None]) -> None:
        load_photos(
            files[start:stop], settings, finder=finder, progress=lambda read, total: done(read), workers=threads
        )

    fill_caches(len(files), prepare, "Reading photos", ranks, console)


def check_same_photos(folder: Path, digest: str, ranks: Ranks) -> None:
    """Check that all ranks see the same photos, and wait until the slowest has read them.

    ``digest``: of what this rank sees. All ranks call this. Raises PhotoError if this rank sees others than rank 0,
    and DeviceError if a rank doesn't answer.
    """
    silent = [answer.reason for answer in ranks.collect(None) if isinstance(answer, Silent)]
    if silent:
        raise DeviceError("; ".join(silent))
    if digest != ranks.broadcast(digest, patiently=True):
        raise PhotoError(
            f"{shown(folder)}: other photos on {platform.node()} (rank {ranks.rank}) than on rank 0: give all "
            "ranks the same folder"
        )


def _without_the_cache(ranks: Ranks) -> list[int]:
    """The ranks that can't see the cache folder of rank 0."""
    with contextlib.ExitStack() as stack:
        name = ""
        if ranks.rank == 0:
            with contextlib.suppress(OSError):
                make_private(photo_cache_folder())
                name = stack.enter_context(tempfile.NamedTemporaryFile(dir=photo_cache_folder(), prefix="seen-")).name
        own = photo_cache_folder() / Path(ranks.broadcast(name)).name
        seen = ranks.gather(own.is_file())
    return [rank for rank, sees in enumerate(seen) if not sees]
