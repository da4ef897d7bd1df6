"""Groups of faces: those that the rule gives, whatever the order, the threads or the crowd."""

from itertools import combinations

import numpy as np
import pytest
from numpy.random import Generator

from facecnn.arrays import Float32Array, Int64Array
from facecnn.body import close_pairs
from facecnn.body.grouping import ALONE, group_faces, size_weight_for, threshold_for

DIMENSIONS = 24


def people(counts: list[int], noise: float, seed: int = 0, common: float = 1) -> tuple[Float32Array, Int64Array]:
    """Faces of people, in a random order: each a direction of the person's own, with noise. Returns whose each is.

    The more people have in ``common``, the more alike they are.
    """
    random = np.random.default_rng(seed)
    owner = random.permutation(np.repeat(np.arange(len(counts)), counts))
    centres = random.normal(0, 1, (len(counts), DIMENSIONS)) + common
    faces = centres[owner] + random.normal(0, noise, (len(owner), DIMENSIONS))
    return (faces * random.uniform(0.5, 2, (len(owner), 1))).astype(np.float32), owner


def by_the_rule(faces: Float32Array, threshold: float) -> set[frozenset[int]]:
    """The groups with more than one face, by comparing all pairs of groups before each merge."""
    groups = [[face] for face in range(len(faces))]
    while len(groups) > 1:
        means = [faces[group].astype(np.float64).mean(axis=0) for group in groups]
        scores = {}
        for one, other in combinations(range(len(groups)), 2):
            cosine = means[one] @ means[other] / np.linalg.norm(means[one]) / np.linalg.norm(means[other])
            size = 1 / len(groups[one]) + 1 / len(groups[other]) - 2
            scores[one, other] = cosine + 0.015 * size
        (one, other), best = max(scores.items(), key=lambda item: item[1])
        if best < threshold:
            break
        groups[one] += groups.pop(other)
    return {frozenset(group) for group in groups if len(group) > 1}


def as_sets(group: Int64Array) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(group == number).tolist()) for number in range(group.max(initial=-1) + 1)}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("noise", [0.5, 0.9])
def test_the_groups_are_those_of_the_rule(noise: float, seed: int) -> None:
    faces, _ = people([12, 7, 4, 3, 2, *[1] * 12], noise, seed, common=4)
    for threshold in (0.93, 0.96, 0.985):
        assert as_sets(group_faces(faces, threshold=threshold)) == by_the_rule(faces, threshold)


def test_people_who_are_clearly_apart() -> None:
    faces, owner = people([9, 5, 3, 1, 1, 1], 0.1)
    group = group_faces(faces, threshold=0.95)
    expected = np.where(owner < 3, owner, ALONE)  # largest first
    np.testing.assert_array_equal(group, expected)


def test_of_groups_of_one_size_the_one_with_the_earlier_face_comes_first() -> None:
    faces, owner = people([4, 4, 4], 0.1, seed=3)
    group = group_faces(faces, threshold=0.95)
    order = list(dict.fromkeys(owner.tolist()))
    np.testing.assert_array_equal(group, [order.index(person) for person in owner.tolist()])


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_to_group(count: int) -> None:
    assert group_faces(np.ones((count, DIMENSIONS), np.float32)).tolist() == [ALONE] * count


def test_nobody_is_like_another() -> None:
    assert group_faces(np.eye(5, DIMENSIONS, dtype=np.float32)).tolist() == [ALONE] * 5


def test_of_a_photos_faces_in_one_group_only_the_nearest_stays() -> None:
    faces, owner = people([6, 2], 0.1)
    first, second = np.flatnonzero(owner == 0)[:2].tolist()
    faces[second] += np.float32(0.5) * np.arange(DIMENSIONS, dtype=np.float32) / DIMENSIONS  # less like the others
    photos = np.arange(len(faces))
    photos[second] = photos[first]
    assert group_faces(faces, threshold=0.85)[second] == 0, "without the photos it is one of the group"
    group = group_faces(faces, photos, threshold=0.85)
    assert (group[first], group[second]) == (0, ALONE)
    assert np.count_nonzero(group == 0) == 5
    photos = np.arange(len(faces))
    photos[np.flatnonzero(owner == 1)] = photos[first]
    assert np.count_nonzero(group_faces(faces, photos, threshold=0.95) == 1) == 0, "one that is left is no group"


def test_the_threshold_grows_with_the_faces() -> None:
    assert threshold_for(0) == threshold_for(943) == 0.9375
    assert threshold_for(10_000) == pytest.approx(0.9495)
    assert threshold_for(100_000) == pytest.approx(0.9615)


@pytest.mark.parametrize("faces", [10, 1000, 30_000, 100_000])
def test_what_is_asked_of_two_large_groups_does_not_grow(faces: int) -> None:
    assert threshold_for(faces) + 2 * size_weight_for(faces) == pytest.approx(0.9675)


def test_a_person_with_many_photos_stays_together_among_many_faces() -> None:
    """Two halves of which each is many photos of one kind, in a crowd of others."""
    random = np.random.default_rng(0)
    kinds = random.normal(0, 1, DIMENSIONS) + np.array([0.115, -0.115])[:, None] * random.normal(0, 1, DIMENSIONS)
    halves = np.repeat(kinds, 20, axis=0)
    cosine = kinds[0] @ kinds[1] / np.linalg.norm(kinds[0]) / np.linalg.norm(kinds[1])
    assert 0.969 < cosine < 0.974
    others = random.normal(0, 1, (4000, DIMENSIONS))
    faces = np.concatenate([halves + random.normal(0, 0.005, halves.shape), others]).astype(np.float32)
    assert set(group_faces(faces)[:40].tolist()) == {0}


def test_nothing_depends_on_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(close_pairs, "_ROWS", 16)
    monkeypatch.setattr(close_pairs, "_COLUMNS", 48)
    faces, _ = people([40, 20, 10, *[1] * 30], 0.9, common=4)
    results = [group_faces(faces, threshold=0.96, threads=threads) for threads in (1, 1, 3)]
    assert all(np.array_equal(results[0], other) for other in results)
    assert as_sets(results[0]) == by_the_rule(faces, 0.96)


def jittered(random: Generator, count: int) -> Float32Array:
    return np.asarray(1 + random.normal(0, 0.01, (count, DIMENSIONS)), np.float32)


def test_a_crowd_of_near_copies_is_one_group() -> None:
    random = np.random.default_rng(0)
    for faces in (jittered(random, 3000), np.ones((3000, DIMENSIONS), np.float32)):
        assert set(group_faces(faces).tolist()) == {0}


def test_crowds_of_one_person_come_together() -> None:
    """The nearest faces of each are all in its own crowd, so that only the means of the crowds meet."""
    random = np.random.default_rng(0)
    size = close_pairs.MOST + 8
    photos = 1 + random.normal(0, 0.1, (3, DIMENSIONS))
    stranger = random.normal(0, 1, DIMENSIONS)
    centres = np.repeat([*photos, stranger], size, axis=0)
    faces = (centres + random.normal(0, 0.001, centres.shape)).astype(np.float32)
    np.testing.assert_array_equal(group_faces(faces), np.repeat([0, 0, 0, 1], size))


def test_progress() -> None:
    told: list[tuple[int, int]] = []
    group_faces(people([5, 5], 0.1)[0], progress=lambda done, total: told.append((done, total)))
    assert told == [(10, 10)]
