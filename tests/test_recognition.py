"""A trained model's answers: names, confidences, strangers, and models that can't be used."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecnn.body.embedder import Embedder
from facecnn.body.folding import shapes
from facecnn.errors import CheckpointError
from facecnn.kernels import reference
from facecnn.learning import scores
from facecnn.learning.calibration import Calibration
from facecnn.network import size
from facecnn.network.layers import Body, Conv, Dense, Layer, UnitLength
from facecnn.recognition import Recogniser, better_matched_elsewhere

STEEPNESS = 8.0


def recogniser(
    classes: Sequence[str],
    calibration: Calibration | None = None,
    mirror: bool = False,
    shift: float = 0.0,
    upright: bool = False,
) -> Recogniser:
    """A model of one row of pixels, or one column, one for each class: the brighter it is, the likelier the class."""
    outputs = len(classes)
    return Recogniser(
        layers=[Dense(units=outputs)],
        input_shape=(outputs, 1, 1) if upright else (1, outputs, 1),
        normalise="none",
        mirror=mirror,
        classes=classes,
        arrays={
            "model.dense1.weight": (STEEPNESS * np.eye(outputs)).astype(np.float32),
            "model.dense1.bias": np.zeros(outputs, np.float32),
        },
        calibration=calibration or Calibration(),
        backend=reference,
        shift=shift,
    )


def photos(*rows: Sequence[float]) -> tuple[Any, Any]:
    """Pixels from brightnesses 0 to 1, and the rows' numbers."""
    pixels = np.rint(255 * np.array(rows)).astype(np.uint8)[:, None, :, None]
    return pixels, np.arange(len(rows))


def probabilities(*brightness: float, temperature: float = 1.0) -> Any:
    exponentials = np.exp(STEEPNESS / temperature * np.rint(255 * np.array(brightness)) / 255)
    return exponentials / exponentials.sum()


def test_the_likeliest_person_is_named_with_the_probability() -> None:
    model = recogniser(["Ann", "Bob", "Cid"])
    answers = model.answers(*photos([0.2, 0.9, 0.1], [0.5, 0.4, 0.3]), None)
    first, second = model.describe(answers)
    assert (first.label, second.label) == ("Bob", "Ann")
    assert first.probabilities == pytest.approx(
        dict(zip(("Ann", "Bob", "Cid"), probabilities(0.2, 0.9, 0.1), strict=True))
    )
    assert first.confidence == pytest.approx(first.probabilities["Bob"])
    assert first.unknown_score == pytest.approx(1 - first.confidence)
    assert first.unknown_score < second.unknown_score


