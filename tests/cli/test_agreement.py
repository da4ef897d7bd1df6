"""Whatever tells how good a model is tells the same, and it is what ``predict`` answers."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facecnn.photos.preparation import EYE_HEIGHT, PhotoSettings
from facecnn.runs.facts import UNKNOWN
from photos.finders import KnownFaces, face_at

from .running import Facecnn

SIDE = 40
"""Pixels of a face's square."""


def write_album(folder: Path, people: int, photos: int, strangers: int, groups: float = 0.0) -> Path:
    """People whose photos are a pattern of their own under noise so heavy that some are taken for others. In a share
    ``groups`` of the photos there are one or two faces more beside it: strangers', another person's, or a second one of
    the same person."""
    generator = np.random.default_rng(7)
    patterns = generator.uniform(60, 196, (people, 6, 6))
    albums = [(f"person{number}", pattern, photos) for number, pattern in enumerate(patterns)]

    def face(pattern: Any) -> Any:
        own = generator.uniform(60, 196, (6, 6)) if pattern is None else pattern
        coarse = np.clip(own + generator.normal(0, 45, (6, 6)), 0, 255).astype(np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC))

    for name, pattern, count in [*albums, (UNKNOWN, None, strangers)]:
        (folder / name).mkdir(parents=True) if count else None
        for number in range(count):
            faces = [face(pattern)]
            if groups and generator.random() < groups:
                beside = [None, None, pattern, patterns[generator.integers(people)] if pattern is not None else None]
                faces += [face(beside[generator.integers(4)]) for _ in range(generator.integers(1, 3))]
                generator.shuffle(faces)
            Image.fromarray(np.hstack(faces)).save(folder / name / f"{number:02}.png")
    return folder


def finder() -> KnownFaces:
    """A finder that takes each square of a picture for a face."""
    distance = PhotoSettings().eye_distance * SIDE
    places = [face_at((number + 0.5) * SIDE, EYE_HEIGHT * SIDE, distance) for number in range(3)]
    return KnownFaces({(SIDE * count, SIDE): places[:count] for count in (1, 2, 3)}, "squares")


def verdict(truth: str, faces: Sequence[dict[str, Any]]) -> str:
    """What a photo with these answers counts as, by the rule of the contract: the name or ``unknown``."""
    named = [face for face in faces if face["label"] != UNKNOWN]
    if not named:
        return UNKNOWN
    if truth in [face["label"] for face in named]:
        return truth
    return str(min(named, key=lambda face: face["unknown_score"])["label"])


