"""Adding people to a model of class means, and removing them."""

import numpy as np

from facecnn.jobs.membership import People

PEOPLE = People(["bo", "di"], np.arange(3 * 128, dtype=np.float32).reshape(3, 128), np.array([1, 0, 1], np.int32))
MORE = np.full((2, 128), 7, np.float32)


def owned(people: People) -> dict[str, list[float]]:
    """The first number of each embedding, by its person."""
    return {name: people.embeddings[people.owners == number, 0].tolist() for number, name in enumerate(people.names)}


def test_a_new_person_takes_their_place_in_the_order() -> None:
    people = PEOPLE.with_more("cy", MORE)
    assert people.names == ["bo", "cy", "di"]
    assert owned(people) == {"bo": [128], "cy": [7, 7], "di": [0, 256]}


def test_more_photos_of_a_person() -> None:
    assert owned(PEOPLE.with_more("bo", MORE)) == {"bo": [128, 7, 7], "di": [0, 256]}


def test_without_a_person() -> None:
    people = PEOPLE.with_more("cy", MORE).without("bo")
    assert people.names == ["cy", "di"]
    assert owned(people) == {"cy": [7, 7], "di": [0, 256]}
    assert people.owners.dtype == np.int32
