"""Where people have few photos, ``train`` says what a body that has seen many faces would do with them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.patterns import PatternEmbedder, finder, picture
from cli.running import call
from facecnn.errors import CheckpointError

HINT = "facecnn.jobs.training.pretrained_hint"
ANN, BOB = 0, 1

Album = Callable[..., Path]


def likeness(one: int, other: int) -> float:
    """Between two people, about the cosine that the stand-in for the body sees: that of their patterns' middle."""
    patterns = [np.random.default_rng(1000 + person).uniform(30, 226, (12, 12))[5:10, 3:9] for person in (one, other)]
    return float(np.corrcoef(*(pattern.ravel() for pattern in patterns))[0, 1])


def first(ann: tuple[float, float], bob: tuple[float, float]) -> int:
    """Somebody who is so much like the two."""
    return next(n for n in range(4, 400) if ann[0] < likeness(n, ANN) < ann[1] and bob[0] < likeness(n, BOB) < bob[1])


LIKE_BOB, LIKE_NOBODY = first((-0.1, 0), (0.12, 0.25)), first((-0.25, -0.1), (-0.6, -0.4))
STRANGERS = range(400, 410)


@pytest.fixture(autouse=True)
def _patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faces are patterns, and the body, which is installed, sees these."""
    monkeypatch.setattr(PatternEmbedder, "asked", [])
    monkeypatch.setattr("facecnn.jobs.training.photos.installed_finder", lambda *_: finder())
    monkeypatch.setattr(f"{HINT}.Embedder", PatternEmbedder)
    monkeypatch.setattr(f"{HINT}.body_arrays", lambda: {})


@pytest.fixture
def album(tmp_path: Path) -> Album:
    """A function that makes a folder of photos from the people in each photo, by the person whose folder it is in."""

    def write(name: str, photos: dict[str, Sequence[Sequence[int]]]) -> Path:
        for folder, groups in photos.items():
            (tmp_path / name / folder).mkdir(parents=True)
            for number, people in enumerate(groups):
                seed = sum(map(ord, name + folder)) * 100 + number
                picture(people, seed).save(tmp_path / name / folder / f"{number:02}.png")
        return tmp_path / name

    return write


def train(photos: Path, held_out: Path, *options: str) -> tuple[dict[str, Any], str]:
    """A short training. Returns its figures, and what it said."""
    done = call(
        "train", photos, "-c", "smoke", "--epochs", "1", "--validation", held_out, "--out", photos.parent / "runs",
        "--format", "json", *options,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    return done.json(), done.stderr


def few(album: Album, strangers: int = 10) -> Path:
    """Seventeen photos each of two people, in most of which the other one is in the middle, where the main face is."""
    return album(
        "people",
        {
            "ann": [[ANN]] * 5 + [[ANN, BOB, stranger] for stranger in range(500, 512)],
            "bob": [[BOB]] * 5 + [[stranger, ANN, BOB] for stranger in range(520, 532)],
            "unknown": [[person] for person in STRANGERS[:strangers]],
        },
    )


def test_it_is_compared_on_held_out_photos_with_one_face(album: Album) -> None:
    """Nine photos are filed under the wrong name, so that only whoever has learned from them could know that name. Four
    are like nobody, but more like their own person than like the other."""
    held_out = album(
        "held-out",
        {
            "ann": [[ANN]] * 6 + [[LIKE_BOB]] * 9 + [[LIKE_NOBODY]] * 4,
            "bob": [[BOB]] * 12,
            "unknown": [[410], [411, ANN], [412], [BOB, 413]],
        },
    )
    result, said = train(
        few(album), held_out, "--set", "optimizer.learning_rate=1e-9", "--set", "train.seed=1"
    )  # learns nothing
    assert result["pretrained"]["photos"] == 31
    assert result["pretrained"]["closed_set_accuracy"] == pytest.approx(22 / 31)
    assert result["pretrained"]["own"] == pytest.approx(result["validation"]["closed_set_accuracy"])
    assert result["pretrained"]["own"] != result["pretrained"]["closed_set_accuracy"]
    assert "(facecnn train -c pretrained), the likeliest person is the right one in 71\xa0% of the 31" in said


def test_with_few_held_out_photos_it_is_only_named(album: Album) -> None:
    held_out = album(
        "held-out", {"ann": [[ANN]] * 10, "bob": [[BOB]] * 9, "unknown": [[person] for person in STRANGERS]}
    )
    result, said = train(few(album, strangers=6), held_out)
    assert result["pretrained"] == {"closed_set_accuracy": None, "own": None, "photos": None}
    assert "fewer than 20 photos a person, a body that has seen many faces may be better" in said
    assert PatternEmbedder.asked == []


def test_nothing_is_said_to_people_with_twenty_photos(album: Album) -> None:
    people = album("people", {"ann": [[ANN]] * 19, "bob": [[BOB]] * 21})
    result, said = train(people, album("held-out", {"ann": [[ANN]] * 12, "bob": [[BOB]] * 12}))
    assert result["pretrained"] is None
    assert "many faces" not in said


def test_nothing_is_said_where_the_body_is_not_installed(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{HINT}.body_arrays", lambda: None)
    result, said = train(few(album), album("held-out", {"ann": [[ANN]] * 12, "bob": [[BOB]] * 12}))
    assert result["pretrained"] is None
    assert "many faces" not in said


def test_nothing_is_said_where_faces_are_not_looked_for(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facecnn.jobs.training.photos.installed_finder", lambda *_: None)
    result, _ = train(few(album), album("held-out", {"ann": [[ANN]] * 12, "bob": [[BOB]] * 12}))
    assert result["pretrained"] is None


def test_a_damaged_body_does_not_end_a_training_that_needs_none(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged() -> None:
        raise CheckpointError("weights.dat: damaged: pip install it again")

    monkeypatch.setattr(f"{HINT}.body_arrays", damaged)
    result, said = train(few(album), album("held-out", {"ann": [[ANN]] * 12, "bob": [[BOB]] * 12}))
    assert result["pretrained"] is None
    assert "Traceback" not in said


@pytest.mark.parametrize("gone", ["people/ann/03.png", "held-out/bob/02.png", "people", "held-out"])
def test_photos_that_are_gone_by_then_end_no_training(album: Album, monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    photos, held_out = few(album), album("held-out", {"ann": [[ANN]] * 12, "bob": [[BOB]] * 12})

    def body() -> dict[str, Any]:
        path = photos.parent / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        return {}

    monkeypatch.setattr(f"{HINT}.body_arrays", body)
    result, said = train(photos, held_out)
    assert result["pretrained"] == {"closed_set_accuracy": None, "own": None, "photos": None}
    assert "may be better" in said
