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

from facecnn.photos.folder import UNKNOWN

from .running import Facecnn
from .squares import find_squares, verdict, write_album


@pytest.mark.parametrize("strangers", [0, 44], ids=["without unknown", "with unknown"])
@pytest.mark.parametrize(
    ("people", "photos", "groups"),
    [*(pytest.param(*album, marks=pytest.mark.slow) for album in ((2, 44, 0.0), (10, 12, 0.0))), (3, 44, 0.4)],
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
    monkeypatch.setattr("facecnn.jobs.run_pictures.draw_confusion", lambda path, *figure: drawn.append(figure))
    if groups:
        find_squares(monkeypatch)
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
