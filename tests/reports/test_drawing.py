"""A photo with frames and names: legible where it can be, within the photo always, whatever the names are."""

import numpy as np
import pytest
from PIL import Image

from facecnn.reports.drawing import PERSON_COLOUR, STRANGER_COLOUR, NamedFace, draw_faces, letters_for

GREY = 90


def pixels(
    size: tuple[int, int], *faces: NamedFace, letters: float = 14, people: tuple[str, ...] = ("Ann",)
) -> np.ndarray:
    photo = Image.new("L", size, GREY)
    drawn = draw_faces(photo, faces, letters_for(people), letters)
    assert drawn.size == size
    assert photo.getextrema() == (GREY, GREY), "the photo itself was drawn on"
    return np.asarray(drawn)


def coloured(picture: np.ndarray, colour: str) -> np.ndarray:
    return np.asarray((picture == tuple(bytes.fromhex(colour[1:]))).all(axis=2))


def width_of_label(picture: np.ndarray, row: int) -> int:
    columns = np.flatnonzero((picture[row - 6 : row] != GREY).any(axis=(0, 2)))
    return int(columns[-1] - columns[0]) if len(columns) else 0


def test_a_label_says_who_and_how_sure() -> None:
    """More text, a wider label: a number, a longer name, and for a stranger whom else it is like."""
    box = (50.0, 100.0, 90.0, 150.0)

    def width(*arguments: object) -> int:
        return width_of_label(pixels((400, 300), NamedFace(box, *arguments), people=("Ann", "Annabella")), 100)  # type: ignore[arg-type]

    assert width("Ann", True, 0.9) < width("Ann", True, 0.9, None, 3) < width("Annabella", True, 0.9, None, 3)
    assert (
        width("unknown", False, 0.9) < width("unknown", False, 0.9, "Ann") < width("unknown", False, 0.9, "Annabella")
    )
    assert width("Ann", True, 0.9994) == width("Ann", True, 1.0) == width("Ann", True, 0.88), "never 100.0 %"


def test_colours_tell_people_from_strangers() -> None:
    known, unknown = (
        NamedFace((20, 60, 60, 110), "Ann", True, 0.9),
        NamedFace((220, 60, 260, 110), "unknown", False, 0.9),
    )
    picture = pixels((400, 200), known, unknown)
    assert coloured(picture, PERSON_COLOUR)[:, :200].sum() > 500 > coloured(picture, PERSON_COLOUR)[:, 200:].sum() == 0
    assert (
        coloured(picture, STRANGER_COLOUR)[:, 200:].sum() > 500 > coloured(picture, STRANGER_COLOUR)[:, :200].sum() == 0
    )


def test_letters_get_smaller_where_that_keeps_faces_free() -> None:
    """Between rows of faces as near as these there is room for small letters only."""
    faces = [NamedFace((x, y, x + 60, y + 60), "Ann", True, 0.9) for y in (18, 96, 174) for x in (4, 72, 140)]
    picture = pixels((206, 252), *faces, letters=14)
    for face in faces:
        left, top, right, bottom = map(int, face.box)
        assert (picture[top + 5 : bottom - 5, left + 5 : right - 5] == GREY).all(), "a label lies on a face"


@pytest.mark.parametrize("size", [(150, 1500), (1500, 60)])
def test_a_label_fits_into_a_narrow_photo(size: tuple[int, int]) -> None:
    """Whole, with its ground around it: letters are as small as that takes."""
    picture = pixels(size, NamedFace((20, 20, 50, 45), "A long name, this", True, 0.9), letters=0.016 * 1500)
    label = coloured(picture, PERSON_COLOUR) | (picture > 180).all(axis=2)
    rows, columns = np.flatnonzero(label.any(axis=1)), np.flatnonzero(label.any(axis=0))
    white = np.argwhere((picture > 180).all(axis=2))
    assert len(white) > 50
    assert columns[0] < white[:, 1].min() < white[:, 1].max() < columns[-1]
    assert rows[0] < white[:, 0].min() < white[:, 0].max() < rows[-1]


@pytest.mark.parametrize("size", [(8, 8), (2000, 12), (12, 2000), (300, 300)])
@pytest.mark.parametrize(
    "box", [(-50.0, -40.0, 40.0, 5.0), (2.0, 3.0, 6.0, 7.0), (700.0, 600.0, 1200.0, 1100.0), (5, 5, 5, 5)]
)
def test_faces_anywhere_in_photos_of_any_shape(size: tuple[int, int], box: tuple[float, float, float, float]) -> None:
    pixels(size, NamedFace(box, "Ann", True, 0.9))


@pytest.mark.parametrize(
    "name",
    [
        "имя",
        "田中さん",
        "สมชาย",
        "a\nb",
        "\x1b[31m",
        "\ud800",
        "x" * 300,
        "שרה לוי",
        "محمد",
        "\U000e0001\U000f0000",
        "",
    ],
    ids=ascii,
)
def test_any_name_can_be_drawn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    face = NamedFace((50, 60, 90, 110), name, True, 0.9)
    for raqm in (True, False):
        monkeypatch.setattr("facecnn.reports.drawing.features.check", lambda feature, raqm=raqm: raqm)
        picture = pixels((400, 200), face, people=("Ann", name))
        assert coloured(picture, PERSON_COLOUR).sum() > 500
        assert (picture > 180).all(axis=2).sum() > 20, "no letters"


def test_without_a_shaping_library_what_is_written_from_right_to_left_is_spelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("facecnn.reports.drawing.features.check", lambda feature: False)
    assert letters_for(["שרה", "Zoë"])("שרה").isascii()
    assert letters_for(["שרה", "Zoë"])("Zoë") == "Zoë"


def test_each_letter_is_drawn_with_a_font_that_has_it() -> None:
    """Of a name that needs two fonts, where this machine has a second one."""
    spell = letters_for(["Ann 李"])
    label = spell("Ann 李")
    pieces = spell.pieces(label)
    assert "".join(text for text, _ in pieces) == label
    assert pieces[0][1].name == "DejaVuSans.ttf"
    assert all(file.is_file() for _, file in pieces)
    assert (len(pieces) > 1) == (not spell.changes("李"))
