"""Many photos at once: faces, crops and caches are those of one photo after the other, to the bit."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from facecnn.faces.finder import FaceFinder
from facecnn.photos.cache import load_photos
from facecnn.photos.preparation import PhotoSettings

from .conftest import Pixels, read

Arrays = dict[str, npt.NDArray[np.float32]]


@pytest.fixture
def photos(sample: Path, tmp_path: Path) -> list[Path]:
    """Sample faces, one of them found on its side; two together; a large JPEG; one without a face; a copy."""
    portraits = [read(sample / f"s{person}" / "3.pgm") for person in range(1, 8)]
    pictures: list[Pixels] = [*portraits, np.rot90(portraits[0]), np.concatenate(portraits[:2], axis=1)]
    pictures += [np.full((90, 80, 3), 50, np.uint8), portraits[3]]
    paths = []
    for number, picture in enumerate(pictures):
        paths.append(tmp_path / f"{number:02}.png")
        Image.fromarray(picture).save(paths[-1])
    paths.append(tmp_path / "large.jpg")
    Image.fromarray(np.concatenate(portraits[2:6], axis=1)).resize((3000, 900)).save(paths[-1])
    return paths


def everything(photos: list[Path], finder: FaceFinder, workers: int, cache: Path) -> list[Any]:
    """What becomes of the photos, and what is in the cache afterwards."""
    loaded = load_photos(photos, PhotoSettings(size=20), finder=finder, workers=workers)
    (pixels,) = cache.rglob("pixels.bin")
    (faces,) = (cache / "faces").glob("*.sqlite")
    with sqlite3.connect(faces) as index:
        found = index.execute("select * from faces order by sha256").fetchall()
    with sqlite3.connect(pixels.parent / "index.sqlite") as index:
        prepared = index.execute("select * from photos order by sha256").fetchall()
    answers = (loaded.paths, loaded.row.tolist(), loaded.sha256, loaded.hashes.tolist(), loaded.sizes.tolist())
    return [*answers, loaded.faces, loaded.reasons, loaded.notes, pixels.read_bytes(), found, prepared]


def test_all_is_the_same_on_any_number_of_threads_however_many_photos_are_prepared_together(
    photos: list[Path], arrays: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Any]] = []
    for threads, workers, together in ((1, 1, 1), (1, 3, 5), (2, 2, 12), (2, 5, 2)):
        cache = tmp_path / f"cache {threads} {workers}"
        monkeypatch.setenv("FACECNN_CACHE_DIR", str(cache))
        monkeypatch.setattr("facecnn.photos.cache._TOGETHER", together)
        monkeypatch.setattr("facecnn.photos.cache._GROUPS", 0.1)
        finder = FaceFinder(arrays, 1)
        monkeypatch.setattr(finder._nets, "_threads", threads)  # also where there is but one processor
        seen.append(everything(photos, finder, workers, cache))
    assert sum(map(len, seen[0][5])) >= 12
    for other in seen[1:]:
        assert other == seen[0]


def test_photos_that_are_searched_beside_others_get_the_answers_of_photos_alone(
    finder: FaceFinder, arrays: Arrays, sample: Path
) -> None:
    portraits = [read(sample / f"s{person}" / "2.pgm") for person in range(1, 13)]
    nobody, sideways = np.full((60, 90, 3), 50, np.uint8), np.rot90(portraits[0])
    crowd = np.concatenate(portraits[:3], axis=1)
    tiny = np.full((5, 7, 3), 9, np.uint8)
    pictures = [nobody, *portraits[:4], tiny, crowd, sideways, np.asarray(Image.fromarray(crowd).resize((2760, 1120)))]
    pictures += [portraits[4], nobody, *portraits[5:]]
    expected = [finder.find(picture) for picture in pictures]
    assert [len(faces) for faces in expected[:9]] == [0, 1, 1, 1, 1, 0, 3, 1, 3]
    own = FaceFinder(arrays, 1)
    own._nets._threads = 3
    with ThreadPoolExecutor(4) as pool:
        groups = [pictures[:7], pictures[7:8], pictures[8:]]
        assert [faces for group in pool.map(own.find_in_each, groups) for faces in group] == expected
    own.rest()


def test_grey_pictures_are_searched_as_coloured_ones(finder: FaceFinder, sample: Path) -> None:
    grey = Image.open(sample / "s1" / "1.pgm").resize((920, 1120))
    assert grey.mode == "L"
    assert finder.find(grey) == finder.find(grey.convert("RGB")) == finder.find(np.asarray(grey.convert("RGB"))) != []


@pytest.fixture
def at_once(arrays: Arrays) -> Iterator[Callable[[], int]]:
    """How many searches a finder for three threads lets begin before one has ended."""
    finders = []

    def count() -> int:
        finders.append(FaceFinder(arrays, 1))
        nets = finders[-1]._nets
        nets._threads = 3
        begun, go_on, lock = threading.Semaphore(0), threading.Event(), threading.Lock()
        running = [0, 0]

        def work() -> None:
            with lock:
                running[0] += 1
                running[1] = max(running)
            begun.release()
            go_on.wait(60)
            with lock:
                running[0] -= 1

        with ThreadPoolExecutor(5) as pool:
            answers = [pool.submit(nets.beside_others, work) for _ in range(5)]
            while begun.acquire(timeout=1):
                pass
            go_on.set()
            for answer in answers:
                answer.result()
        return running[1]

    yield count
    for finder in finders:
        finder.rest()


def test_there_are_as_many_searches_at_once_as_threads(
    at_once: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numba's own threading layer ends the process when two threads enter parallel loops at once."""
    monkeypatch.setattr("facecnn.kernels.cpu.jit.loops_may_overlap", lambda: True)
    assert at_once() == 3
    monkeypatch.setattr("facecnn.kernels.cpu.jit.loops_may_overlap", lambda: False)
    assert at_once() == 1


def test_whoever_searches_beside_others_keeps_the_threads_of_its_kernels(arrays: Arrays) -> None:
    nets, before = FaceFinder(arrays, 1)._nets, numba.get_num_threads()
    assert nets.beside_others(numba.get_num_threads) == 1
    assert numba.get_num_threads() == before
    with pytest.raises(ZeroDivisionError):
        nets.beside_others(lambda: 1 / 0)
    assert numba.get_num_threads() == before
    assert nets._own.networks is None
    nets.rest()


def test_the_threads_end_with_the_search(arrays: Arrays, photos: list[Path]) -> None:
    before = set(threading.enumerate())
    finder = FaceFinder(arrays, 1)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda path: finder.find_in_each([read(path)]), photos[:4]))
    assert len(set(threading.enumerate()) - before) == 1, "the team's"
    finder.rest()
    assert set(threading.enumerate()) <= before


def test_without_more_threads_a_photo_is_searched_all_the_same(
    arrays: Arrays, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    finder = FaceFinder(arrays, 1)
    expected = finder.find(read(photos[0]))

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert finder.find_in_each([read(photos[0])]) == [expected] != [[]]
