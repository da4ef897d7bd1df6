"""Which photos and runs ``add`` and ``forget`` touch, and that a model of embeddings is resumed as it was.

Faces are patterns, and what stands for the body sees these.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.patterns import PatternEmbedder, finder, picture
from cli.running import call
from facecnn.body.embedder import Embedder, key_of_bytes
from facecnn.body.embedding_cache import embeddings_folder
from facecnn.body.folding import shapes
from facecnn.photos.cache_folder import CACHE_VARIABLE
from facecnn.photos.folder_faces import ENOUGH
from facecnn.photos.forgetting import find_cached
from facecnn.runs.checkpoint import load_checkpoint
from facecnn.runs.choice import read_pin, write_pin

ANN, ANNA, BOB, CY, DI, EVE = range(6)
BODY = {name: np.zeros(shape, np.float32) for name, shape in shapes().items()}


class Asked(list[int]):
    """How many faces were run through the body, each time."""


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asked:
    """Whatever trains or answers sees patterns, and caches are empty."""
    calls = Asked()

    def run(_: Embedder, pixels: Any, rows: Any) -> Any:
        calls.append(len(rows))
        return PatternEmbedder(None).embed(pixels, rows)[:, :128]

    for place in ("training.photos.installed_finder", "models.finder_of_checkpoint"):
        monkeypatch.setattr(f"facecnn.jobs.{place}", lambda *_: finder())
    monkeypatch.setattr("facecnn.jobs.training.train.finder_of_checkpoint", lambda *_: finder())
    monkeypatch.setattr("facecnn.body.embedder.body_arrays", lambda: BODY)
    monkeypatch.setattr(Embedder, "compute", run)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return calls


def write(folder: Path, photos: Sequence[Sequence[int]]) -> list[Path]:
    """Photos with these people in each."""
    folder.mkdir(parents=True)
    files = []
    for number, people in enumerate(photos):
        files.append(folder / f"{number}.png")
        picture(people, sum(map(ord, folder.name)) * 100 + number).save(files[-1])
    return files


def digests(*folders: Path) -> set[str]:
    files = (file for folder in folders for file in folder.iterdir())
    return {hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def trained_on(run: Path | str) -> set[str]:
    return {row.tobytes().hex() for row in load_checkpoint(Path(run)).arrays["trained_on"]}


def owned(run: Path | str) -> dict[str, int]:
    """The number of embeddings of each person."""
    checkpoint = load_checkpoint(Path(run))
    counts = np.bincount(checkpoint.arrays["people.owners"]).tolist()
    return dict(zip(checkpoint.classes, counts, strict=False))


def result_of(*arguments: str | Path) -> dict[str, Any]:
    done = call(*arguments, "--format", "json")
    assert done.exit_code == 0, done.stderr
    result: dict[str, Any] = done.json()
    return result


def embedded() -> set[str | None]:
    """The keys of the crops whose embeddings are kept."""
    keys: set[str | None] = set()
    for file in embeddings_folder().glob("*.sqlite"):
        with closing(sqlite3.connect(file)) as index:
            keys.update(key for (key,) in index.execute("select sha256 from embeddings"))
    return keys


@pytest.fixture
def people(tmp_path: Path) -> Path:
    for name, person in (("ann", ANN), ("anna", ANNA), ("bob", BOB)):
        write(tmp_path / "people" / name, [[person]] * 4)
    return tmp_path / "people"


def train(photos: Path, name: str = "first", *options: str) -> Path:
    options = ("-c", "pretrained", "--set", "photos.validation=0", "--out", str(photos.parent / "runs"), *options)
    return Path(result_of("train", photos, *options, "--name", name)["run"])


def label(run: Path | str, photo: Path) -> str:
    done = call("predict", photo, "-m", run, "--format", "json")
    assert done.exit_code == 0, done.stderr
    return str(done.json()[0]["label"])


# ------------------------------------------------------------------------------------------------------------------ add


def add(person: str, run: Path, *photos: Path) -> dict[str, Any]:
    return result_of("add", person, *photos, "-m", run, "--out", run.parent)


def test_in_groups_it_is_whoever_is_in_all_of_them(people: Path, tmp_path: Path) -> None:
    """Of two faces that nobody knows that of the person, whichever comes first; and never one that has a name."""
    groups = write(tmp_path / "groups", [[DI, CY], [CY, EVE], [ANN, CY], [CY, BOB]])
    added = add("cy", train(people), *groups)
    assert added["photos"] == {"added": 4, "skipped": []}
    (alone,) = write(tmp_path / "alone", [[CY]])
    assert label(added["run"], alone) == "cy"
    others = write(tmp_path / "others", [[ANN], [BOB], [DI], [EVE]])
    assert [label(added["run"], photo) for photo in others] == ["ann", "bob", "unknown", "unknown"]


def test_a_group_of_people_with_names_adds_nobody(people: Path, tmp_path: Path) -> None:
    known, good = write(tmp_path / "groups", [[ANN, BOB], [CY]])
    added = add("cy", train(people), known, good)
    assert added["photos"]["added"] == 1
    (skipped,) = added["photos"]["skipped"]
    assert skipped["path"] == str(known)
    assert "all of people whom the model knows" in skipped["reason"]


def test_more_photos_of_a_person_are_found_by_their_name(people: Path, tmp_path: Path) -> None:
    groups = write(tmp_path / "groups", [[BOB, ANN], [ANN, DI]])
    added = add("ann", train(people), *groups)
    assert owned(added["run"]) == {"ann": 6, "anna": 4, "bob": 4}
    arrays = load_checkpoint(Path(added["run"])).arrays
    own = arrays["people.embeddings"][arrays["people.owners"] == 0]
    lengths = np.linalg.norm(own, axis=1)
    assert (own @ own.T / lengths / lengths[:, None]).min() > 0.95, "all show the same person"


def test_a_copy_is_no_other_photo(people: Path, tmp_path: Path) -> None:
    (photo,) = write(tmp_path / "cy", [[CY]])
    copy = Path(shutil.copy(photo, tmp_path / "copy.png"))
    added = add("cy", train(people), photo, copy)
    assert added["photos"]["added"] == 1
    assert [skipped["path"] for skipped in added["photos"]["skipped"]] == [str(copy)]
    assert owned(added["run"])["cy"] == 1


def test_what_was_added_is_in_the_model_and_in_the_runs_record(people: Path, tmp_path: Path) -> None:
    write(tmp_path / "cy", [[CY]] * 2)
    run = train(people)
    added = add("cy", run, tmp_path / "cy")["run"]
    assert trained_on(added) == trained_on(run) | digests(tmp_path / "cy")
    record = json.loads((Path(added) / "split.json").read_text())
    assert set(record["train"].values()) == digests(*people.iterdir(), tmp_path / "cy")
    # So they can be forgotten, though the originals are gone.
    shutil.rmtree(tmp_path / "cy")
    removed = result_of("forget", "cy", "-m", added, "--out", run.parent, "--yes")["removed"]
    assert (removed["crops"], removed["embeddings"]) == (2, 2)


# --------------------------------------------------------------------------------------------------------------- forget


def forget(person: str, run: Path | str) -> dict[str, Any]:
    return result_of("forget", person, "-m", run, "--out", Path(run).parent, "--yes")


def test_the_runs_that_know_the_person_go_and_no_others(people: Path, tmp_path: Path) -> None:
    first, second = train(people), train(people, "second")
    write(tmp_path / "others" / "bob", [[BOB]] * 2)
    write(tmp_path / "others" / "anna", [[ANNA]] * 2)
    other = train(tmp_path / "others", "other")
    result = forget("ann", second)
    assert sorted(result["removed"]["runs"]) == [str(first), str(second)]
    assert {path.name for path in first.parent.iterdir()} == {"other", Path(result["run"]).name}
    assert owned(other) == {"anna": 2, "bob": 2}
    assert owned(result["run"]) == {"anna": 4, "bob": 4}


def test_a_pin_goes_to_the_run_that_takes_the_place(people: Path) -> None:
    run = train(people)
    write_pin(run, run.parent)
    result = forget("ann", run)
    pinned = read_pin(run.parent)
    assert pinned is not None
    assert pinned.resolve() == Path(result["run"]).resolve()


def test_another_runs_pin_stays(people: Path, tmp_path: Path) -> None:
    run = train(people)
    write(tmp_path / "others" / "bob", [[BOB]] * 2)
    write(tmp_path / "others" / "anna", [[ANNA]] * 2)
    other = train(tmp_path / "others", "other")
    write_pin(other, run.parent)
    forget("ann", run)
    pinned = read_pin(run.parent)
    assert pinned is not None
    assert pinned.resolve() == other.resolve()


def test_nothing_is_left_of_the_person_and_all_of_whoever_has_a_similar_name(people: Path, asked: Asked) -> None:
    run = train(people)
    result = forget("ann", run)
    removed = result["removed"]
    assert (removed["crops"], removed["faces"], removed["embeddings"]) == (4, 4, 4)
    others = digests(people / "anna", people / "bob")
    assert trained_on(result["run"]) == others
    record = json.loads((Path(result["run"]) / "split.json").read_text())
    assert set(record["train"].values()) == others
    assert record["classes"] == ["anna", "bob"]
    assert find_cached(frozenset(digests(people / "ann"))).crops == 0
    assert find_cached(frozenset(others)).crops == 8
    asked.clear()
    train(people, "again")
    assert sum(asked) == 4, "of the others the embeddings are still there"


def test_embeddings_of_photos_held_out_go_with_the_others(people: Path) -> None:
    run = train(people, "first", "--set", "photos.validation=0.5")
    held_out = json.loads((run / "split.json").read_text())["validation"]
    assert sum(path.startswith("anna/") for path in held_out) == 2
    crops = {key_of_bytes(pixels) for pixels in find_cached(frozenset(digests(people / "anna"))).pixels()}
    assert len(crops & embedded()) >= 4
    forget("anna", run)
    assert not crops & embedded()


def test_groups_that_were_not_trained_on_go_with_their_person_alone(people: Path) -> None:
    for name in ("ann", "anna"):
        shutil.rmtree(people / name)
        write(people / name, [[ANN if name == "ann" else ANNA]] * ENOUGH + [[CY, DI]])
    run = train(people)
    left_out = json.loads((run / "split.json").read_text())["left_out"]
    assert list(left_out) == [f"ann/{ENOUGH}.png", f"anna/{ENOUGH}.png"]
    assert forget("ann", run)["removed"]["crops"] == ENOUGH + 2
    assert find_cached(frozenset(digests(people / "ann"))).crops == 0
    assert find_cached(frozenset(digests(people / "anna"))).crops == ENOUGH + 2


# --------------------------------------------------------------------------------------------------------------- resume


class Killed(BaseException):
    """Stands for a signal that can't be caught."""


def without_times(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in row if name not in ("seconds", "photos_per_second")} for row in rows]


@pytest.mark.parametrize("place", ["learning.class_means.Embedder.embed", "jobs.training.train.finish"])
def test_a_run_that_was_killed_is_resumed_to_the_same_end(
    people: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Before its photos were looked at, and after its model was saved."""
    options = ("--set", "photos.validation=0.25")
    whole = train(people, "whole", *options)

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patches:
        patches.setattr(f"facecnn.{place}", kill)
        with pytest.raises(Killed):
            train(people, "killed", *options)
    killed = whole.with_name("killed")
    resumed = result_of("train", "--resume", killed)
    assert resumed["run"] == str(killed)
    for name in ("best.safetensors", "last.safetensors"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert without_times(killed) == without_times(whole)
    again = result_of("train", "--resume", killed)
    assert again["validation"] == resumed["validation"]
    assert owned(killed) == {"ann": 3, "anna": 3, "bob": 3}


# ---------------------------------------------------------------------------------------------------------- --init-from