def test_as_many_photos_are_answered_at_once_as_a_card_can_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three outputs each, so that 14 elements are those of four photos."""
    rows = photos(*np.linspace(0, 1, 15).reshape(5, 3))
    whole = recogniser("ABC")
    monkeypatch.setattr(size, "MOST_ELEMENTS", 14)
    model = recogniser("ABC")
    assert (whole.network.batch_size, model.network.batch_size) == (32, 4)
    np.testing.assert_array_equal(model.answers(*rows, None).probabilities, whole.answers(*rows, None).probabilities)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    brightness=st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=4),
    temperature=st.floats(0.05, 20),
    threshold=st.one_of(st.none(), st.floats(0, 1)),
    strangers=st.booleans(),
)
def test_probabilities_sum_to_one_and_scores_lie_between_0_and_1(
    brightness: list[list[float]], temperature: float, threshold: float | None, strangers: bool
) -> None:
    classes = ["Ann", "Bob", "unknown" if strangers else "Cid"]
    model = recogniser(classes, Calibration(temperature, threshold, 50))
    answers = model.answers(*photos(*brightness), model.threshold("auto"))
    described = model.describe(answers)
    assert len(described) == len(brightness)
    for answer, refused in zip(described, answers.refused, strict=True):
        assert list(answer.probabilities) == [name for name in classes if name != "unknown"]
        assert sum(answer.probabilities.values()) == pytest.approx(1)
        assert 0 <= answer.unknown_score <= 1
        assert 0 <= answer.confidence <= 1
        assert refused == (threshold is not None and answer.unknown_score > threshold)
        if refused:
            assert (answer.label, answer.confidence) == ("unknown", answer.unknown_score)
        else:
            assert answer.probabilities[answer.label] == max(answer.probabilities.values())
            assert answer.confidence == pytest.approx(1 - answer.unknown_score)
            assert answer.confidence <= answer.probabilities[answer.label] + 1e-12


def test_temperature_makes_answers_less_sure_and_leaves_the_names() -> None:
    pixels, rows = photos([0.2, 0.9, 0.1])
    (cool,) = recogniser(["Ann", "Bob", "Cid"]).answers(pixels, rows, None).probabilities
    (warm,) = recogniser(["Ann", "Bob", "Cid"], Calibration(4.0, None, 30)).answers(pixels, rows, None).probabilities
    assert warm == pytest.approx(probabilities(0.2, 0.9, 0.1, temperature=4.0))
    assert warm.argmax() == cool.argmax()
    assert warm.max() < cool.max()


def test_thresholds() -> None:
    model = recogniser(["Ann", "Bob"], Calibration(1.0, 0.25, 40))
    assert model.threshold("auto") == 0.25
    assert model.threshold("off") is None
    assert model.threshold(0.4) == 0.4
    assert model.threshold(0.0) == 0.0
    assert recogniser(["Ann", "Bob"]).threshold("auto") is None


def test_beyond_the_threshold_it_is_a_stranger() -> None:
    model = recogniser(["Ann", "Bob"])
    pixels, rows = photos([1, 0], [0.6, 0.5])
    doubtful = 1 - probabilities(0.6, 0.5).max()
    labels = [answer.label for answer in model.describe(model.answers(pixels, rows, doubtful - 0.01))]
    assert labels == ["Ann", "unknown"]
    labels = [answer.label for answer in model.describe(model.answers(pixels, rows, doubtful + 0.01))]
    assert labels == ["Ann", "Ann"]
    assert [answer.label for answer in model.describe(model.answers(pixels, rows, None))] == ["Ann", "Ann"]
    exact = model.answers(pixels, rows, None).unknown_scores[1]
    assert not model.answers(pixels, rows, float(exact)).refused[1], "at the threshold it is still known"


def test_the_output_of_strangers_raises_the_score_and_is_no_person() -> None:
    model = recogniser(["Ann", "Bob", "unknown"], Calibration(1.0, 0.5, 0))
    assert model.people == ("Ann", "Bob")
    answers = model.answers(*photos([0.1, 0.3, 0.9], [0.9, 0.3, 0.1]), model.threshold("auto"))
    stranger, ann = model.describe(answers)
    all_outputs = probabilities(0.1, 0.3, 0.9)
    assert stranger.label == "unknown"
    assert stranger.unknown_score == stranger.confidence == pytest.approx(1 - all_outputs[1])
    assert stranger.probabilities == pytest.approx({"Ann": all_outputs[0] / all_outputs[:2].sum(),
                                                    "Bob": all_outputs[1] / all_outputs[:2].sum()})  # fmt: skip
    assert (ann.label, ann.confidence) == ("Ann", pytest.approx(probabilities(0.9, 0.3, 0.1)[0]))
    assert ann.confidence < ann.probabilities["Ann"]
    # Without a threshold the likeliest person is named, however strange.
    assert model.describe(model.answers(*photos([0.1, 0.3, 0.9]), None))[0].label == "Bob"


def test_one_person_and_strangers() -> None:
    model = recogniser(["Ann", "unknown"], Calibration(1.0, 0.5, 0))
    ann, stranger = model.describe(model.answers(*photos([0.8, 0.2], [0.2, 0.8]), model.threshold("auto")))
    assert (ann.label, stranger.label) == ("Ann", "unknown")
    assert ann.probabilities == stranger.probabilities == {"Ann": 1.0}
    assert ann.confidence == pytest.approx(probabilities(0.8, 0.2)[0]), "of all outputs, strangers included"
    assert ann.unknown_score == pytest.approx(probabilities(0.8, 0.2)[1])
    assert stranger.unknown_score == pytest.approx(probabilities(0.2, 0.8)[1])


def test_the_bias_makes_strangers_rarer_and_leaves_the_people_as_they_are() -> None:
    pixels, rows = photos([0.6, 0.3, 0.7], [0.1, 0.2, 1.0])
    plain = recogniser(["Ann", "Bob", "unknown"], Calibration(2.0, 0.5, 40))
    biased = recogniser(["Ann", "Bob", "unknown"], Calibration(2.0, 0.5, 40, stranger_bias=2.0))
    before, after = plain.answers(pixels, rows, 0.5), biased.answers(pixels, rows, 0.5)
    assert after.probabilities == pytest.approx(before.probabilities)
    assert (after.unknown_scores < before.unknown_scores).all()
    assert before.refused.tolist() == [True, True]
    assert after.refused.tolist() == [False, True]
    weights = probabilities(0.6, 0.3, 0.7, temperature=2.0) * np.exp([0, 0, -2.0])
    assert after.confidences[0] == pytest.approx(weights[0] / weights.sum())


def test_no_answer_claims_more_than_the_calibration_allows() -> None:
    model = recogniser(["Ann", "Bob"], Calibration(1.0, None, 8, highest_confidence=0.9))
    sure, unsure = model.describe(model.answers(*photos([1, 0], [0.6, 0.5]), None))
    assert (sure.label, sure.confidence) == ("Ann", 0.9)
    assert sure.probabilities["Ann"] == pytest.approx(probabilities(1, 0)[0]), "of the people's, not of all"
    assert unsure.confidence == pytest.approx(probabilities(0.6, 0.5)[0])
    assert unsure.confidence < 0.9
    assert sure.unknown_score == pytest.approx(probabilities(1, 0)[1]), "strangers are refused by this, so it stays"


def test_mirroring_models_answer_alike_for_a_photo_and_its_mirror_image() -> None:
    model = recogniser(["Ann", "Bob", "Cid"], mirror=True)
    answers = model.answers(*photos([0.9, 0.3, 0.1], [0.1, 0.3, 0.9]), None).probabilities
    assert answers[0] == pytest.approx(answers[1])
    assert answers[0] == pytest.approx(probabilities(0.5, 0.3, 0.5), rel=0.02)


@pytest.mark.parametrize("upright", [False, True], ids=["a row", "a column"])
def test_answers_are_the_mean_over_places_where_training_moved_photos(upright: bool) -> None:
    model = recogniser(["Ann", "Bob", "Cid"], shift=1 / 3, upright=upright)  # of three pixels: one pixel either way
    bright = np.array([0.2, 0.9, 0.1])
    pixels, rows = photos(bright.tolist())
    (answer,) = model.answers(pixels.swapaxes(1, 2) if upright else pixels, rows, None).probabilities
    back, forth = bright[[1, 2, 2]], bright[[0, 0, 1]]  # the edge repeated
    # One row of pixels moved up or down is the same row, and so is a column moved sideways.
    assert answer == pytest.approx(probabilities(*(3 * bright + back + forth) / 5), rel=0.02)
    assert answer.max() < probabilities(*bright).max()


def test_models_know_whether_they_were_shown_strangers() -> None:
    assert recogniser(["Ann", "unknown"]).knows_strangers
    assert not recogniser(["Ann", "Bob"]).knows_strangers


def test_in_a_photo_the_best_match_alone_keeps_a_name() -> None:
    model = recogniser(["Ann", "Bob", "unknown"], Calibration(threshold=0.5))
    ann, surer_ann, bob, stranger = [0.8, 0.1, 0.3], [0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.6, 0.1, 0.9]
    pixels, rows = photos(ann, surer_ann, bob, stranger, ann, stranger, surer_ann)
    photo = np.array([0, 0, 0, 0, 1, 1, 2])
    answers = model.answers(pixels, rows, model.threshold("auto"), photo)
    described = model.describe(answers)
    assert [answer.label for answer in described] == ["unknown", "Ann", "Bob", "unknown", "Ann", "unknown", "Ann"]
    assert [answer.also_like for answer in described] == ["Ann", *[None] * 6], "only of those it was taken from"
    assert answers.given_elsewhere.tolist() == [True, *[False] * 6]
    assert answers.refused.tolist() == [True, False, False, True, False, True, False]
    assert described[0].confidence == described[0].unknown_score < 0.5, "as of any other unknown"
    # Nobody is refused as a stranger, but the stranger, too, is less like Ann than the one who keeps her name.
    everybody = model.describe(model.answers(pixels, rows, None, photo))
    assert [answer.label for answer in everybody] == ["unknown", "Ann", "Bob", "unknown", "Ann", "unknown", "Ann"]
    assert [answer.also_like for answer in everybody] == ["Ann", None, None, "Ann", None, "Ann", None]
    # Each a photo of its own: everybody is named.
    assert [answer.label for answer in model.describe(model.answers(pixels, rows, None))].count("Ann") == 6


def test_of_equal_matches_the_first_face_keeps_the_name() -> None:
    model = recogniser(["Ann", "Bob"])
    pixels, rows = photos(*[[0.9, 0.1]] * 40)
    described = model.describe(model.answers(pixels, rows, None, np.repeat([0, 1], 20)))
    assert [answer.label for answer in described] == (["Ann"] + ["unknown"] * 19) * 2


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 2), st.sampled_from([0.1, 0.2, 0.3]), st.booleans()), max_size=14
    )
)
def test_whoever_loses_a_name_has_a_better_match_in_the_photo(faces: list[tuple[int, int, float, bool]]) -> None:
    faces.sort(key=lambda face: face[0])
    photo, names, scores, refused = (np.array([face[column] for face in faces]) for column in range(4))
    lose = better_matched_elsewhere(names.astype(int), scores, refused.astype(bool), photo.astype(int)).tolist()
    kept: dict[tuple[int, int], list[int]] = {}
    for number, (of, name, _, is_refused) in enumerate(faces):
        if not is_refused:
            kept.setdefault((of, name), []).append(number)
    best = {min(numbers, key=lambda number: (faces[number][2], number)) for numbers in kept.values()}
    assert lose == [not face[3] and number not in best for number, face in enumerate(faces)]


def test_only_the_rows_that_are_asked_for_are_answered_in_their_order() -> None:
    model = recogniser(["Ann", "Bob"])
    pixels, _ = photos([1, 0], [0, 1], [0.5, 0.5])
    answers = model.answers(pixels, np.array([1, 0, 1]), None)
    assert answers.probabilities.argmax(axis=1).tolist() == [1, 0, 1]
    nothing = model.answers(pixels, np.zeros(0, int), None)
    assert nothing.probabilities.shape == (0, 2)
    assert model.describe(nothing) == []


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({}, r"dense1\.weight"),
        ({"model.dense1.weight": np.zeros((2, 4), np.float32)}, r"dense1\.bias"),
        ({"model.dense1.weight": np.zeros((2, 5), np.float32), "model.dense1.bias": np.zeros(2, np.float32)}, "shape"),
        ({"model.dense1.weight": np.zeros((4, 2), np.float32), "model.dense1.bias": np.zeros(2, np.float32)}, "shape"),
        ({"model.dense1.weight": np.zeros(8, np.float32), "model.dense1.bias": np.zeros(2, np.float32)}, "shape"),
        ({"model.dense1.weight": np.zeros((2, 4), np.float32), "model.dense1.bias": np.float32(0)}, "shape"),
    ],
    ids=["none", "no-bias", "larger", "transposed", "flat", "scalar"],
)
def test_arrays_that_do_not_fit_the_network_are_refused(arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=f"weights don't fit its network.*{said}.*train it anew"):
        build([Dense(units=2)], (2, 2, 1), ["Ann", "Bob"], arrays)


def test_layers_that_do_not_fit_the_photos_are_refused() -> None:
    with pytest.raises(CheckpointError, match="a kernel of 3x3 does not fit"):
        build([Conv(kernels=1), Dense(units=2)], (2, 2, 1), ["Ann", "Bob"], {})
    with pytest.raises(CheckpointError, match="end with dense or neuron"):
        build([Conv(kernels=1, size=1)], (2, 2, 1), ["Ann", "Bob"], {})


def test_another_number_of_names_than_outputs_is_refused() -> None:
    arrays = {"model.dense1.weight": np.zeros((2, 4), np.float32), "model.dense1.bias": np.zeros(2, np.float32)}
    with pytest.raises(CheckpointError, match="2 outputs for 3 names"):
        build([Dense(units=2)], (2, 2, 1), ["Ann", "Bob", "Cid"], arrays)


def test_a_checkpoints_other_arrays_do_not_matter() -> None:
    arrays = {"model.dense1.weight": np.zeros((2, 4), np.float32), "model.dense1.bias": np.ones(2, np.float32)}
    others = {"training.dense1.bias": np.zeros(2, np.float32), "mean.dense1.bias": np.full(2, 7, np.float32)}
    model = build([Dense(units=2)], (2, 2, 1), ["Ann", "Bob"], others | arrays | others)
    assert (model.network.weights.by_stage["dense1"]["bias"] == 1).all()


def build(
    layers: Sequence[Layer], shape: tuple[int, ...], classes: Sequence[str], arrays: dict[str, Any]
) -> Recogniser:
    return Recogniser(
        layers=layers, input_shape=shape, normalise="none", mirror=False, classes=classes, arrays=arrays,
        calibration=Calibration(), backend=reference,
    )  # fmt: skip


def test_a_model_of_class_means_answers_by_embeddings_of_its_own_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no other one, and the embeddings that a body has kept are its own."""
    embedding = np.zeros((1, 128), np.float32)
    embedding[0, :2] = 3, 4
    monkeypatch.setattr("facecnn.body.embedder.body_arrays", lambda: None)
    monkeypatch.setattr(Embedder, "embed", lambda *_, **__: embedding)
    weight = np.zeros((3, 128), np.float32)
    weight[0, 0] = weight[1, 1] = 10
    arrays = {f"model.{name}": np.zeros(shape, np.float32) for name, shape in shapes().items()}
    model = Recogniser(
        layers=[Body(), UnitLength(), Dense(units=3)],
        input_shape=(150, 150, 3),
        normalise="none",
        mirror=False,
        classes=["Ann", "Bob", "unknown"],
        arrays={**arrays, "model.dense2.weight": weight, "model.dense2.bias": np.array([1, 0, 7], np.float32)},
        calibration=Calibration(),
        backend=reference,
        by_embeddings=True,
    )
    found = np.exp(model.log_probabilities(np.zeros((1, 150, 150, 3), np.uint8), np.array([0])))[0]
    expected = np.exp([7, 8, 7])  # 10 times 0.6, and 1; 10 times 0.8; strangers' 7
    assert found == pytest.approx(expected / expected.sum(), rel=1e-6)


