"""The picture that explains an answer: whom it names, what it says, and that any face and any name can be drawn."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from facecnn.errors import OutputError
from facecnn.runs.explanation import FaceMaps, NamedFace, draw_explanation
from facecnn.runs.lettering import Lettering

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
    photo = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    draw_explanation(path, title, photo, faces, of_faces, people)
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
    (box,) = (patch for patch in drawn[0].findobj(Rectangle) if patch.get_linewidth() > 2)
    assert (box.get_width(), box.get_height()) == (30, 40)
    assert (box.get_x(), box.get_y()) == (19.5, 29.5)  # matplotlib has a pixel's centre at whole numbers


@pytest.mark.parametrize(
    ("before", "lowest", "said"),
    [
        (0.0, -0.0001, "from 1:1 to 1:1."),
        (5.0, 2.5, "from 148:1 to 12:1."),
        (900.0, 30.0, "from over 1,000,000:1 to over 1,000,000:1."),
        (-1.0, -900.0, "from 1:2.7 to 1:more than 1,000,000."),
        (2.0, 2.0, "No place is needed for Ann: wherever a patch lies, the odds for Ann stay 7.4:1 or better."),
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
    draw(tmp_path / "b.png", [face("Bob")], [maps("Bob")])
    colours = [
        next(patch for patch in figure.findobj(Rectangle) if patch.get_linewidth() > 2).get_edgecolor()[:3]
        for figure in drawn
    ]
    assert colours[0] != colours[1]


def test_each_face_has_a_number_and_a_row(tmp_path: Path, drawn: list[Figure]) -> None:
    faces = [face("Ann", 10 * number, 10 + number) for number in range(6)]
    draw(tmp_path / "a.png", faces, [maps()] * 4)
    said = texts(drawn[0])
    assert "4 of the 6 faces are explained: those nearest the middle" in said
    assert all(f"{number}  Ann (91.4 %)" in said for number in (1, 2, 3, 4))
    assert all(f" {number}  Ann " in said for number in (5, 6))  # in the photo, and no row beside it
    assert "5  Ann (91.4 %)" not in said
    assert len([patch for patch in drawn[0].findobj(Rectangle) if patch.get_linewidth() > 2]) == 6
    with Image.open(tmp_path / "a.png") as four_rows:
        height = four_rows.height
    draw(tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as one_row:
        assert height > 2.5 * one_row.height
    assert "1  Ann" not in texts(drawn[1])


@pytest.mark.parametrize("size", [(8, 8), (900, 12), (12, 900), (900, 900)])
@pytest.mark.parametrize("box", [(-50.0, -40.0, 40.0, 5.0), (2.0, 3.0, 6.0, 7.0), (700.0, 600.0, 1200.0, 1100.0)])
def test_faces_anywhere_in_photos_of_any_shape(
    size: tuple[int, int], box: tuple[float, float, float, float], tmp_path: Path, drawn: list[Figure]
) -> None:
    draw(tmp_path / "a.png", [NamedFace(box, "Ann", True, 1.0)], size=size)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width < 2500
        assert picture.height < 1000
    photo = drawn[0].axes[0]
    assert photo.get_xlim() == (-0.5, size[1] - 0.5)
    assert photo.get_ylim() == (size[0] - 0.5, -0.5)


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


def labels(figure: Figure) -> list[tuple[float, float, float, float]]:
    """Where the names in the photo lie, in pixels of the screen."""
    figure.canvas.draw()
    return [text.get_window_extent().extents for text in figure.axes[0].texts if text.get_bbox_patch() is not None]


@pytest.mark.parametrize("second", [(45, 30), (20, 30), (30, 50), (60, 8)])
def test_no_name_hides_another(second: tuple[int, int], tmp_path: Path, drawn: list[Figure]) -> None:
    """Heads together: the name of one goes below the box where the other's is above."""
    draw(tmp_path / "a.png", [face("Ann"), face("Gerhard", *second)], [maps(), maps()], size=(180, 180))
    one, other = labels(drawn[0])
    assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


@pytest.mark.parametrize("box", [(-30, -20, 40, 50), (150, 100, 200, 200), (0, 0, 180, 180), (100, 150, 140, 179)])
def test_a_name_stays_in_the_photo(box: tuple[float, ...], tmp_path: Path, drawn: list[Figure]) -> None:
    draw(tmp_path / "a.png", [NamedFace(box, "Gerhard", True, 1.0)], size=(180, 180))  # type: ignore[arg-type]
    (place,) = labels(drawn[0])
    photo = drawn[0].axes[0].get_window_extent().extents
    assert photo[0] <= place[0] < place[2] <= photo[2] + 1
    assert photo[1] - 1 <= place[1] < place[3] <= photo[3] + 1
