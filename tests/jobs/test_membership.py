"""Adding people to a model of class means, and removing them."""

from pathlib import Path

import numpy as np
import pytest

from facecnn.config import load
from facecnn.jobs.membership import People, rebuilt
from facecnn.jobs.models import ModelFile
from facecnn.learning.class_means import EMBEDDINGS, OWNERS
from facecnn.runs.checkpoint import Checkpoint

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


def test_the_threshold_is_the_models_whoever_is_added() -> None:
    """The formula's would be another one for more people, and others' answers with it."""
    weight, bias = np.zeros((3, 128), np.float32), np.array([2.5, 2.5, 187.25], np.float32)
    arrays = {"model.dense2.weight": weight, "model.dense2.bias": bias, EMBEDDINGS: PEOPLE.embeddings}
    checkpoint = Checkpoint({}, ["bo", "di", "unknown"], arrays | {OWNERS: PEOPLE.owners}, {})
    model = ModelFile(Path("best"), checkpoint, load("pretrained").settings, None, 1, frozenset())
    head = rebuilt(model, PEOPLE.with_more("cy", MORE))
    assert head.bias[-1] == np.float32(187.25)
    assert head.weight.shape == (4, 128)
    assert head.bias[:3] == pytest.approx([200 * 0.0133, 200 * 0.0133 / 2, 200 * 0.0133 / 2])
