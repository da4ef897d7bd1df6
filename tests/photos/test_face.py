from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from facecnn.photos.face import Face, as_json, from_json, main_first, notes_of

from .finders import face_at

COORDINATE = st.floats(-1e4, 1e4)
POINT = st.tuples(COORDINATE, COORDINATE)
FACES = st.lists(
    st.builds(
        Face,
        st.tuples(*[COORDINATE] * 4),
        st.tuples(*[POINT] * 5),
        st.floats(0, 1),
        st.sampled_from([0, 90, 180, 270]),
    ),
    max_size=4,
)


@given(FACES)
def test_faces_survive_being_written(faces: list[Face]) -> None:
    assert from_json(as_json(faces)) == tuple(faces)


def test_of_equally_large_faces_the_one_nearer_the_middle_is_the_main_one() -> None:
    beside, middle = face_at(30, 60, 20), face_at(95, 95, 20)
    assert main_first([beside, middle], 200, 200, [1, 1]) == [middle, beside]


def test_in_a_wide_photo_the_middle_is_half_way_down() -> None:
    middle, below = face_at(150, 47, 10), face_at(150, 85, 10)
    assert main_first([below, middle], 300, 100, [1, 1]) == [middle, below]


def test_a_face_is_as_large_as_the_longer_side_of_its_box() -> None:
    face = face_at(50, 50, 10)
    assert replace(face, box=(10, 20, 40, 70)).side == 50
    assert replace(face, box=(10, 20, 70, 50)).side == 60


def test_a_slightly_larger_face_at_the_edge_is_not_the_main_one() -> None:
    beside, middle = face_at(30, 60, 25), face_at(95, 95, 20)
    assert main_first([beside, middle], 200, 200, [1, 1])[0] == middle


def test_a_tiny_face_in_the_background_does_not_win_by_being_in_the_middle() -> None:
    portrait, passer_by = face_at(60, 70, 40), face_at(100, 101, 4)
    assert main_first([passer_by, portrait], 200, 200, [1, 1])[0] == portrait


def test_of_two_alike_the_sharper_face_is_the_main_one() -> None:
    left, right = face_at(60, 100, 20), face_at(140, 100, 20)
    assert main_first([left, right], 200, 200, [0.1, 0.4])[0] == right
    assert main_first([left, right], 200, 200, [0.4, 0.1])[0] == left


def test_a_picture_without_any_edge_has_a_main_face_too() -> None:
    faces = [face_at(60, 100, 20), face_at(60, 100, 20)]
    assert main_first(faces, 200, 200, [0, 0]) == faces


def test_notes_tell_of_several_faces_and_of_turned_photos() -> None:
    one = face_at(50, 50, 10)
    turned = Face(one.box, one.landmarks, 0.9, turned=90)
    assert notes_of([one]) == ()
    assert notes_of([one, one]) == ("2 faces, the most prominent is the main one",)
    assert notes_of([turned]) == ("turned by 90 degrees to find the face",)
