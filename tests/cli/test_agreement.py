"""Whatever tells how good a model is tells the same, and it is what ``predict`` answers."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facecnn.runs.facts import UNKNOWN

from .running import Facecnn


def write_album(folder: Path, people: int, photos: int, strangers: int) -> Path:
    """People whose photos are a pattern of their own under noise so heavy that some are taken for others."""
    generator = np.random.default_rng(7)
    patterns = generator.uniform(60, 196, (people, 6, 6))
    albums = [(f"person{number}", pattern, photos) for number, pattern in enumerate(patterns)]
    for name, pattern, count in [*albums, (UNKNOWN, None, strangers)]:
        (folder / name).mkdir(parents=True) if count else None
        for number in range(count):
            own = generator.uniform(60, 196, (6, 6)) if pattern is None else pattern
            coarse = np.clip(own + generator.normal(0, 45, (6, 6)), 0, 255).astype(np.uint8)
            Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC).save(folder / name / f"{number:02}.png")
    return folder


@pytest.mark.parametrize("strangers", [0, 44], ids=["without unknown", "with unknown"])
@pytest.mark.parametrize(("people", "photos"), [(2, 44), (10, 12)], ids=["two people", "ten people"])
def test_train_eval_report_card_and_matrix_say_what_predict_answers(
    people: int, photos: int, strangers: int, facecnn: Facecnn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("facecnn.jobs.judgement.draw_confusion", lambda path, *figure: drawn.append(figure))
    album = write_album(tmp_path / "album", people, photos, strangers)
    options = ["-c", "smoke", "--epochs", "8", "--set", "photos.validation=0.5", "--out", tmp_path, "--name", "run"]
    trained = facecnn("train", album, *options, "--format", "json")
    assert trained.exit_code == 0, trained.stderr
    run = tmp_path / "run"
    held_out = sorted(json.loads((run / "split.json").read_text())["validation"])

    done = facecnn("predict", *(album / path for path in held_out), "-m", run, "--format", "json")
    assert done.exit_code == 0, done.stderr
    truths = [path.partition("/")[0] for path in held_out]
    answers = list(zip(truths, (row["label"] for row in done.json()), strict=True))
    likeliest = [max(row["probabilities"], key=row["probabilities"].get) for row in done.json()]
    known = [(truth, label) for truth, label in answers if truth != UNKNOWN]
    strange = Counter(label for truth, label in answers if truth == UNKNOWN)
    right = sum(truth == label for truth, label in known)
    refused = sum(label == UNKNOWN for _, label in known)
    expected = {
        "photos": len(known),
        "named_right": right,
        "named_wrong": len(known) - right - refused,
        "refused": refused,
    }
    closed_set = sum(truth == name for truth, name in zip(truths, likeliest, strict=True)) / len(known)
    assert 0 < right < len(known), "with nothing, or everything, right they might agree by chance"

    figures = facecnn("eval", "-m", run, "--format", "json").json()
    for told in (trained.json()["validation"], figures):
        assert told["known"] == expected
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
