"""The picture that explains an answer: whom it names, what it says, and that any face and any name can be drawn."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from facecnn.errors import OutputError
from facecnn.reports.drawing import NamedFace
from facecnn.reports.explanation import FaceMaps, draw_explanation
from facecnn.reports.lettering import Lettering

PEOPLE = ("Ann", "Bob")
SIDE = 8


def maps(
    person: str = "Ann", before: float = 2.0, lowest: float = -1.0, channels: int = 1, flat: bool = False
) -> FaceMaps:
    random = np.random.default_rng(0)
    drop = np.zeros((SIDE, SIDE)) if flat else random.normal(size=(SIDE, SIDE))
    seen = np.zeros((SIDE, SIDE, channels)) if flat else random.normal(size=(SIDE, SIDE, channels))
    return FaceMaps(
        person=person,
        crop=random.integers(0, 256, (SIDE, SIDE, channels), np.uint8),
        seen=seen.astype(np.float32),
        drop=drop,
        before=before,
        lowest=lowest,
        gradient=0 * seen if flat else seen[::-1],
    )


def face(name: str = "Ann", left: float = 20, top: float = 30, *, is_person: bool = True) -> NamedFace:
    return NamedFace((left, top, left + 30, top + 40), name, is_person, 0.914)


def draw(
    path: Path,
    faces: Sequence[NamedFace] = (face(),),
    of_faces: Sequence[FaceMaps] = (maps(),),
    people: Sequence[str] = PEOPLE,
    title: str = "photo.jpg",
    size: tuple[int, int] = (90, 120),
) -> None:
    """``size``: height and width. ``of_faces``: of the first faces."""
    photo = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8))
    draw_explanation(path, title, photo, faces, dict(enumerate(of_faces)), people)
    with Image.open(path) as picture:
        assert picture.format == "PNG"


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_it_says_who_and_why(tmp_path: Path, drawn: list[Figure]) -> None:
    draw(tmp_path / "a.png")
    said = texts(drawn[0])
    assert "photo.jpg" in said
    assert "Ann (91.4 %)" in said
    # e^2 : 1 before, and 1 : e^1 after
    assert "changes the odds for Ann from 7.4:1 to 1:2.7" in said.replace("\n", " ")
    assert f"what the network saw ({SIDE}×{SIDE})" in said


@pytest.mark.parametrize(
    ("before", "lowest", "said"),
    [
        (0.0, -0.0001, "from 1:1 to 1:1."),
        (5.0, 2.5, "from 148:1 to 12:1."),
        (900.0, 30.0, "from over 1,000,000:1 to over 1,000,000:1."),
        (-1.0, -900.0, "from 1:2.7 to 1:more than 1,000,000."),
        (2.0, 2.0, "No place is needed for Ann: wherever a patch lies, the odds stay 7.4:1 or better."),
    ],
)
def test_the_odds_in_words(before: float, lowest: float, said: str, tmp_path: Path, drawn: list[Figure]) -> None:
    draw(tmp_path / "a.png", of_faces=[maps(before=before, lowest=lowest)])
    assert said in texts(drawn[0]).replace("\n", " ")


def test_a_stranger_is_not_named(tmp_path: Path, drawn: list[Figure]) -> None:
    draw(tmp_path / "a.png", [face("unknown", is_person=False)], [maps("Bob")])
    said = texts(drawn[0])
    assert "unknown: too strange to be named; the maps are about Bob, the likeliest" in said
    assert "Bob (" not in said


def test_a_face_whose_name_another_has(tmp_path: Path, drawn: list[Figure]) -> None:
    other = NamedFace((20, 30, 50, 70), "unknown", False, 0.4, also_like="Ann")
    draw(tmp_path / "a.png", [face("Ann"), other], [maps(), maps()])
    assert "2  unknown: another face here is more like Ann; the maps are about Ann" in texts(drawn[0])


def test_each_explained_face_has_a_number_and_a_row(tmp_path: Path, drawn: list[Figure]) -> None:
    faces = [face("Ann", 10 * number, 10 + number) for number in range(6)]
    photo = Image.new("RGB", (120, 90))
    draw_explanation(
        tmp_path / "a.png", "photo.jpg", photo, faces, {1: maps(), 2: maps(), 4: maps(), 5: maps()}, PEOPLE
    )
    said = texts(drawn[0])
    assert "4 of the 6 faces explained: the largest, numbers 1 to 4" in said
    assert [f"{number}  Ann (91.4 %)" in said for number in range(1, 7)] == [True] * 4 + [False] * 2
    with Image.open(tmp_path / "a.png") as four_rows:
        height = four_rows.height
    draw(tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as one_row:
        assert height > 2.5 * one_row.height
    assert "1  Ann" not in texts(drawn[1])
    assert "faces explained" not in texts(drawn[1])


def test_what_holds_for_all_faces_is_said_once(tmp_path: Path, drawn: list[Figure]) -> None:
    draw(tmp_path / "a.png", [face("Ann"), face("Bob", 60)], [maps(), maps("Bob")])
    said = texts(drawn[0])
    for once in (
        "Red places are needed",
        "Bright pixels",
        "what the network saw",
        "Smooth",
    ):
        assert said.count(once) == 1, once


@pytest.mark.parametrize(
    ("size", "width"), [((600, 900), 605), ((2000, 3000), 605), ((90, 120), 605), ((1600, 900), 495)]
)
def test_the_photo_fills_its_column(size: tuple[int, int], width: int, tmp_path: Path, drawn: list[Figure]) -> None:
    """A pixel of the photo as it is drawn for a pixel of the picture; a tall one makes its column narrower."""
    draw(tmp_path / "a.png", size=size)
    photo = shown_photo(drawn[0])
    assert photo.shape[:2] == (pytest.approx(width * size[0] / size[1], abs=1), width)
    extent = drawn[0].axes[0].get_window_extent()
    assert (extent.width, extent.height) == pytest.approx(photo.shape[1::-1], abs=0.01)
    maps_begin = min(axes.get_window_extent().x0 for axes in drawn[0].axes[1:])
    assert extent.x0 >= -0.01
    assert 0 < maps_begin - extent.x1 < 60


def shown_photo(figure: Figure) -> np.ndarray:
    """The photo's pixels as they are shown, with frames and names."""
    return np.asarray(figure.axes[0].get_images()[0].get_array())


