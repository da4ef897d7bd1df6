import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facecnn.errors import PhotoError, UsageError
from facecnn.photos.fingerprint import dct_hash
from facecnn.photos.split import Photo, folds, split


def content(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def far(text: str) -> int:
    """Hashes that differ in about half their bits."""
    return int(content(f"hash of {text}")[:16], 16)


def person(name: str, count: int) -> list[Photo]:
    paths = [f"{name}/{index:04d}.jpg" for index in range(count)]
    return [Photo(path, content(path), far(path)) for path in paths]


@st.composite
def people(draw: st.DrawFn) -> dict[str, list[Photo]]:
    """People with bursts of near-duplicates and copies of photos."""
    found = {}
    for index in range(draw(st.integers(1, 4))):
        name = f"p{index}"
        photos = []
        for group in range(draw(st.integers(2, 6))):
            base = far(f"{name} {group}")
            for member in range(draw(st.integers(1, 4))):
                photos.append(Photo(f"{name}/{group}-{member}.jpg", content(f"{name} {group} {member}"), base ^ member))
            if draw(st.booleans()):
                photos.append(Photo(f"{name}/copy-{group}.jpg", photos[-1].sha256, photos[-1].hash))
        found[name] = photos
    return found


@settings(max_examples=150, deadline=None)
@given(people(), st.floats(0, 0.7), st.integers(0, 5), st.randoms())
def test_a_split_is_a_partition_that_parts_nothing_alike(
    found: dict[str, list[Photo]], share: float, seed: int, shuffler: random.Random
) -> None:
    chosen = split(found, share, seed)
    paths = sorted(photo.path for photos in found.values() for photo in photos)
    assert sorted(chosen.training + chosen.validation) == paths
    kept = set(chosen.validation)
    for photos in found.values():
        sides = {photo.path: photo.path in kept for photo in photos}
        assert not all(sides.values())
        assert any(sides.values()) == (share > 0)
        for one in photos:
            for other in photos:
                if (one.hash ^ other.hash).bit_count() <= 6 or one.sha256 == other.sha256:
                    assert sides[one.path] == sides[other.path]
    mixed = {name: shuffler.sample(photos, len(photos)) for name, photos in reversed(found.items())}
    assert split(mixed, share, seed) == chosen


def test_the_share_is_kept_for_each_person_and_the_seed_counts() -> None:
    found = {"a": person("a", 100), "b": person("b", 30), "c": person("c", 3), "unknown": person("unknown", 50)}
    chosen = split(found, 0.2, 0)
    kept = {name: sum(path.startswith(f"{name}/") for path in chosen.validation) for name in found}
    assert kept == {"a": 20, "b": 6, "c": 1, "unknown": 10}
    assert split(found, 0.2, 1).validation != chosen.validation
    assert split(found, 0.2, 0) == chosen
    assert split(found, 0, 0).validation == ()


def test_equal_files_of_two_people_come_on_one_side() -> None:
    for seed in range(20):
        found = {"a": person("a", 10), "b": person("b", 10)}
        found["b"][3] = found["b"][3]._replace(sha256=found["a"][5].sha256)
        chosen = split(found, 0.3, seed)
        assert ("a/0005.jpg" in chosen.validation) == ("b/0003.jpg" in chosen.validation)


def test_what_looks_like_a_copy_of_another_persons_photo_comes_on_its_side() -> None:
    for seed in range(20):
        for copy, alike in ((3, 7), (7, 3)):
            found = {"a": person("a", 10), "b": person("b", 10)}
            copied = found["a"][5]
            found["b"][copy] = found["b"][copy]._replace(sha256=copied.sha256, hash=copied.hash)
            found["b"][alike] = found["b"][alike]._replace(hash=copied.hash ^ 0b101)  # the next one of the same burst
            kept = split(found, 0.3, seed).validation
            assert len({path in kept for path in ("a/0005.jpg", "b/0003.jpg", "b/0007.jpg")}) == 1


def test_a_person_with_one_photo_is_trained_on_and_named() -> None:
    copies = [Photo(f"s10/{i}.jpg", content("s10"), 7) for i in range(3)]
    chosen = split({"a": person("a", 5), "s2": person("s2", 1)}, 0.2, 0)
    assert [path for path in chosen.validation if not path.startswith("a/")] == []
    assert len(chosen.validation) == 1
    (warning,) = chosen.warnings
    assert warning.startswith(
        "only one photo of s2: none of theirs is held out, so nobody knows how well they are told"
    )
    (warning,) = split({"a": person("a", 5), "s10": copies, "s2": person("s2", 1)}, 0.2, 0).warnings
    assert warning.startswith("only one photo, or copies of one, of s2, s10: ")
    assert split({"a": person("a", 5), "b": person("b", 1)}, 0, 0).warnings == ()  # that was asked for


def test_where_each_person_has_one_photo_nothing_is_held_out() -> None:
    found = {"a": person("a", 1), "b": person("b", 1), "unknown": person("unknown", 20)}
    for share in (0.2, 0.99):
        chosen = split(found, share, 0)
        assert (len(chosen.training), chosen.validation) == (22, ())
        (warning,) = chosen.warnings
        assert warning == (
            "each person has one photo: nothing is held out, so nobody knows how good this is: add photos of a, b"
        )


def test_a_single_stranger_is_trained_on() -> None:
    chosen = split({"a": person("a", 5), "unknown": person("unknown", 1)}, 0.6, 0)
    assert "unknown/0000.jpg" in chosen.training


def test_a_share_that_leaves_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(PhotoError, match=r"validation 0.99 of 3 photos leaves 0 for training \(a\)"):
        split({"a": person("a", 3), "b": person("b", 3)}, 0.99, 0)


def test_photos_that_all_look_alike_are_parted_and_told() -> None:
    alike = [Photo(f"b/{i}.jpg", content(f"b{i}"), i) for i in range(4)]
    chosen = split({"a": person("a", 4), "b": alike}, 0.25, 0)
    assert sum(path.startswith("b/") for path in chosen.validation) == 1
    assert chosen.warnings == ("all photos look nearly the same of b (4): add different ones",)


def test_copies_of_somebody_elses_photos_are_no_person() -> None:
    found = {"a": person("a", 4)}
    kept = split(found, 0.5, 0).validation
    found["b"] = [photo._replace(path=photo.path.replace("a/", "b/")) for photo in found["a"] if photo.path in kept]
    with pytest.raises(PhotoError, match="b: copies of other people's photos only"):
        split(found, 0.5, 0)


def test_a_person_whose_photos_are_copies_of_trained_ones_is_not_judged_and_named() -> None:
    found = {"a": person("a", 4)}
    trained = split(found, 0.5, 0).training
    found["b"] = [photo._replace(path=photo.path.replace("a/", "b/")) for photo in found["a"] if photo.path in trained]
    chosen = split(found, 0.5, 0)
    assert [path for path in chosen.validation if path.startswith("b/")] == []
    assert chosen.warnings == ("b: no photo for validation, all are copies of other people's",)


def test_folds_deal_each_person_evenly() -> None:
    found = {"a": person("a", 23), "b": person("b", 10), "unknown": person("unknown", 3)}
    dealt = folds(found, 5)
    assert sorted(path for fold in dealt for path in fold) == sorted(p.path for group in found.values() for p in group)
    for name in ("a", "b"):
        counts = [sum(path.startswith(f"{name}/") for path in fold) for fold in dealt]
        assert max(counts) - min(counts) <= 1


def test_photos_that_cannot_be_dealt_evenly_go_to_the_smallest_folds() -> None:
    dealt = folds({f"p{number}": person(f"p{number}", 6 + number % 4) for number in range(10)}, 5)
    assert sum(map(len, dealt)) == 73
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    for name in (f"p{number}" for number in range(10)):
        counts = [sum(path.startswith(f"{name}/") for path in fold) for fold in dealt]
        assert max(counts) - min(counts) <= 1


@settings(max_examples=50, deadline=None)
@given(people(), st.randoms())
def test_folds_follow_the_published_rule(found: dict[str, list[Photo]], shuffler: random.Random) -> None:
    """Everybody who follows it has the same folds, whatever order photos are found in."""
    for name, photos in found.items():
        photos += person(name, 5)
        shuffler.shuffle(photos)
    assert [sorted(fold) for fold in folds(found, 5)] == plainly(found)


def test_too_few_photos_for_the_folds_are_refused() -> None:
    with pytest.raises(UsageError, match="5 folds need at least 5 photos per person, b has 2"):
        folds({"a": person("a", 5), "b": person("b", 2)}, 5)
    with pytest.raises(UsageError, match="at least 2"):
        folds({"a": person("a", 5)}, 1)


@pytest.mark.parametrize("name", ["blair_schroeder", "many"])
def test_folds_of_real_faces_follow_the_published_rule(faces: Path, name: str) -> None:
    found: dict[str, list[Photo]] = {}
    for file in (faces / name).rglob("*.jpg"):
        path = f"{file.parent.name}/{file.name}"
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        found.setdefault(file.parent.name, []).append(Photo(path, sha256, dct_hash(Image.open(file))))
    random.Random(0).shuffle(found["Tony_Blair" if name == "blair_schroeder" else "Adrien_Brody"])
    dealt = folds(found, 5)
    assert [sorted(fold) for fold in dealt] == plainly(found)
    if name == "blair_schroeder":
        assert sum(map(len, dealt)) == 253
        for fold in dealt:
            assert sum(path.startswith("Tony_Blair/") for path in fold) in (28, 29)
            assert sum(path.startswith("Gerhard_Schroeder/") for path in fold) in (21, 22)


def plainly(found: dict[str, list[Photo]]) -> list[list[str]]:
    """The rule once more, comparing everything with everything."""
    dealt: list[list[str]] = [[] for _ in range(5)]
    for who in sorted(found):
        groups: list[list[Photo]] = []
        for photo in sorted(found[who], key=lambda one: one.path):
            near = [g for g in groups if any(np.bitwise_count(np.uint64(m.hash ^ photo.hash)) <= 6 for m in g)]
            groups = [g for g in groups if g not in near] + [[photo, *(member for g in near for member in g)]]
        first = {id(group): min(photo.path for photo in group) for group in groups}
        digest = {key: hashlib.sha256(f"folds-1:{path}".encode()).hexdigest() for key, path in first.items()}
        for group in sorted(groups, key=lambda g: (-len(g), digest[id(g)])):
            own = [sum(path.split("/")[0] == who for path in fold) for fold in dealt]
            best = sorted(range(5), key=lambda f: (own[f], len(dealt[f]), f))[0]
            dealt[best] += [photo.path for photo in group]
    return [sorted(fold) for fold in dealt]


def with_faces(photos: list[Photo], several: int) -> list[Photo]:
    """The first ones show two faces."""
    return [photo._replace(faces=2 if number < several else 1) for number, photo in enumerate(photos)]


@pytest.mark.parametrize(
    ("several", "held_out_alone", "held_out"),
    [(10, 4, 4), (16, 2, 4), (20, 0, 4)],
    ids=["enough with one face", "half of those with one face", "none with one face"],
)
def test_photos_with_one_face_are_held_out_first(several: int, held_out_alone: int, held_out: int) -> None:
    people = {name: with_faces(person(name, 20), several) for name in ("ann", "bob")}
    faces = {photo.path: photo.faces for photos in people.values() for photo in photos}
    chosen = split(people, 0.2, 0)
    for name in people:
        own = [faces[path] for path in chosen.validation if path.startswith(name)]
        assert (own.count(1), len(own)) == (held_out_alone, held_out)


def test_one_face_each_is_split_as_if_faces_were_not_known() -> None:
    """By the rule: ordered by hash, the first ones that bring the number nearest to the share."""
    people = {name: person(name, 11) for name in ("ann", "bob")}
    chosen = split(people, 0.2, 3)
    for name, photos in people.items():
        order = sorted(photos, key=lambda photo: content(f"split-3:{photo.path}"))
        assert {photo.path for photo in order[:2]} == {path for path in chosen.validation if path.startswith(name)}
