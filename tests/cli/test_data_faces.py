"""``facecnn data check --faces``: which photos of an album are doubtful?"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urljoin, urlparse

import numpy as np
import pytest
from PIL import Image, ImageFilter

from facecnn.jobs import label_check
from facecnn.photos.dataset import Dataset
from facecnn.photos.folder_faces import FolderFaces, folder_faces
from facecnn.photos.preparation import EYE_HEIGHT, PhotoSettings
from photos.finders import KnownFaces, face_at

from .contract import check
from .running import Facecnn
from .squares import SIDE, find_squares, finder, write_album

LIST = [
    {
        "path": str,
        "box": ([float], None),
        "folder": str,
        "likeliest": str,
        "confidence": (float, None),
        "reasons": [str],
    }
]
QUICK = ("data", "check", "--faces", "--quick")
SMOKE = ("-c", "smoke", "--epochs", "8")


@pytest.fixture(scope="session")
def mixed(write_people: Callable[..., Path]) -> Path:
    """Ten photos each of ann and bob, of which two of ann's lie in bob's folder. Not to be written to."""
    folder = write_people({"ann": 10, "bob": 10})
    for number in (3, 7):
        (folder / "ann" / f"{number:02}.png").rename(folder / "bob" / f"ann {number}.png")
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Page(HTMLParser):
    """What a contact sheet holds: under each heading the links and what each card says."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.people: dict[str, list[dict[str, Any]]] = {}
        self._in: list[str] = []
        self._heading = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        attributes = dict(attrs)
        if tag in ("h2", "li"):
            self._in.append(tag)
        if tag == "h2":
            self._heading = ""
        elif tag == "li" and self.people and "class" in attributes:
            self.people[self._heading].append({"class": attributes["class"], "text": "", "alt": [], "link": ""})
        elif self.people and "li" in self._in:
            if tag == "a":
                self.people[self._heading][-1]["link"] = urljoin(self.path.resolve().as_uri(), attributes["href"])
            elif tag == "img":
                assert attributes["src"].startswith("data:image/jpeg;base64,")
                self.people[self._heading][-1]["alt"].append(attributes["alt"])

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h2", "li"):
            assert self._in.pop() == tag
        if tag == "h2":
            self.people[self._heading] = []

    def handle_data(self, data: str) -> None:
        if self._in and self._in[-1] == "h2":
            self._heading += data
        elif self.people and "li" in self._in:
            self.people[self._heading][-1]["text"] += data + " "

    def files(self, person: str) -> list[Path]:
        """Where the links of a person's cards lead."""
        links = [unquote_to_bytes(urlparse(card["link"]).path) for card in self.people[person]]
        return [Path(os.fsdecode(link)) for link in links]