@pytest.mark.parametrize("strangers", [0, 44], ids=["without unknown", "with unknown"])
@pytest.mark.parametrize(
    ("people", "photos", "groups"),
    [(2, 44, 0.0), (10, 12, 0.0), (3, 44, 0.4)],
    ids=["two people", "ten people", "three people, several in a photo"],
)
def test_train_eval_report_card_and_matrix_say_what_predict_answers(
    people: int,
    photos: int,
    groups: float,
    strangers: int,
    facecnn: Facecnn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("facecnn.jobs.judgement.draw_confusion", lambda path, *figure: drawn.append(figure))
    if groups:
        for place in ("training_photos.installed_finder", "models.finder_of_checkpoint"):
            monkeypatch.setattr(f"facecnn.jobs.{place}", lambda *_: finder())
    album = write_album(tmp_path / "album", people, photos, strangers, groups)
    options = ["-c", "smoke", "--epochs", "8", "--set", "photos.validation=0.5", "--out", tmp_path, "--name", "run"]
    trained = facecnn("train", album, *options, "--format", "json")
    assert trained.exit_code == 0, trained.stderr
    run = tmp_path / "run"
    held_out = sorted(json.loads((run / "split.json").read_text())["validation"])

    done = facecnn("predict", *(album / path for path in held_out), "-m", run, "--format", "json")
    assert done.exit_code == 0, done.stderr
    truths = [path.partition("/")[0] for path in held_out]
    answers = [(truth, verdict(truth, photo["faces"])) for truth, photo in zip(truths, done.json(), strict=True)]
    known = [(truth, label) for truth, label in answers if truth != UNKNOWN]
    strange = Counter(label for truth, label in answers if truth == UNKNOWN)
    expected = counted(known)
    right = expected["named_right"]
    refused = expected["refused"]
    is_group = [len(photo["faces"]) > 1 for photo in done.json()]
    several = counted(
        [answer for answer, group in zip(answers, is_group, strict=True) if group and answer[0] != UNKNOWN]
    )
    everybody = facecnn(
        "predict", *(album / path for path in held_out), "-m", run, "--threshold", "off", "--format", "json"
    )
    given = [[face["label"] for face in photo["faces"] if face["label"] != UNKNOWN] for photo in everybody.json()]
    assert all(len(names) == len(set(names)) for names in given), "a name is given at most once in a photo"
    closed_set = sum(truth in names for truth, names in zip(truths, given, strict=True)) / len(known)
    assert 0 < right < len(known), "with nothing, or everything, right they might agree by chance"
    assert any(is_group) == (groups > 0)
    if groups:
        assert 0 < several["named_right"] < several["photos"] < len(known)

    alone = [
        photo["probabilities"][truth]
        for truth, photo in zip(truths, done.json(), strict=True)
        if truth != UNKNOWN and len(photo["faces"]) == 1
    ]

    figures = facecnn("eval", "-m", run, "--format", "json").json()
    assert figures["log_loss"] == pytest.approx(-np.mean(np.log(alone)), rel=1e-4)
    for told in (trained.json()["validation"], figures):
        assert told["known"] == expected
        assert told["several"] == several
        assert told["accuracy"] == right / len(known)
        assert told["closed_set_accuracy"] == closed_set
        if strangers:
            assert told["unknown"]["photos"] == strange.total()
            assert told["unknown"]["refused"] == strange[UNKNOWN]
            assert told["unknown"]["named"] == strange.total() - strange[UNKNOWN]
        else:
            assert told["unknown"] is None
    names = figures["classes"]
    counts = Counter(answers)
    assert figures["confusion"] == [[counts[name, label] for label in [*names, UNKNOWN]] for name in names]
    assert [row["support"] for row in figures["per_class"]] == [truths.count(name) for name in names]

    ((matrix, rows, columns, title),) = drawn
    assert columns == [*names, "refused"]
    assert rows == names + ["strangers"] * bool(strangers)
    shown = {name: UNKNOWN if name in ("strangers", "refused") else name for name in [*rows, *columns]}
    assert matrix.tolist() == [[counts[shown[row], shown[column]] for column in columns] for row in rows]
    assert title == f"{len(held_out)} held-out photos"

    says = r"Of (\d+) photos of these people .*? it names (\d+) right \(.*?\), refuses (\d+) .*? names (\d+) wrong"
    for file in ("report.html", "MODEL_CARD.md"):
        text = (run / file).read_text(encoding="utf-8")
        headline = re.search(says, text)
        assert headline is not None
        assert list(map(int, headline.groups())) == [
            expected[key] for key in ("photos", "named_right", "refused", "named_wrong")
        ]
        told_closed_set = re.search(r"If nobody were refused, ([\d.]+)\s%", text)
        assert told_closed_set is not None
        assert float(told_closed_set[1]) == pytest.approx(100 * closed_set, abs=0.051)
    report = (run / "report.html").read_text(encoding="utf-8")
    not_right = len(held_out) - right - strange[UNKNOWN]
    assert f"Not answered right: {not_right} of {len(held_out)} held-out photos" in report

    text = facecnn("eval", "-m", run).stdout
    assert re.search(rf"named right +{right} of {len(known)} ", text)
    assert re.search(rf"refused +{refused} of {len(known)} ", text)
    assert re.search(rf"named wrong +{expected['named_wrong']} of {len(known)} ", text)
    says = (
        f"{several['photos']} of these show several faces: {several['named_right']} named right, "
        f"{several['named_wrong']} wrong, {several['refused']} refused"
    )
    card = (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert [says in told for told in (text, report, card)] == [groups > 0] * 3


def counted(known: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Photos by what became of them: who each shows, and what it counts as."""
    right, refused = sum(truth == label for truth, label in known), sum(label == UNKNOWN for _, label in known)
    return {
        "photos": len(known),
        "named_right": right,
        "named_wrong": len(known) - right - refused,
        "refused": refused,
    }
