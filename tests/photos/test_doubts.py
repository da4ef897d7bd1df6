"""Copies and look-alikes, where there are a few and where there are very many."""

import numpy as np
import pytest
from PIL import Image

from facecnn.photos import doubts
from facecnn.photos.doubts import same_picture, warn_of_copies
from facecnn.photos.fingerprint import are_near, dct_hash

from .pictures import picture


def near_copies(count: int, pictures: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crops of ``count`` noisy copies of each picture, mixed, their hashes, and which picture each is of."""
    random = np.random.default_rng(0)
    shown = random.permutation(count * pictures) % pictures
    originals = [np.asarray(picture(seed).convert("L").resize((24, 24)), dtype=float) for seed in range(pictures)]
    noise = random.normal(0, 5, (count * pictures, 24, 24))
    crops = np.stack([originals[number] for number in shown]) + noise
    pixels = np.clip(crops, 0, 255).astype(np.uint8)
    hashes = np.array([dct_hash(Image.fromarray(crop)) for crop in pixels], dtype=np.uint64)
    return pixels[..., None], hashes, shown


def by_comparing_all(pixels: np.ndarray, hashes: np.ndarray) -> list[list[int]]:
    """Groups of photos that are one picture by the definition, pair by pair."""
    fields = pixels.astype(float).mean(axis=3).reshape(len(pixels), 12, 2, 12, 2).mean(axis=(2, 4)).reshape(-1, 144)
    fields = np.rint(2 * fields) / 2
    group = list(range(len(pixels)))
    for one in range(len(pixels)):
        for other in range(one):
            alike = np.sqrt(np.mean((fields[one] - fields[other]) ** 2)) <= 7
            alike = alike and np.corrcoef(fields[one], fields[other])[0, 1] > 0.95
            if alike and (int(hashes[one]) ^ int(hashes[other])).bit_count() <= 6:
                old, new = group[one], group[other]
                group = [new if number == old else number for number in group]
    found = [[index for index, number in enumerate(group) if number == one] for one in dict.fromkeys(group)]
    return [members for members in found if len(members) > 1]


def test_groups_are_those_of_comparing_all_and_the_order_changes_nothing() -> None:
    pixels, hashes, _ = near_copies(12, 4)
    pixels[5] //= 2  # darker: another picture by its crop, not by its hash
    expected = by_comparing_all(pixels, hashes)
    assert len(expected) >= 4
    assert same_picture(pixels, np.arange(48), hashes) == expected
    order = np.random.default_rng(1).permutation(48)
    found = same_picture(pixels[order], np.arange(48), hashes[order])
    assert sorted(sorted(order[group].tolist()) for group in found) == expected
    assert same_picture(pixels[order], np.argsort(order), hashes) == expected  # rows apart from the photos' order


def test_many_near_copies_are_grouped_without_comparing_all(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, hashes, shown = near_copies(400, 5)
    comparisons = 0

    def counted(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        nonlocal comparisons
        comparisons += len(one) * len(other)
        return are_near(one, other)

    monkeypatch.setattr(doubts, "are_near", counted)
    groups = same_picture(pixels, np.arange(2000), hashes)
    assert [len(group) for group in groups] == [400] * 5
    assert all(len(set(shown[group].tolist())) == 1 for group in groups)
    assert comparisons < 20 * 2000, "all pairs of one picture's copies are 400,000"


def test_flat_crops_are_like_none() -> None:
    pixels = np.full((3, 24, 24, 1), 90, dtype=np.uint8)
    assert same_picture(pixels, np.arange(3), np.zeros(3, dtype=np.uint64)) == []


def test_pale_crops_of_different_pictures_are_told_apart() -> None:
    coarse = np.random.default_rng(0).integers(95, 106, (3, 12, 12, 1), dtype=np.uint8)
    pixels = coarse.repeat(2, axis=1).repeat(2, axis=2)  # they differ by less than 7 levels, but aren't correlated
    pixels[2] = pixels[0] + 2
    assert same_picture(pixels, np.arange(3), np.zeros(3, dtype=np.uint64)) == [[0, 2]]


def test_one_photo_of_each_person_is_named() -> None:
    paths = [f"a/{number}.jpg" for number in range(5)] + ["b/0.jpg", "c/0.jpg"]
    labels = np.array([0] * 5 + [1, 2])
    everything = list(range(7))
    assert warn_of_copies(paths, labels, [], [everything]) == [
        "nearly the same photo under two names: a/0.jpg, b/0.jpg, c/0.jpg and 4 more: remove one"
    ]
    assert warn_of_copies(paths, labels, [[0, 1, 5]], []) == [
        "the same photo under two names: a/0.jpg, b/0.jpg, a/1.jpg: remove one"
    ]
