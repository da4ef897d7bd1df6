"""What all tests share: caches of their own, made-up photos of people, and test material where it is there."""

import contextlib
import gc
import importlib.util
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

from blank_pictures import PICTURES, draw_nothing
from facecnn.jobs.plotting import Plotter
from facecnn.photos.cache_folder import CACHE_VARIABLE, cache_folder

# With the usual thresholds, the garbage collector goes through Numba's objects so often that compiling takes longer.
gc.set_threshold(100_000, 20, 100)

# Other tests run beside, and would wait for a thread that spins until the next loop. Processes that tests start have it
# from here.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

SIDE = 40

SHARED = Path(__file__).parents[2] / "shared"
"""Material that isn't part of the project: real faces, and odd pictures."""

# The same examples each time, on every machine.
hypothesis.settings.register_profile("the same examples", derandomize=True)
hypothesis.settings.load_profile("the same examples")


@pytest.fixture(scope="session", autouse=True)
def _default_signals() -> None:
    """Under nohup, and in some build services, SIGHUP is ignored, and facecnn respects that. Here it must count."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="module", autouse=True)
def _collect_only_what_is_new() -> None:
    """A training ends with a full garbage collection. It would go through all tests and compiled kernels each time, and
    take a tenth of a second and more."""
    gc.collect(1)
    gc.freeze()


@pytest.fixture
def interrupts() -> Iterator[None]:
    """SIGINT is a KeyboardInterrupt, as Python has it; the workers of pytest-xdist ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache that this session starts empty, but for the compiled kernels: their folder is named by a hash of their
    sources, so that those of an earlier session can be used, and compiling takes longer than all tests."""
    kernels = Path(cache_folder()) / "kernels"
    own = tmp_path_factory.mktemp("cache")
    with contextlib.suppress(OSError):  # where links need a privilege, kernels are compiled in each session
        kernels.mkdir(parents=True, exist_ok=True)
        (own / "kernels").symlink_to(kernels, target_is_directory=True)
    os.environ[CACHE_VARIABLE] = str(own)


@pytest.fixture(autouse=True)
def _no_face_finding(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The photos below have no faces, so they are cropped to the middle, even where the extra faces is installed; a
    test with the fixture ``face_finding`` finds them."""
    if "face_finding" not in request.fixturenames:
        monkeypatch.setattr("facecnn.jobs.faces.installed_arrays", lambda: None)


@pytest.fixture
def face_finding() -> None:
    """Faces are found in this test, with the weights of the extra faces."""
    if importlib.util.find_spec("mtcnn") is None:  # imported, it would want TensorFlow
        pytest.skip("needs the extra faces")


def photo(person: int, number: int) -> Image.Image:
    """A grey photo: light and shadow that are its own, and stripes that are the person's (none for person -1).

    Stripes are too fine for the hash by which near-duplicates are found, and mirroring doesn't change their direction.
    """
    random = np.random.default_rng(1000 * (person + 1) + number)
    light = Image.fromarray(random.integers(60, 196, (5, 5), dtype=np.uint8)).resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC
    )
    row, column = np.indices((SIDE, SIDE)) // 3 % 2
    stripes = {-1: np.zeros((SIDE, SIDE), int), 0: row, 1: column, 2: row ^ column}[person]
    pixels = np.asarray(light, int) + 90 * stripes - 45 + random.integers(-8, 9, (SIDE, SIDE))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


WritePeople = Callable[..., Path]


@pytest.fixture(scope="session")
def write_people(tmp_path_factory: pytest.TempPathFactory) -> WritePeople:
    """A function that makes a folder of photos per person from the numbers of their photos; ``unknown`` has strangers.

    ``start`` is the number of the first photo: folders with other numbers have other photos of the same people.
    """

    def write(counts: Mapping[str, int], *, start: int = 0, folder: Path | None = None) -> Path:
        folder = folder or tmp_path_factory.mktemp("people")
        for person, (name, count) in enumerate(counts.items()):
            (folder / name).mkdir(parents=True)
            for number in range(start, start + count):
                photo(-1 if name == "unknown" else person, number).save(folder / name / f"{number:02}.png")
        return folder

    return write


@pytest.fixture(scope="module")
def module_saves(request: pytest.FixtureRequest) -> Iterator[None]:
    """Trainings are saved every ``BETWEEN_SAVES`` steps of the module; they are too short for the program's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("facecnn.learning.loop.MOST_STEPS_BETWEEN_SAVES", request.module.BETWEEN_SAVES)
        yield


@pytest.fixture(scope="session")
def people(write_people: WritePeople) -> Path:
    """Two people with ten photos each. Not to be written to."""
    return write_people({"ann": 10, "bob": 10})


@pytest.fixture(scope="session")
def people_and_strangers(write_people: WritePeople) -> Path:
    """Two people with ten photos each, and as many of strangers. Not to be written to."""
    return write_people({"ann": 10, "bob": 10, "unknown": 10})


@pytest.fixture(autouse=True)
def _blank_pictures(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A small training takes a fraction of the time that its pictures take: in this process they are blank, and no
    other draws any, but in tests with the fixture ``pictures`` and in trainings that several tests share."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("facecnn.jobs.training.train.Plotter", lambda *, beside: Plotter())
        for name in PICTURES:
            monkeypatch.setattr(f"facecnn.jobs.run_pictures.{name}", draw_nothing)


@pytest.fixture
def pictures() -> None:
    """A training's pictures are drawn in this test."""


@pytest.fixture(scope="session")
def faces() -> Path:
    """Folders of real faces: blair_schroeder, many, strangers."""
    folder = SHARED / "faces"
    if not folder.is_dir():
        pytest.skip("needs ../shared/faces")
    return folder


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Odd and broken picture files."""
    folder = SHARED / "faults" / "images"
    if not folder.is_dir():
        pytest.skip("needs ../shared/faults/images")
    return folder
