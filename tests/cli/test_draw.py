"""``facecnn predict --draw``: copies of photos with faces framed and named, without anything else of the photos."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from .running import Facecnn, Trained, all_names, full_disk

PERSON = np.array([0x1F, 0x6F, 0xB4])
STRANGER = np.array([0xC0, 0x5A, 0x12])


def near(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Where a picture has a colour, give or take what JPEG does to it."""
    return np.asarray((np.abs(pixels.astype(int) - colour) < 40).all(axis=2))


def drawn_box(path: Path, colour: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the lines of a colour: of rows and columns that have much of it."""
    found = near(np.asarray(Image.open(path)), colour)
    rows, columns = (np.flatnonzero(found.sum(axis=axis) > 0.1 * found.shape[axis]) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def test_a_copy_of_each_photo(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    photos = [trained.photos / person / "00.png" for person in ("ann", "bob")]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in photos}
    (tmp_path / "notes.txt").write_text("holidays\n")
    arguments = ["predict", photos[0], tmp_path / "notes.txt", photos[1], "-m", trained.path]
    for number, form in enumerate(("text", "json", "jsonl", "csv")):
        plain = facecnn(*arguments, "--format", form)
        folder = tmp_path / "new" / str(number)
        drawn = facecnn(*arguments, "--format", form, "--draw", folder)
        assert drawn.stdout == plain.stdout
        assert drawn.exit_code == plain.exit_code == 3  # of the text
        for photo, name in zip(photos, ("00.drawn.jpg", "00-2.drawn.jpg"), strict=True):
            assert f"{photo}: drawn in {folder / name}\n" in drawn.stderr
        assert "Drawn: 2 of 3 photos" in drawn.stderr
        assert drawn.stderr.count("Not drawn, as there is no face with an answer") == 1
        assert all_names(folder) == {"00.drawn.jpg", "00-2.drawn.jpg"}
        for name in all_names(folder):
            with Image.open(folder / name) as picture:
                assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (800, 800))  # of 40 × 40
                assert near(np.asarray(picture), PERSON).sum() > 800, "no frame, or no name"
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in photos} == before


def test_strangers_have_a_colour_of_their_own(
    trained_with_strangers: Trained, tmp_path: Path, facecnn: Facecnn
) -> None:
    photo = trained_with_strangers.photos / "ann" / "00.png"
    for threshold, folder in (("off", "named"), ("0", "refused")):
        arguments = ["predict", photo, "-m", trained_with_strangers.path, "--threshold", threshold]
        assert facecnn(*arguments, "--draw", tmp_path / folder).exit_code == 0
    named, refused = (np.asarray(Image.open(tmp_path / folder / "00.drawn.jpg")) for folder in ("named", "refused"))
    assert near(named, PERSON).sum() > 800 > near(named, STRANGER).sum()
    assert near(refused, STRANGER).sum() > 800 > near(refused, PERSON).sum()


@pytest.mark.parametrize(
    ("size", "drawn"), [((4400, 3520), (2000, 1600)), ((1500, 1200), (1500, 1200)), ((100, 80), (800, 640))]
)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_frames_lie_where_the_faces_are(
    size: tuple[int, int], drawn: tuple[int, int], suffix: str, trained: Trained, tmp_path: Path, facecnn: Facecnn
) -> None:
    """Whatever the copy's size: boxes are told in pixels of the whole photo."""
    photo = Image.effect_noise((size[0] // 10, size[1] // 10), 50).convert("RGB").resize(size)
    photo.save(tmp_path / f"a{suffix}", compress_level=1)  # more of a PNG's takes seconds
    arguments = ["predict", tmp_path / f"a{suffix}", "-m", trained.path, "--format", "json"]
    (answer,) = facecnn(*arguments, "--draw", tmp_path / "drawn").json()
    with Image.open(tmp_path / "drawn" / "a.drawn.jpg") as picture:
        assert picture.size == drawn
    left, top, right, bottom = (edge * drawn[0] / size[0] for edge in answer["box"])
    found = drawn_box(tmp_path / "drawn" / "a.drawn.jpg", PERSON)
    # At the top, and where there is no other room, the label lies in a row of its own.
    assert (found[0], found[2]) == pytest.approx((left, right), abs=6)
    assert found[1] <= top + 6
    assert found[3] >= bottom - 6
    assert np.ptp([left, right]) < drawn[0] - 12, "a box as wide as the photo shows nothing"


# ------------------------------------------------------------------------------------------------------------- privacy


def revealing(path: Path, pixels: np.ndarray) -> None:
    """A JPEG that lies on its side and tells all that a JPEG can."""
    thumbnail = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(thumbnail, "JPEG")
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x9286] = 6, "SECRET maker", "SECRET remark"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 14.5), 29: "SECRET:day"})
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(
        path,
        exif=exif,
        comment=b"SECRET comment",
        xmp=b"<x:xmpmeta>SECRET</x:xmpmeta>",
        icc_profile=profile,
        dpi=(301, 301),
    )
    data = path.read_bytes()
    iptc = b"\xff\xed\x00\x22Photoshop 3.0\x008BIM\x04\x04SECRETSECRET"
    path.write_bytes(data[:2] + iptc + data[2:] + thumbnail.getvalue())


