"""What excites a kernel: found where it is, and said to be as large as what the output really depends on."""

import numpy as np
import pytest

from facecnn.kernels import open_device
from facecnn.network.excitation import excitation, reach
from facecnn.network.feeding import PhotoFeed
from facecnn.network.layers import Conv, Layer, Pool, PoolSettings
from facecnn.network.network import Network
from facecnn.network.stages import plan


def make(layers: list[Layer], height: int = 24, width: int = 24) -> Network:
    network = Network(layers, (height, width, 1), open_device("reference").backend, 4, keep="outputs")
    network.initialise(3)
    return network


STACKS: dict[str, list[Layer]] = {
    "one": [Conv(kernels=3, size=3, padding="same", pool=2)],
    "valid": [Conv(kernels=3, size=5), Conv(kernels=2, size=3, pool=2)],
    "strided": [Conv(kernels=3, size=5, stride=2), Conv(kernels=2, size=3, stride=(2, 1), pool=2)],
    "deep": [Conv(kernels=4, size=3, padding="same", pool=2) for _ in range(3)],
    "overlapping": [Conv(kernels=2, size=3, pool=PoolSettings(size=3, stride=2, kind="average")), Pool(size=2)],
}


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_an_output_depends_on_what_it_is_said_to_see(stack: str) -> None:
    """Each pixel is changed, and the outputs that change are those whose part of the photo has it."""
    network = make(STACKS[stack])
    seen = reach(network.stages)
    picture = np.random.default_rng(0).normal(size=(24, 24)).astype(np.float32)

    def outputs() -> np.ndarray:
        network.forward(1)
        return np.array(network.output[0])

    network.input[0, :, :, 0] = picture
    before = outputs()
    rows, columns = before.shape[:2]
    touched = np.zeros((rows, columns, 24, 24), bool)
    for row, column in np.ndindex(24, 24):
        for change in (40.0, -40.0):  # whatever a max or a relu hides from one, it shows of the other
            network.input[0, :, :, 0] = picture
            network.input[0, row, column, 0] += change
            touched[:, :, row, column] |= (outputs() != before).any(axis=-1)
    for y, x in np.ndindex(rows, columns):
        (top, left), (height, width) = (np.array(seen.first) + np.array(seen.step) * (y, x)).tolist(), seen.size
        part = np.zeros((24, 24), bool)
        part[max(top, 0) : top + height, max(left, 0) : left + width] = True
        assert not (touched[y, x] & ~part).any(), "it sees more than was said"
        hit = np.argwhere(touched[y, x])
        assert hit.min(axis=0).tolist() == [max(top, 0), max(left, 0)]
        assert hit.max(axis=0).tolist() == [min(top + height, 24) - 1, min(left + width, 24) - 1]


def test_the_strongest_photos_and_places_are_found() -> None:
    """A spot of light in each photo, brighter from photo to photo, and a kernel that answers to just that."""
    network = make([Conv(kernels=2, size=3, padding="same", activation="relu")], 8, 11)
    arrays = network.weights.to_host()
    arrays["conv1.weight"][:] = 0
    arrays["conv1.weight"][0, 1, 1, 0], arrays["conv1.weight"][1, 0, 0, 0] = 1, 1  # the second sees it up and left
    network.weights.from_host(arrays)
    spots = [(1, 1), (3, 5), (6, 2), (4, 4), (2, 9), (5, 1)]
    pixels = np.zeros((6, 12, 15, 1), np.uint8)
    for number, (row, column) in enumerate(spots):
        pixels[number, row + 2, column + 2] = 100 + 20 * number
    rows = np.array([0, 1, 2, 3, 4, 5])
    found = excitation(network, PhotoFeed(network.backend, pixels, rows, 4), "none", ["conv1"], 3)["conv1"]
    assert found.size == (3, 3)
    assert found.photos.tolist() == [[5, 4, 3], [5, 4, 3]]
    assert found.places[0].tolist() == [[row - 1, column - 1] for row, column in (spots[5], spots[4], spots[3])]
    assert found.places[1].tolist() == [list(spots[5]), list(spots[4]), list(spots[3])]
    few = excitation(network, PhotoFeed(network.backend, pixels, rows[:2], 4), "none", ["conv1"], 3)["conv1"]
    assert few.photos.shape == (2, 2)


def test_layers_between_do_not_widen_what_is_seen() -> None:
    stages = plan([Conv(kernels=2, size=3, activation="gelu"), Conv(kernels=2, size=3)], (9, 9, 1))
    assert reach(stages).size == (5, 5)
