"""People who are added to a folder of photos, and left out."""

import json
from pathlib import Path

import pytest
from PIL import Image

from facecnn.photos.dataset import load_dataset
from facecnn.photos.preparation import PhotoSettings
from facecnn.photos.roster import NO_CHANGES, Roster

SETTINGS = PhotoSettings(size=16)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Two photos each of ann, bob and cy, and two of dora elsewhere."""
    for number, name in enumerate(("album/ann", "album/bob", "album/cy", "elsewhere/x")):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for photo in range(2):
            Image.linear_gradient("L").rotate(40 * number + 7 * photo).save(folder / f"{photo}.png")
    return tmp_path


def names(album: Path, roster: Roster) -> dict[str, int]:
    dataset = load_dataset(album / "album", SETTINGS, roster=roster)
    return {name: int((dataset.labels == label).sum()) for label, name in enumerate(dataset.classes)}


def test_a_person_from_elsewhere_has_the_whole_path_as_the_photos_name(album: Path) -> None:
    files = tuple(sorted((album / "elsewhere/x").iterdir()))
    roster = Roster(added={"bo": files, "cy": files[:1]}, without=frozenset({"bob"}))
    assert names(album, roster) == {"ann": 2, "bo": 2, "cy": 3}
    paths = load_dataset(album / "album", SETTINGS, roster=roster).paths
    assert f"bo{files[0].as_posix()}" in paths
    assert "cy/0.png" in paths


def test_a_record_gives_the_same_roster_back() -> None:
    roster = Roster(added={"bo": (Path("/a/b.png"),)}, without=frozenset({"x", "c"}))
    assert Roster.from_record(json.loads(json.dumps(roster.record()))) == roster
    assert NO_CHANGES.record() == {}
    assert Roster.from_record({}) == NO_CHANGES


def test_changes_follow_each_other() -> None:
    one, two = (Path("/1.png"),), (Path("/2.png"),)
    added = Roster(added={"bo": one})
    assert added.and_also(Roster(added={"bo": two, "cy": one})).added == {"bo": one + two, "cy": one}
    assert added.and_also(Roster(without=frozenset({"bo"}))) == Roster(without=frozenset({"bo"}))
    # Whoever is added again is no longer left out.
    assert Roster(without=frozenset({"bo"})).and_also(added) == added