def test_photos_in_the_wrong_folder_come_first(mixed: Path, facecnn: Facecnn) -> None:
    before = contents(mixed)
    done = facecnn("data", "check", mixed, "--faces", *SMOKE, "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert "Trains 5 times" in done.stderr
    assert done.stderr.index("Trains 5 times") < done.stderr.index("Training 1 of 5")
    photos = done.json()
    check(photos, LIST)
    assert sorted(photo["path"] for photo in photos) == sorted(
        path.relative_to(mixed).as_posix() for path in mixed.rglob("*.png")
    )
    assert {photo["path"] for photo in photos[:2]} == {"bob/ann 3.png", "bob/ann 7.png"}
    for photo in photos[:2]:
        assert (photo["folder"], photo["likeliest"], photo["box"]) == ("bob", "ann", None)
        assert photo["confidence"] > 0.5, "the likelier of two"
        assert any("ann" in reason for reason in photo["reasons"])
    assert all(photo["folder"] == photo["path"].split("/")[0] for photo in photos)
    assert contents(mixed) == before


def test_an_album_that_memory_may_not_hold_is_refused_before_anything_is_compared(
    write_people: Callable[..., Path], facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch
) -> None:
    album = write_people({"ann": 5, "bob": 4, "cid": 3})
    command = (*QUICK, album, "-c", "smoke")
    monkeypatch.setattr(label_check, "MOST_SCORES", 35)
    done = facecnn(*command)
    assert (done.exit_code, done.stdout) == (3, "")
    assert "12 photos and 3 folders are too many to compare each with each" in done.stderr
    monkeypatch.setattr(label_check, "MOST_SCORES", 36)
    assert "too many" not in facecnn(*command).stderr


def test_quick_trains_nothing(mixed: Path, facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facecnn.jobs.label_check.network_answers", lambda *_: pytest.fail("a training"))
    done = facecnn(*QUICK, mixed, "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert "Train" not in done.stderr
    photos = done.json()
    check(photos, LIST)
    assert len(photos) == 20
    assert {photo["path"] for photo in photos[:2]} == {"bob/ann 3.png", "bob/ann 7.png"}
    assert {photo["confidence"] for photo in photos} == {None}
    assert [photo["likeliest"] for photo in photos[:2]] == ["ann", "ann"]


def test_the_most_doubtful_come_first(people: Path, facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(dataset: Dataset, rows: Any) -> Any:
        """The later a photo, the less is it like its folder; those of bob are more like ann."""
        answers = np.zeros((20, 2))
        answers[np.arange(20), dataset.labels] = 9.5 - np.arange(20)
        return answers

    monkeypatch.setattr(label_check, "ridge_answers", answer)
    paths = [photo["path"] for photo in facecnn(*QUICK, people, "--format", "json").json()]
    assert paths == [f"{name}/{number:02}.png" for name in ("bob", "ann") for number in reversed(range(10))]


@pytest.mark.slow
def test_it_is_the_same_twice(mixed: Path, facecnn: Facecnn) -> None:
    arguments = ["data", "check", mixed, "--faces", "-c", "smoke", "--epochs", "1", "--format", "json", "-q"]
    assert facecnn(*arguments).stdout == facecnn(*arguments).stdout


def test_the_text_names_those_worth_a_look(mixed: Path, facecnn: Facecnn) -> None:
    done = facecnn(*QUICK, mixed)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[3].split() == ["bob/ann", lines[3].split()[1], "ann", "-"]
    assert "more like ann" in lines[4]
    assert "Nothing was changed" in done.stdout.replace("\n", " ")
    assert done.stdout.count(".png") == 2, "the others aren't accused"


def test_the_text_stops_somewhere(write_people: Callable[..., Path], facecnn: Facecnn) -> None:
    folder = write_people({"ann": 30, "bob": 30})
    for number in range(12):
        for one, other in (("ann", "bob"), ("bob", "ann")):
            (folder / one / f"{number:02}.png").rename(folder / other / f"of {one} {number:02}.png")
    text = facecnn(*QUICK, folder).stdout
    assert text.count(".png") == 20
    assert re.search(r"… \d+ more; --format json has all", text)


def test_a_person_in_unknown_and_a_stranger_in_a_folder(write_people: Callable[..., Path], facecnn: Facecnn) -> None:
    folder = write_people({"ann": 12, "bob": 12, "unknown": 12})
    (folder / "ann" / "05.png").rename(folder / "unknown" / "ann.png")
    (folder / "unknown" / "04.png").rename(folder / "bob" / "stranger.png")
    photos = facecnn(*QUICK, folder, "--format", "json").json()
    found = {photo["path"]: photo for photo in photos[:2]}
    assert found["unknown/ann.png"]["likeliest"] == "ann"
    assert found["bob/stranger.png"]["likeliest"] == "unknown"
    assert found["bob/stranger.png"]["reasons"] == ["more like a stranger"]


def test_one_person_under_two_names(write_people: Callable[..., Path], tmp_path: Path, facecnn: Facecnn) -> None:
    folder = write_people({"ann": 20, "bob": 12})
    (folder / "anna").mkdir()
    for path in sorted((folder / "ann").iterdir())[::2]:
        path.rename(folder / "anna" / path.name)
    done = facecnn(
        "data", "check", folder, "--faces", *SMOKE, "--out", tmp_path / "out", "--format", "json", "--strict"
    )
    assert done.exit_code == 6, "a doubt about the data"
    assert "can't tell ann from anna" in done.stderr
    reasons = {photo["path"]: photo["reasons"] for photo in done.json()}
    assert any("maybe one person under two names" in of_photo for of_photo in reasons.values())
    assert not any("maybe one" in text for path in reasons if path.startswith("bob/") for text in reasons[path])
    assert "tell ann from anna" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize(
    ("fewest", "said"), [(3, "Trains 3 times (not 5, as bob has 3 photos)"), (5, "Trains 5 times,")]
)
def test_as_many_trainings_as_photos(fewest: int, said: str, write_people: Any, facecnn: Facecnn) -> None:
    folder = write_people({"ann": 6, "bob": fewest})
    done = facecnn("data", "check", folder, "--faces", "-c", "smoke", "--epochs", "1", "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert said in done.stderr
    assert len(done.json()) == 6 + fewest


@pytest.mark.parametrize(
    ("counts", "said"), [({"ann": 6}, "only one person"), ({"ann": 6, "bob": 1}, "bob: one photo only")]
)
@pytest.mark.parametrize("options", [[], ["--quick"]])
def test_too_few(options: list[str], counts: Mapping[str, int], said: str, write_people: Any, facecnn: Facecnn) -> None:
    done = facecnn("data", "check", write_people(counts), "--faces", *options)
    assert (done.exit_code, done.stdout) == (3, "")
    assert said in done.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--quick"], "--quick"),
        (["--out", "sheet"], "--out"),
        (["--device", "cpu"], "--device"),
        (["--seed", "1"], "--seed"),
        (["--threads", "1"], "--threads"),
        (["--faces", "--quick", "--epochs", "1"], "--epochs"),
    ],
)
def test_options_that_would_do_nothing(
    options: list[str], named: str, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    monkeypatch.chdir(tmp_path)
    done = facecnn("data", "check", people, *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert named in done.stderr
    assert ("--faces" if "--faces" not in options else "--quick") in done.stderr
    assert not list(tmp_path.iterdir())


def test_faces_off(mixed: Path, facecnn: Facecnn) -> None:
    done = facecnn(*QUICK, mixed, "--set", "photos.faces=off", "--format", "json")
    assert "photos.faces is off" in done.stderr
    assert {photo["box"] for photo in done.json()} == {None}


# Several faces, small ones, blurred ones


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people and strangers, several faces in a good third of the photos. Not to be written to."""
    return write_album(tmp_path_factory.mktemp("several") / "album", people=3, photos=16, strangers=12, groups=0.4)


def test_photos_with_several_faces(
    groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    find_squares(monkeypatch)
    photos = facecnn(*QUICK, groups, "--out", tmp_path / "out", "--format", "json").json()
    check(photos, LIST)
    people = Page(tmp_path / "out" / "index.html").people
    cards = {(name, card["link"].rpartition("/")[2]): card for name, cards in people.items() for card in cards}
    for photo in photos:
        with Image.open(groups / photo["path"]) as image:
            count = image.width // SIDE
        middle = (photo["box"][0] + photo["box"][2]) / 2
        assert min(abs(middle - (number + 0.5) * SIDE) for number in range(count)) < 1, "one of its faces"
        card = cards[tuple(photo["path"].split("/"))]  # type: ignore[index]
        assert (f"1 of {count} faces" in photo["reasons"]) == (count > 1)
        assert len(card["alt"]) == (2 if count > 1 else 1), "the whole photo, framed"


def test_what_the_choice_of_faces_warns_of_is_said(
    mixed: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    def choose(*arguments: Any, **options: Any) -> FolderFaces:
        return replace(folder_faces(*arguments, **options), warnings=("no photo of ann alone: add one",))

    monkeypatch.setattr(label_check, "folder_faces", choose)
    assert "warning: no photo of ann alone: add one\n" in facecnn(*QUICK, mixed).stderr


def test_plain_check_says_where_to_look(
    groups: Path, people: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    assert "--faces" not in facecnn("data", "check", people).stdout
    monkeypatch.setattr("facecnn.jobs.faces.installed_finder", lambda *_: finder())
    count = 0
    for path in groups.rglob("*.png"):
        with Image.open(path) as image:
            count += image.width > SIDE
    text = facecnn("data", "check", groups).stdout
    assert f"{count} photos have several faces: data check --faces looks at who is who" in text
    assert facecnn("data", "check", groups, "--format", "json").json()["several_faces"] == count


def test_small_and_blurred_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn) -> None:
    random = np.random.default_rng(5)
    patterns = random.uniform(60, 196, (2, 12, 12))
    folder = tmp_path / "album"
    for name, pattern in zip(("ann", "bob"), patterns, strict=True):
        (folder / name).mkdir(parents=True)
        for number in range(8):
            coarse = np.clip(pattern + random.normal(0, 20, pattern.shape), 0, 255).astype(np.uint8)
            Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC).save(folder / name / f"{number}.png")
    with Image.open(folder / "ann" / "2.png") as image:
        image.filter(ImageFilter.GaussianBlur(5)).save(folder / "ann" / "2.png")
    distance = PhotoSettings().eye_distance
    faces = {(96, 96): [face_at(48, EYE_HEIGHT * 96, distance * 96)]}
    # Small in its photo, of few pixels, and both.
    for path, size, side in (
        ("ann/4.png", (1000, 900), 60),
        ("bob/5.png", (200, 100), 24),
        ("bob/3.png", (500, 400), 24),
    ):
        with Image.open(folder / path) as image:
            canvas = Image.new("L", size, 128)
            canvas.paste(image.resize((side, side), Image.Resampling.LANCZOS), (size[0] // 2, size[1] // 2))
        canvas.save(folder / path)
        faces[size] = [face_at(size[0] // 2 + side / 2, size[1] // 2 + EYE_HEIGHT * side, distance * side)]
    monkeypatch.setattr("facecnn.jobs.label_check.installed_finder", lambda *_: KnownFaces(faces))
    photos = facecnn(*QUICK, folder, "--format", "json").json()
    reasons = {photo["path"]: " ".join(photo["reasons"]) for photo in photos}
    assert [path for path in reasons if "blurred" in reasons[path]] == ["ann/2.png"]
    # The box of face_at is 2.4 eye distances wide, which is 1.056 times the face's square.
    assert {path: text for path, text in reasons.items() if "small face" in text} == {
        "ann/4.png": "small face: 63 pixels, 7 % of the photo's side",
        "bob/5.png": "small face: 25 pixels, 25 % of the photo's side",
        "bob/3.png": "small face: 25 pixels, 6 % of the photo's side",
    }
    assert {photo["path"] for photo in photos[:4]} == {"ann/2.png", "ann/4.png", "bob/3.png", "bob/5.png"}


# The contact sheet


@pytest.fixture
def odd(mixed: Path, tmp_path: Path) -> Path:
    """An album with names that have to be escaped."""
    folder = tmp_path / "al bum #1 100%"
    shutil.copytree(mixed / "ann", folder / 'a&b <i>"')
    shutil.copytree(mixed / "bob", folder / "bob")
    names = ["50% <b>&amp;'\".png", "a b?c#d;e.png"]
    if sys.platform == "linux":
        names.append(os.fsdecode(b"caf\xe9.png"))
    for name, path in zip(names, sorted((folder / "bob").iterdir()), strict=False):
        path.rename(path.with_name(name))
    return folder


def test_the_sheet_has_every_photo_under_its_person(odd: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    done = facecnn(*QUICK, odd, "--out", tmp_path / "new" / "sheet", "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert [path.name for path in (tmp_path / "new" / "sheet").iterdir()] == ["index.html"]
    page = Page(tmp_path / "new" / "sheet" / "index.html")
    assert list(page.people) == ['a&b <i>"', "bob"]
    order = {person: [photo["path"] for photo in done.json() if photo["folder"] == person] for person in page.people}
    for person, cards in page.people.items():
        files = page.files(person)
        assert set(files) == set((odd / person).resolve().iterdir())
        assert len(cards) == len(order[person])
        for card, path in zip(cards, order[person], strict=True):
            assert card["text"].startswith(path.partition("/")[2].split("_")[0])
            assert all(alt for alt in card["alt"])
    doubtful = [card["text"] for card in page.people["bob"] if "doubtful" in card["class"]]
    assert len(doubtful) == 2
    assert all('more like a&b <i>"' in text for text in doubtful)
    assert "://" not in page.path.read_text(), "no network"


def test_links_open_from_anywhere(
    mixed: Path, tmp_path: Path, facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos and sheet may have no folder in common but the root, and be given relative to where one is."""
    monkeypatch.chdir(mixed.parent)
    monkeypatch.setattr("facecnn.reports.contact_sheet.link_to", lambda *_: None)
    assert facecnn(*QUICK, mixed.name, "--out", tmp_path / "sheet").exit_code == 0
    page = Page(tmp_path / "sheet" / "index.html")
    assert set(page.files("ann")) == set((mixed / "ann").resolve().iterdir())


def test_only_our_own_page_is_replaced(mixed: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    sheet = tmp_path / "sheet"
    assert facecnn(*QUICK, mixed, "--out", sheet).exit_code == 0
    first = (sheet / "index.html").read_bytes()
    assert facecnn(*QUICK, mixed, "--out", sheet).exit_code == 0
    assert (sheet / "index.html").read_bytes() == first
    (sheet / "mine.txt").write_text("mine")
    for folder in (sheet, mixed / "ann", mixed / "new", tmp_path / "file"):
        (tmp_path / "file").write_text("")
        before = contents(tmp_path), contents(mixed)
        done = facecnn(*QUICK, mixed, "--out", folder)
        assert (done.exit_code, done.stdout) == (6, ""), folder
        assert (contents(tmp_path), contents(mixed)) == before
        assert not (mixed / "new").exists()
    (sheet / "mine.txt").unlink()
    (sheet / "index.html").write_text("<title>my own page</title>")
    assert facecnn(*QUICK, mixed, "--out", sheet).exit_code == 6
    assert (sheet / "index.html").read_text() == "<title>my own page</title>"
