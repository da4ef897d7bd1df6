import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facecnn.errors import UsageError
from facecnn.photos import cache, decode, store
from facecnn.photos.cache import LoadedPhotos, load_photos
from facecnn.photos.decode import Picture, heic_supported
from facecnn.photos.fingerprint import dct_hash
from facecnn.photos.preparation import PhotoSettings, crop_with_margin

from .pictures import encoded, picture

SETTINGS = PhotoSettings(size=16)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Three pictures, a copy of the second, one that is none, and one that isn't there."""
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(encoded(picture(index, 40 + index, 50)))
    (tmp_path / "copy.png").write_bytes((tmp_path / "1.png").read_bytes())
    (tmp_path / "text.png").write_text("no picture")
    return [tmp_path / name for name in ("2.png", "0.png", "text.png", "1.png", "gone.png", "copy.png")]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded."""
    names: list[str] = []

    def counted(data: bytes, path: Path, largest: int) -> decode.Decoded:
        names.append(path.name)
        return decode.decode(data, path, largest)

    monkeypatch.setattr(cache, "decode", counted)
    return names


def rows_of(loaded: LoadedPhotos) -> list[np.ndarray | None]:
    return [None if row < 0 else np.array(loaded.pixels[row]) for row in loaded.row.tolist()]


def assert_right(loaded: LoadedPhotos) -> None:
    """The answer for ``photos``, wherever it comes from."""
    pictures = [picture(2, 42, 50), picture(0, 40, 50), None, picture(1, 41, 50), None, picture(1, 41, 50)]
    for index, (image, stored) in enumerate(zip(pictures, rows_of(loaded), strict=True)):
        if image is None:
            assert stored is None
            assert loaded.reasons[index]
            continue
        np.testing.assert_array_equal(stored, crop_with_margin(image, SETTINGS))
        assert loaded.hashes[index] == dct_hash(image)
        assert tuple(loaded.sizes[index]) == image.size
        assert loaded.reasons[index] is None
    assert loaded.sha256[3] == loaded.sha256[5] != loaded.sha256[0]
    assert loaded.row[3] == loaded.row[5]
    refused = [(path.name, reason) for path, reason in zip(loaded.paths, loaded.reasons, strict=True) if reason]
    assert [name for name, _ in refused] == ["text.png", "gone.png"]
    assert "no such file" in refused[1][1]


def store_folder(cache_dir: Path) -> Path:
    (folder,) = (cache_dir / "photos").iterdir()
    return folder


def test_pictures_in_memory_are_prepared_as_files_are_and_not_kept(photos: list[Path], cache_dir: Path) -> None:
    images = [picture(2, 42, 50), picture(0, 40, 50), Image.new("F", (20, 20)), picture(1, 41, 50)]
    mixed = [*(Picture(image, f"photo {number}") for number, image in enumerate(images)), *photos[4:]]
    loaded = load_photos(mixed, SETTINGS)
    expected = load_photos(photos, SETTINGS)
    for one, other in zip(rows_of(loaded), rows_of(expected), strict=True):
        np.testing.assert_array_equal(one, other)
    assert loaded.hashes.tolist() == expected.hashes.tolist()
    assert loaded.reasons[2] == "32-bit pixels are not supported: save it with 8 bits"
    assert [str(path) for path in loaded.paths[:2]] == ["photo 0", "photo 1"]
    with sqlite3.connect(store_folder(cache_dir) / "index.sqlite") as index:
        (kept,) = index.execute("select count(*) from photos").fetchone()
    assert kept == 4, "the files alone"
    assert load_photos(mixed[:2], SETTINGS).row.tolist() == [0, 1]


def test_photos_are_decoded_once(photos: list[Path], decoded: list[str]) -> None:
    seen: list[tuple[int, int]] = []
    first = load_photos(photos, SETTINGS, progress=lambda done, total: seen.append((done, total)))
    assert_right(first)
    assert seen == [(done, 6) for done in range(1, 7)]
    assert first.warnings == ()
    assert set(decoded) - {"copy.png"} == {"0.png", "1.png", "2.png", "text.png"}
    decoded.clear()
    again = load_photos(photos, SETTINGS)
    assert_right(again)
    assert decoded == []  # nor is what was refused
    assert isinstance(again.pixels, np.memmap)
    assert not again.pixels.flags.writeable


def test_the_same_content_in_another_place_is_known(photos: list[Path], decoded: list[str], tmp_path: Path) -> None:
    load_photos(photos, SETTINGS)
    decoded.clear()
    moved = tmp_path / "moved.jpg"
    photos[0].rename(moved)
    assert_right(load_photos([moved, *photos[1:]], SETTINGS))
    assert decoded == []


def test_a_changed_file_is_read_again(photos: list[Path]) -> None:
    load_photos(photos, SETTINGS)
    photos[0].write_bytes(encoded(picture(7, 60, 60)))
    loaded = load_photos(photos[:1], SETTINGS)
    np.testing.assert_array_equal(rows_of(loaded)[0], crop_with_margin(picture(7, 60, 60), SETTINGS))


@pytest.mark.parametrize(
    ("longer", "later"), [(0, 1), (1, 0)], ids=["the same size, a nanosecond later", "the same time, a byte longer"]
)
def test_a_file_is_changed_by_its_size_or_its_time(photos: list[Path], longer: int, later: int) -> None:
    first, second = (encoded(picture(number, 60, 60)) for number in (7, 8))
    length = max(len(first), len(second))
    photos[0].write_bytes(first.ljust(length, b"\0"))  # readers stop at the picture's end
    time = photos[0].stat().st_mtime_ns
    load_photos(photos[:1], SETTINGS)
    photos[0].write_bytes(second.ljust(length + longer, b"\0"))
    os.utime(photos[0], ns=(time, time + later))
    status = photos[0].stat()
    if later and status.st_mtime_ns == time:
        pytest.skip("this file system keeps no nanoseconds")
    assert (status.st_size, status.st_mtime_ns) == (length + longer, time + later)
    (stored,) = rows_of(load_photos(photos[:1], SETTINGS))
    np.testing.assert_array_equal(stored, crop_with_margin(picture(8, 60, 60), SETTINGS))


def test_a_file_that_changes_while_it_is_read_is_read_again(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def written_to(data: bytes, path: Path, largest: int) -> decode.Decoded:
        path.write_bytes(encoded(picture(7, 60, 60)))
        return decode.decode(data, path, largest)

    with monkeypatch.context() as patch:
        patch.setattr(cache, "decode", written_to)
        load_photos(photos[:1], SETTINGS)
    (stored,) = rows_of(load_photos(photos[:1], SETTINGS))
    np.testing.assert_array_equal(stored, crop_with_margin(picture(7, 60, 60), SETTINGS))


def test_a_photo_that_was_too_much_for_the_memory_is_tried_again(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("PIL.Image.open", fails)
        (reason,) = load_photos(photos[:1], SETTINGS).reasons
        assert reason is not None
    assert load_photos(photos[:1], SETTINGS).reasons == (None,)


@pytest.mark.parametrize(
    "name", ["DECODER_VERSION", "PREPARATION_VERSION", "_STORE_VERSION", "PIL.__version__", "heic_supported"]
)
def test_whatever_prepares_photos_otherwise_has_a_store_of_its_own(
    photos: list[Path], decoded: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_photos(photos, SETTINGS)
    decoded.clear()
    other: Any = (lambda: not heic_supported()) if name == "heic_supported" else "another"
    monkeypatch.setattr(f"facecnn.photos.store.{name}", other)
    assert_right(load_photos(photos, SETTINGS))
    assert "0.png" in decoded


def test_a_file_that_comes_back_is_read(photos: list[Path]) -> None:
    load_photos(photos, SETTINGS)
    photos[4].write_bytes(encoded(picture(8)))
    assert load_photos(photos, SETTINGS).reasons[4] is None


@pytest.mark.parametrize(
    "other", [{"size": 20}, {"size": (16, 20)}, {"crop": 0.5}, {"colour": "rgb"}], ids=lambda other: next(iter(other))
)
def test_another_preparation_has_a_store_of_its_own(photos: list[Path], other: dict[str, object]) -> None:
    assert_right(load_photos(photos, SETTINGS))
    chosen = PhotoSettings(**({"size": 16} | other))
    loaded = load_photos(photos, chosen)
    np.testing.assert_array_equal(loaded.pixels[loaded.row[0]], crop_with_margin(picture(2, 42, 50), chosen))
    assert_right(load_photos(photos, SETTINGS))


def test_settings_that_change_no_pixel_share_a_store(photos: list[Path], decoded: list[str]) -> None:
    load_photos(photos, SETTINGS)
    decoded.clear()
    load_photos(photos, PhotoSettings(size=16, normalise="none", augment=None, validation=0.5))
    assert decoded == []


def test_damaged_rows_are_decoded_anew(photos: list[Path], cache_dir: Path, decoded: list[str]) -> None:
    load_photos(photos, SETTINGS)
    pixels = store_folder(cache_dir) / "pixels.bin"
    data = bytearray(pixels.read_bytes())
    data[5] ^= 1
    pixels.write_bytes(data)
    decoded.clear()
    assert_right(load_photos(photos, SETTINGS))
    assert len(set(decoded)) == 1
    decoded.clear()
    assert_right(load_photos(photos, SETTINGS))
    assert decoded == []


@pytest.mark.parametrize("kept", [0, 1, 1000])
def test_a_file_of_rows_that_was_cut_is_filled_again(photos: list[Path], cache_dir: Path, kept: int) -> None:
    load_photos(photos, SETTINGS)
    os.truncate(store_folder(cache_dir) / "pixels.bin", kept)
    assert_right(load_photos(photos, SETTINGS))
    assert_right(load_photos(photos, SETTINGS))


def test_half_a_row_at_the_end_shifts_nothing(photos: list[Path], cache_dir: Path) -> None:
    load_photos(photos[:1], SETTINGS)
    with (store_folder(cache_dir) / "pixels.bin").open("ab") as file:
        file.write(b"torn")
    assert_right(load_photos(photos, SETTINGS))


def test_without_the_cache_folder_everything_is_decoded_again(photos: list[Path], cache_dir: Path) -> None:
    first = load_photos(photos, SETTINGS)
    shutil.rmtree(cache_dir)
    assert_right(first)  # what is loaded stays
    assert_right(load_photos(photos, SETTINGS))


def test_a_damaged_index_costs_one_run(photos: list[Path], cache_dir: Path) -> None:
    load_photos(photos, SETTINGS)
    (store_folder(cache_dir) / "index.sqlite").write_bytes(b"nonsense" * 1000)
    loaded = load_photos(photos, SETTINGS)
    assert_right(loaded)
    assert len(loaded.warnings) == 1
    loaded = load_photos(photos, SETTINGS)
    assert_right(loaded)
    assert loaded.warnings == ()


def test_a_cache_that_cannot_be_written_is_done_without(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FACECNN_CACHE_DIR", str(tmp_path / "file"))
    loaded = load_photos(photos, SETTINGS)
    assert_right(loaded)
    assert len(loaded.warnings) == 1
    assert "the cache can't be used" in loaded.warnings[0]
    assert "FACECNN_CACHE_DIR" in loaded.warnings[0]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), sqlite3.OperationalError("database or disk is full")]
)
def test_a_disk_that_gets_full_midway_is_done_without(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(cache, "_BATCH", 2)
    add = store.PhotoStore.add
    calls = 0

    def fails_the_second_time(self: store.PhotoStore, files: object) -> dict[str, int]:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise error
        return add(self, files)

    monkeypatch.setattr(store.PhotoStore, "add", fails_the_second_time)
    loaded = load_photos(photos, SETTINGS)
    assert calls == 2
    assert_right(loaded)
    assert len(loaded.warnings) == 1
    monkeypatch.undo()


def test_an_interrupted_write_leaves_the_store_as_it_was(photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    load_photos(photos[:1], SETTINGS)

    def interrupt(data: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "zlib", SimpleNamespace(crc32=interrupt))
    with pytest.raises(KeyboardInterrupt):
        load_photos(photos[1:], SETTINGS)
    monkeypatch.undo()
    assert_right(load_photos(photos, SETTINGS))


def test_an_interrupt_ends_loading_and_keeps_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    monkeypatch.setattr(cache, "_BATCH", 4)
    paths = [tmp_path / f"{index}.png" for index in range(100)]
    for index, path in enumerate(paths):
        path.write_bytes(encoded(picture(index, 20, 20)))

    def interrupt(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_photos(paths, SETTINGS, progress=interrupt, workers=2)
    assert len(decoded) < 40
    decoded.clear()
    load_photos(paths, SETTINGS)
    assert 90 <= len(decoded) <= 92


def test_preparations_used_least_lately_make_room(
    photos: list[Path], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_photos(photos, PhotoSettings(size=20))
    (old,) = (cache_dir / "photos").iterdir()
    load_photos(photos, PhotoSettings(size=24))
    (newer,) = set((cache_dir / "photos").iterdir()) - {old}
    os.utime(old, (1000, 1000))
    os.utime(newer, (2000, 2000))
    size = sum(file.stat().st_size for file in newer.iterdir())
    monkeypatch.setenv("FACECNN_CACHE_GIB", repr(size / 2**30))
    assert_right(load_photos(photos, SETTINGS))
    assert not old.exists()
    assert newer.exists()
    monkeypatch.setenv("FACECNN_CACHE_GIB", "1e-9")
    loaded = load_photos(photos, SETTINGS)  # its own is in use
    assert_right(replace(loaded, warnings=()))
    [warning] = loaded.warnings
    assert "FACECNN_CACHE_GIB=1 keeps them" in warning
    assert not newer.exists()
    assert len(list((cache_dir / "photos").iterdir())) == 1


def test_preparations_used_just_now_stay_however_large(
    photos: list[Path], decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACECNN_CACHE_GIB", "1e-9")
    both = SETTINGS, PhotoSettings(size=20)
    for chosen in both:
        load_photos(photos, chosen)
    decoded.clear()
    for chosen in both:
        load_photos(photos, chosen)
    assert decoded == []


@pytest.mark.parametrize("size", ["0", "-1", "many", "nan", "inf", "4 GiB"])
def test_a_size_of_the_cache_that_is_none(size: str, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACECNN_CACHE_GIB", size)
    with pytest.raises(UsageError, match=f"FACECNN_CACHE_GIB is '{size}': set it to a number of GiB"):
        load_photos(photos, SETTINGS)


LOAD = """
import sys
from pathlib import Path
from facecnn.photos.cache import load_photos
from facecnn.photos.preparation import PhotoSettings
loaded = load_photos([Path(name) for name in sys.argv[1:]], PhotoSettings(size=16))
assert not loaded.warnings, loaded.warnings
sys.stdout.buffer.write(loaded.pixels[loaded.row].tobytes())
"""


def test_two_processes_share_a_store(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(60)]
    for index, path in enumerate(paths):
        path.write_bytes(encoded(picture(index, 20, 20)))
    environment = os.environ | {"PYTHONPATH": str(Path(cache.__file__).parents[2])}
    processes = [
        subprocess.Popen([sys.executable, "-c", LOAD, *map(str, paths)], env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    expected = b"".join(crop_with_margin(picture(index, 20, 20), SETTINGS).tobytes() for index in range(60))
    for process in processes:
        assert process.communicate(timeout=120)[0] == expected
    loaded = load_photos(paths, SETTINGS)
    assert loaded.pixels[loaded.row].tobytes() == expected


def test_nothing_to_load() -> None:
    loaded = load_photos([], SETTINGS)
    assert loaded.pixels.shape == (0, *SETTINGS.margin_shape)
    assert loaded.sizes.shape == (0, 2)