def segments(path: Path) -> set[int]:
    """The markers of a JPEG before its pixels."""
    data, at, found = path.read_bytes(), 2, set()
    while data[at + 1] != 0xDA:
        assert data[at] == 0xFF
        found.add(data[at + 1])
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return found


def test_nothing_but_the_picture_is_copied(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    pixels = np.full((900, 1200, 3), 200, np.uint8)
    pixels[:, :300] = (20, 200, 20)  # is at the top when it is upright
    revealing(tmp_path / "me.jpg", pixels)
    assert b"SECRET" in (tmp_path / "me.jpg").read_bytes()
    assert {0xE1, 0xE2, 0xED, 0xFE} <= segments(tmp_path / "me.jpg")
    assert facecnn("predict", tmp_path / "me.jpg", "-m", trained.path, "--draw", tmp_path / "drawn").exit_code == 0
    made = tmp_path / "drawn" / "me.drawn.jpg"
    assert b"SECRET" not in made.read_bytes()
    assert segments(made) <= {0xE0, 0xDB, 0xC0, 0xC4}  # JFIF, tables, and what the pixels need
    with Image.open(made) as picture:
        assert picture.size == (900, 1200)
        assert picture.getpixel((30, 100)) == pytest.approx((20, 200, 20), abs=12)
        assert picture.getpixel((30, 1100)) == pytest.approx((200, 200, 200), abs=12)
        assert not picture.getexif()
        assert picture.info.get("dpi") != (301, 301)


@pytest.mark.parametrize("side", [900, 100, 4500])
def test_colours_are_those_that_were_meant(side: int, trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    """Without the profile that says so, in a copy of any size: here of a device whose red is blue."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"tmp!").replace(b"bXYZ", b"rXYZ").replace(b"tmp!", b"bXYZ")
    profile = profile.replace("sRGB".encode("utf-16-be"), "odd!".encode("utf-16-be"))
    photo = Image.new("RGB", (side, side), (200, 40, 20))
    photo.paste((190, 50, 20), (0, 0, side // 4, side // 4))  # not all the same
    photo.save(tmp_path / "me.jpg", icc_profile=profile)
    assert facecnn("predict", tmp_path / "me.jpg", "-m", trained.path, "--draw", tmp_path / "drawn").exit_code == 0
    with Image.open(tmp_path / "drawn" / "me.drawn.jpg") as picture:
        assert picture.getpixel((picture.width // 2, picture.height // 2)) == pytest.approx((20, 40, 200), abs=12)


def test_texts_in_a_png_stay_there(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "SECRET")
    Image.effect_noise((300, 200), 50).save(tmp_path / "me.png", pnginfo=text)
    assert facecnn("predict", tmp_path / "me.png", "-m", trained.path, "--draw", tmp_path / "drawn").exit_code == 0
    assert b"SECRET" not in (tmp_path / "drawn" / "me.drawn.jpg").read_bytes()


# --------------------------------------------------------------------------------------------- what is there already


def test_nothing_is_replaced_and_no_copy_is_taken_for_a_photo(
    trained: Trained, tmp_path: Path, facecnn: Facecnn
) -> None:
    """Into the folder of the photos itself, three times."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("me.png", "me.bmp", "you.png"):
        Image.open(trained.photos / "ann" / "00.png").save(photos / name)
    (photos / "YOU.drawn.JPG").write_text("somebody else's")
    before = {path: path.read_bytes() for path in photos.iterdir()}
    answers = []
    for already in (0, 3, 6):
        done = facecnn("predict", photos, "-m", trained.path, "--draw", photos, "--format", "json")
        assert done.exit_code == 0, done.stderr
        answers.append(done.json())
        assert f"Passed over, as no photos by their names: {1 + already} picture" in done.stderr
        assert {path: path.read_bytes() for path in before} == before
        before = {path: path.read_bytes() for path in photos.iterdir()}
        assert len(before) == 4 + already + 3
    assert answers[0] == answers[1] == answers[2]
    assert all_names(photos) == {
        "me.png", "me.bmp", "you.png", "YOU.drawn.JPG",
        *("me.drawn.jpg" if number == 1 else f"me-{number}.drawn.jpg" for number in range(1, 7)),
        *(f"you-{number}.drawn.jpg" for number in (2, 3, 4)),
    }  # fmt: skip


def test_no_copy_of_a_copy(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    """Where a shell, or a pattern, names copies among the photos."""
    shutil.copy(trained.photos / "ann" / "00.png", tmp_path / "me.jpg")
    for _ in range(2):
        done = facecnn("predict", str(tmp_path / "*.jpg"), "-m", trained.path, "--draw", tmp_path)
        assert (done.exit_code, len(done.stdout.splitlines())) == (0, 1)
    both = [tmp_path / "me.jpg", tmp_path / "me.drawn.jpg"]
    done = facecnn("predict", *both, "-m", trained.path, "--draw", tmp_path)
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 2)  # who is named is answered
    assert f"Not drawn, as predict has drawn them: {both[1]}" in done.stderr
    assert all_names(tmp_path) == {"me.jpg", "me.drawn.jpg", "me-2.drawn.jpg", "me-3.drawn.jpg"}


def test_any_name_has_a_copy(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    source = os.fsencode(tmp_path / "source")
    Path(os.fsdecode(source)).mkdir()
    raw = [b"li\nne.png", b"\xff\xfe.png", "имя 人.png".encode(), b"y" * 251 + b".png", b"noend"]
    try:
        for name in raw:
            shutil.copy(os.fsencode(trained.photos / "ann" / "00.png"), source + b"/" + name)
    except OSError:
        pytest.skip("this file system takes no such names")
    assert facecnn("predict", tmp_path / "source", "-m", trained.path, "--draw", tmp_path / "out").exit_code == 0
    assert {os.fsencode(path.name) for path in (tmp_path / "out").iterdir()} == {
        *(name.removesuffix(b".png") + b".drawn.jpg" for name in raw if len(name) < 255),
        b"y" * 200 + b".drawn.jpg",
    }


# -------------------------------------------------------------------------------------------------------- found faces


def test_all_faces_of_a_photo(wall_and_two_people: list[Path], finding: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    """Found by the real finder. Where there is no face, nothing is drawn, and that is told."""
    arguments = ["predict", *wall_and_two_people, "-m", finding, "--format", "json"]
    done = facecnn(*arguments, "--draw", tmp_path / "drawn")
    assert done.exit_code == 0, done.stderr
    assert "Drawn: 1 of 2 photos" in done.stderr
    assert f"Not drawn, as there is no face with an answer: {tmp_path / 'wall.png'}" in done.stderr
    assert all_names(tmp_path / "drawn") == {"both.drawn.jpg"}
    pixels = np.asarray(Image.open(tmp_path / "drawn" / "both.drawn.jpg"))
    faces = done.json()[1]["faces"]
    assert len(faces) == 2
    for face in faces:
        left, top, right, bottom = map(round, face["box"])
        colour = STRANGER if face["label"] == "unknown" else PERSON
        lines = near(pixels, colour)
        assert lines[top + 1, left + 5 : right - 5].mean() > 0.8
        assert lines[bottom - 1, left + 5 : right - 5].mean() > 0.8
        assert lines[top + 5 : bottom - 5, left + 1].mean() > 0.8


# --------------------------------------------------------------------------------------------------- what can go wrong


def test_no_more_room(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    arguments = ["predict", trained.photos / "ann", "-m", trained.path, "--draw", tmp_path]
    assert facecnn(*arguments[:-2]).exit_code == 0  # so that nothing but copies is written below
    with full_disk():
        done = facecnn(*arguments)
    assert done.exit_code == 6
    assert len(done.stdout.splitlines()) == 10  # the answers were told before
    assert "no space left" in done.stderr
    assert all_names(tmp_path) == set()
