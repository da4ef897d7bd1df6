"""The random numbers' algorithm against published vectors and against NumPy's."""

import numpy as np
import pytest

from facecnn.kernels import cpu, reference

# Known answers of Random123 (kat_vectors, philox4x32 10): counter, key, words.
ONES = 0xFFFFFFFF
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_the_reference_gives_the_published_words(
    counter: tuple[int, int, int, int], key: tuple[int, int], words: tuple[int, int, int, int]
) -> None:
    assert reference.philox(counter, key) == words


def test_the_cpu_gives_the_published_words() -> None:
    out = np.zeros(4, np.uint32)
    cpu.random_words(out, 0, 0, 0, np.array([0], np.int32), cpu.Workspace())
    assert tuple(out) == KNOWN[0][2]


def _philox64(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """``reference.philox`` with words of 64 bits and Philox4x64-10's constants."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * c0, 2**64)
        high1, low1 = divmod(0xCA5A826395121157 * c2, 2**64)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % 2**64, (k1 + 0xBB67AE8584CAA73B) % 2**64
    return c0, c1, c2, c3


def test_the_rounds_are_those_of_numpy() -> None:
    """NumPy has Philox4x64-10: the same rounds with other words. Its counter is raised before the first block."""
    generator = np.random.default_rng(0)
    for _ in range(20):
        counter = generator.integers(0, 2**64 - 1, 4, dtype=np.uint64)
        key = generator.integers(0, 2**64 - 1, 2, dtype=np.uint64)
        numpys = np.random.Philox(counter=counter, key=key).random_raw(4)
        c0, c1, c2, c3 = map(int, counter)
        assert _philox64((c0 + 1, c1, c2, c3), (int(key[0]), int(key[1]))) == tuple(map(int, numpys))