def test_frames_and_names_are_in_the_photo(tmp_path: Path, drawn: list[Figure]) -> None:
    """Known and unknown people's differ in colour."""
    known, unknown = (0x1F, 0x6F, 0xB4), (0xC0, 0x5A, 0x12)
    faces = [face("Ann", 100, 200), face("unknown", 300, 200, is_person=False)]
    draw(tmp_path / "a.png", faces, [maps(), maps()], size=(605, 605))  # shown as large as it is
    photo = shown_photo(drawn[0])
    assert tuple(photo[200, 115]) == tuple(photo[240, 115]) == tuple(photo[220, 100]) == known
    assert tuple(photo[200, 315]) == tuple(photo[240, 315]) == tuple(photo[220, 300]) == unknown
    assert (photo[180:200, 100:130] == known).all(axis=2).mean() > 0.3  # the name above it


@pytest.mark.parametrize(
    "size", [(8, 8), *(pytest.param(size, marks=pytest.mark.slow) for size in ((12, 900), (900, 900))), (900, 12)]
)
@pytest.mark.parametrize("box", [(-50.0, -40.0, 40.0, 5.0), (2.0, 3.0, 6.0, 7.0), (700.0, 600.0, 1200.0, 1100.0)])
def test_faces_anywhere_in_photos_of_any_shape(
    size: tuple[int, int], box: tuple[float, float, float, float], tmp_path: Path, drawn: list[Figure]
) -> None:
    draw(tmp_path / "a.png", [NamedFace(box, "Ann", True, 1.0)], size=size)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width < 2500
        assert picture.height < 1000


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("flat", [False, True])
def test_grey_and_colour_and_nothing_to_see(channels: int, flat: bool, tmp_path: Path) -> None:
    """A network that looks at nothing gives maps of zeros."""
    with np.errstate(all="raise"):
        draw(tmp_path / "a.png", of_faces=[maps(channels=channels, flat=flat, before=1.0, lowest=1.0)])


def test_red_is_needed_and_blue_speaks_against(tmp_path: Path, drawn: list[Figure]) -> None:
    of_face = maps()
    of_face.drop[:] = 0
    of_face.drop[:, 0], of_face.drop[:, -1] = 2, -1
    draw(tmp_path / "a.png", of_faces=[of_face])
    (covered,) = (axes for axes in drawn[0].findobj(type(drawn[0].axes[0])) if axes.get_title().startswith("covered"))
    image = covered.get_images()[-1]
    red, _, blue = to_rgb(image.to_rgba(np.array([2.0]))[0])
    assert red > 2 * blue
    red, _, blue = to_rgb(image.to_rgba(np.array([-1.0]))[0])
    assert blue > red
    assert min(to_rgb(image.to_rgba(np.array([0.0]))[0])) > 0.95


@pytest.mark.parametrize(
    "name",
    ["имя", "田中さん", "a\nb", "\x1b[31m", "$x^2$", "$\\frac{", "\ud800", "x" * 300, "שם", "\U000e0001\U000f0000"],
    ids=ascii,
)
def test_any_name_can_be_drawn(name: str, tmp_path: Path, drawn: list[Figure]) -> None:
    draw(tmp_path / "a.png", [face(name)], [maps(name)], ("Ann", name), title=f"{name}.jpg")
    said = texts(drawn[0])
    assert "\x1b" not in said
    assert Lettering(["Ann", name], f"{name}.jpg")(name)[:4] in said
    assert len(max(said.split("\n"), key=len)) < 120


def test_names_that_no_font_has_are_numbered(tmp_path: Path, drawn: list[Figure]) -> None:
    """Chinese letters that no font here has, and that can't be spelled in Latin ones, would be boxes, all alike."""
    nobody = "\U000202ce\U00021564"
    draw(tmp_path / "a.png", [face(nobody)], [maps(nobody)], ("Ann", nobody))
    said = texts(drawn[0])
    if nobody not in said:
        assert "person 2 (91.4 %)" in said
        assert "the odds for person 2" in said.replace("\n", " ")


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(OutputError, match="file"):
        draw(tmp_path / "file" / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_style_stays_as_it_was(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw(tmp_path / "a.png", title="имя.jpg")
    assert dict(matplotlib.rcParams) == before
