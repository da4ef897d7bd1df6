"""The worker process of benchmark.py that decodes photos, finds faces and cuts them out, as training does at its start.
The cache of photos is in a temporary folder, and empty each time; the kernels' cache is the user's."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.work import serve
from facecnn.errors import DeviceError
from facecnn.faces.finder import FaceFinder
from facecnn.faces.weights import installed_arrays
from facecnn.photos.cache import load_photos
from facecnn.photos.cache_folder import CACHE_VARIABLE
from facecnn.photos.preparation import PhotoSettings


class Pipeline:
    """Photos to crops."""

    def __init__(self, options: dict[str, Any]) -> None:
        """Raises DeviceError without the networks that find faces."""
        arrays = installed_arrays()
        if arrays is None:
            raise DeviceError("faces can't be found: pip install 'facecnn[faces]'")
        self._threads: int = options["threads"]
        self._folder: str = options["temporary"]
        self._finder = FaceFinder(arrays, self._threads)  # which finds the kernels' cache before the folder is another

    def turn(self, photos: Sequence[str]) -> dict[str, Any]:
        """Prepare photos: milliseconds and milliseconds of processors a photo, and the number of faces in all."""
        files = [Path(photo) for photo in photos]
        with tempfile.TemporaryDirectory(dir=self._folder) as cache:
            os.environ[CACHE_VARIABLE] = cache
            started, used = time.perf_counter(), time.process_time()
            loaded = load_photos(files, PhotoSettings(), finder=self._finder, workers=self._threads)
            seconds, used = time.perf_counter() - started, time.process_time() - used
        return {
            "milliseconds": 1000 * seconds / len(files),
            "processor_milliseconds": 1000 * used / len(files),
            "faces": sum(map(len, loaded.faces)),
        }


if __name__ == "__main__":
    serve(Pipeline)