def many(people: int) -> Recogniser:
    return recogniser([f"p{number:04}" for number in range(people)])


def test_of_many_people_a_face_has_the_likeliest_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, rows = photos(*np.random.default_rng(5).random((6, 12)))
    everybody = many(12).describe(many(12).answers(pixels, rows, None))
    monkeypatch.setattr(scores, "MOST_PEOPLE", 11)
    monkeypatch.setattr(scores, "LISTED", 4)
    for listed, whole in zip(many(12).describe(many(12).answers(pixels, rows, None)), everybody, strict=True):
        likeliest = sorted(whole.probabilities, key=lambda name: -whole.probabilities[name])[:4]
        assert listed.probabilities == {name: whole.probabilities[name] for name in likeliest}
        assert list(listed.probabilities) == likeliest
        assert listed.others == pytest.approx(1 - sum(listed.probabilities.values()))
        assert (listed.label, listed.confidence, listed.unknown_score) == (
            whole.label, whole.confidence, whole.unknown_score
        )  # fmt: skip
        assert "others" not in whole.as_dict()
        assert listed.as_dict()["others"] == listed.others


def test_answers_about_many_people_never_have_a_number_for_each_photo_and_person(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    people, number = 300, 2000
    pixels = np.random.default_rng(6).integers(0, 256, (number, 1, people, 1), np.uint8)
    model, rows, labels = many(people), np.arange(number), np.arange(number) % people
    whole = model.answers(pixels, rows, None, labels=labels)
    monkeypatch.setattr("facecnn.network.inference.MOST_NUMBERS", 32 * people)
    model.answers(pixels, rows[:1], None)  # what is made once
    tracemalloc.start()
    found = model.answers(pixels, rows, None, labels=labels, listed=10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < number * people * 8 / 4
    assert np.array_equal(found.likeliest, whole.likeliest)
    assert found.about_labels is not None
    assert whole.about_labels is not None
    assert np.array_equal(found.about_labels.losses, whole.about_labels.losses)
    own = whole.probabilities[rows, labels]
    assert np.array_equal(found.about_labels.probabilities, own)
