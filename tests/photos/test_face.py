from hypothesis import given
from hypothesis import strategies as st

from facecnn.photos.face import Face, as_json, from_json, nearest_the_middle, notes_of

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


def test_the_face_nearest_the_middle_comes_first_whatever_its_size() -> None:
    beside, middle = face_at(30, 60, 30), face_at(95, 95, 20)
    assert nearest_the_middle([beside, middle], 200, 200) == [middle, beside]


def test_a_tiny_face_in_the_background_does_not_win_by_a_few_pixels() -> None:
    portrait, passer_by = face_at(110, 90, 40), face_at(100, 101, 4)
    assert nearest_the_middle([passer_by, portrait], 200, 200)[0] == portrait


def test_notes_tell_of_several_faces_and_of_turned_photos() -> None:
    one = face_at(50, 50, 10)
    turned = Face(one.box, one.landmarks, 0.9, turned=90)
    assert notes_of([one]) == ()
    assert notes_of([one, one]) == ("2 faces, the one nearest the middle is the main one",)
    assert notes_of([turned]) == ("turned by 90 degrees to find the face",)
