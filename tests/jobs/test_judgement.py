"""How answers to photos with several faces are counted, by the rule that scripts rely on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facecnn.jobs.judgement import judge, verdicts, wilson_interval
from facecnn.jobs.run_pictures import plot_of_judged
from facecnn.kernels import reference
from facecnn.learning import scores
from facecnn.learning.calibration import Calibration
from facecnn.network.layers import Dense
from facecnn.recognition import Answers, Recogniser
from facecnn.reports.facts import confused_pairs

PEOPLE = ("Ann", "Bob", "Cid")
STRANGER = 3
THRESHOLD = 0.5


@pytest.fixture
def recogniser() -> Recogniser:
    return Recogniser(
        layers=[Dense(units=4)], input_shape=(1, 1, 1), normalise="none", mirror=False, classes=(*PEOPLE, "unknown"),
        arrays={"model.dense1.weight": np.zeros((4, 1), np.float32), "model.dense1.bias": np.zeros(4, np.float32)},
        calibration=Calibration(threshold=THRESHOLD), backend=reference,
    )  # fmt: skip


def answered(recogniser: Recogniser, photos: list[list[tuple[str, float]]], labels: Any) -> Answers:
    """Answers to photos of people with these labels, of each face the likeliest person and the unknown-score."""
    faces = [face for photo in photos for face in photo]
    logs = np.full((len(faces), 4), -np.inf)
    for row, (name, score) in zip(logs, faces, strict=True):
        rest = np.array([score * share for share in (0.1, 0.1, 0.8)])
        row[[index for index in range(4) if index != PEOPLE.index(name)]] = np.log(rest)
        row[PEOPLE.index(name)] = np.log1p(-score)
    numbers = np.repeat(np.arange(len(photos)), [len(photo) for photo in photos])
    return recogniser.answers_from(logs, THRESHOLD, numbers, labels=labels[numbers])


PHOTOS: list[tuple[str, list[tuple[str, float]], str, int]] = [
    # who the photo shows; likeliest person and unknown-score of each face; what it counts as; by which face
    ("Ann", [("Ann", 0.1)], "Ann", 0),
    ("Ann", [("Bob", 0.2)], "Bob", 0),
    ("Bob", [("Bob", 0.8)], "refused", 0),
    ("Ann", [("Bob", 0.05), ("Ann", 0.4)], "Ann", 1),  # among the names given, though another matches better
    ("Ann", [("Ann", 0.4), ("Ann", 0.3)], "Ann", 1),  # twice, of which one keeps the name
    ("Bob", [("Ann", 0.3), ("Cid", 0.1), ("Bob", 0.9)], "Cid", 1),  # the best match of those given
    ("Cid", [("Cid", 0.6), ("Cid", 0.55)], "refused", 0),  # the main face, as nobody is named
    ("stranger", [("Ann", 0.7)], "refused", 0),
    ("stranger", [("Ann", 0.9), ("Cid", 0.4), ("Bob", 0.2)], "Bob", 2),  # named, as one face is
    ("stranger", [("Ann", 0.9), ("Cid", 0.8)], "refused", 0),
]
LABELS = np.array([STRANGER if truth == "stranger" else PEOPLE.index(truth) for truth, *_ in PHOTOS])


def test_a_photo_with_several_faces_counts_by_the_names_given_in_it(recogniser: Recogniser) -> None:
    found = verdicts(recogniser, answered(recogniser, [faces for _, faces, *_ in PHOTOS], LABELS), LABELS)
    assert [(*PEOPLE, "refused")[number] for number in found.named] == [counts for *_, counts, _ in PHOTOS]
    assert (found.face - found.first).tolist() == [face for *_, face in PHOTOS]
    assert found.faces.tolist() == [len(faces) for _, faces, *_ in PHOTOS]


def figures(recogniser: Recogniser, photos: list[Any], labels: Any) -> dict[str, Any]:
    return judge(recogniser, answered(recogniser, photos, labels), labels, THRESHOLD)


def test_counts_are_of_all_photos_and_those_with_several_faces_apart(recogniser: Recogniser) -> None:
    judged = figures(recogniser, [faces for _, faces, *_ in PHOTOS], LABELS)
    assert judged["known"] == {"photos": 7, "named_right": 3, "named_wrong": 2, "refused": 2}
    assert judged["several"] == {"photos": 4, "named_right": 2, "named_wrong": 1, "refused": 1}
    assert judged["accuracy"] == 3 / 7
    assert judged["confusion"] == [[3, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]]
    unknown = judged["unknown"]
    assert (unknown["photos"], unknown["several"], unknown["named"], unknown["refused"]) == (3, 2, 1, 2)
    assert unknown["named_as"] == [0, 1, 0]
    # If nobody were refused, Bob's third face would have his name, too, and one of Cid's two that of Cid.
    assert judged["closed_set_accuracy"] == 6 / 7


def test_what_a_confidence_is_worth_is_told_by_photos_with_one_face(recogniser: Recogniser) -> None:
    photos = [faces for _, faces, *_ in PHOTOS]
    alone = [number for number, faces in enumerate(photos) if len(faces) == 1]
    together = figures(recogniser, photos, LABELS)
    apart = figures(recogniser, [photos[number] for number in alone], LABELS[alone])
    for key in ("log_loss", "expected_calibration_error"):
        assert together[key] == apart[key] is not None
    # Of the two that are named, Ann's with a confidence of 0.9 is right, and that taken for Bob's with 0.8 isn't.
    assert together["expected_calibration_error"] == pytest.approx((0.1 + 0.8) / 2)
    assert together["unknown"]["auroc"] == apart["unknown"]["auroc"] == 2 / 3
    assert apart["several"] == {"photos": 0, "named_right": 0, "named_wrong": 0, "refused": 0}
    assert apart["unknown"]["several"] == 0


def test_where_all_show_several_faces_nothing_is_made_up(recogniser: Recogniser) -> None:
    judged = figures(recogniser, [[("Ann", 0.1), ("Bob", 0.2)], [("Cid", 0.1), ("Bob", 0.2)]], np.array([0, STRANGER]))
    assert (judged["accuracy"], judged["closed_set_accuracy"]) == (1, 1)
    assert judged["log_loss"] is judged["expected_calibration_error"] is judged["unknown"]["auroc"] is None


def test_people_are_alike_only_by_photos_in_which_it_is_known_who_is_who(recogniser: Recogniser) -> None:
    swapped = [[("Bob", 0.1)], [("Ann", 0.1)], [("Ann", 0.1)], [("Bob", 0.1)]] * 4
    labels = np.array([0, 0, 1, 1] * 4)
    assert figures(recogniser, swapped, labels)["alike"] == [["Ann", "Bob"]]
    beside = [[*faces, ("Cid", 0.1)] for faces in swapped]
    assert figures(recogniser, beside, labels)["alike"] == []


def test_the_confusion_matrix_is_drawn_in_the_order_in_which_names_are_read() -> None:
    judged = {
        "classes": ["s1", "s10", "s2"],
        "confusion": [[10, 1, 2, 3], [4, 11, 5, 6], [7, 8, 12, 9]],
        "unknown": {"named_as": [13, 14, 15], "refused": 16},
    }
    _, counts, rows, columns, title = plot_of_judged(Path("confusion.png"), judged, "held-out").args
    assert rows == ["s1", "s2", "s10", "strangers"]
    assert columns == ["s1", "s2", "s10", "refused"]
    assert counts.tolist() == [[10, 2, 1, 3], [7, 12, 8, 9], [4, 5, 11, 6], [13, 15, 14, 16]]
    assert title == "136 held-out photos"


def test_of_many_people_only_the_answers_that_were_given_are_recorded(
    recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [faces for _, faces, *_ in PHOTOS]
    matrix = figures(recogniser, photos, LABELS)
    monkeypatch.setattr(scores, "MOST_PEOPLE", 2)
    pairs = figures(recogniser, photos, LABELS)
    # Ann's 4: 3 named Ann, 1 Bob. Bob's 2: 1 named Cid, 1 refused. Cid's 1 refused.
    assert pairs["confusion"] == {"row": [0, 0, 1, 1, 2], "column": [0, 1, 2, 3, 3], "photos": [3, 1, 1, 1, 1]}
    assert {**pairs, "confusion": None} == {**matrix, "confusion": None}
    assert confused_pairs(pairs) == confused_pairs(matrix)


def test_of_too_many_people_those_who_are_confused_most_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facecnn.jobs.run_pictures.CONFUSED_PEOPLE", 2)
    judged = {
        "classes": ["a", "b", "c", "d"],
        "confusion": [[9, 0, 1, 0, 0], [0, 9, 0, 0, 1], [1, 0, 5, 4, 2], [0, 0, 3, 7, 1]],
        "unknown": {"named_as": [1, 2, 3, 4], "refused": 5},
    }
    _, counts, rows, columns, title = plot_of_judged(Path("confusion.png"), judged, "held-out", most=3).args
    assert (rows, columns) == (["c", "d", "strangers"], ["c", "d", "others", "refused"])
    assert counts.tolist() == [[5, 4, 1, 2], [3, 7, 0, 1], [3, 4, 3, 5]]
    assert title == "38 held-out photos, of the 2 of 4 people who are confused most often"


def test_the_interval_is_wilsons() -> None:
    """Worked by hand: 8 of 10, (0.8 + 3.8415 / 20 -+ 1.96 sqrt(0.016 + 0.0096)) / 1.38415."""
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
