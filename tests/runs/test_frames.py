"""Kernels kept of a run's epochs: what is written is read again, whatever a kill left, and after a resume."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecnn.errors import OutputError
from facecnn.runs.frames import KernelFrames, frame_epochs

KERNELS = {
    "conv1": np.random.default_rng(0).standard_normal((4, 3, 3, 1)).astype(np.float32),
    "conv2": np.random.default_rng(1).standard_normal((5, 3, 2, 4)).astype(np.float32),
}


def scaled(factor: float) -> dict[str, np.ndarray]:
    return {name: factor * kernels for name, kernels in KERNELS.items()}


def written(path: Path, epochs: int = 4) -> KernelFrames:
    frames = KernelFrames(path, KERNELS)
    for epoch in range(epochs):
        frames.append(epoch, scaled(epoch))
    return frames


def test_what_is_written_is_read(tmp_path: Path) -> None:
    read = written(tmp_path / "f").read()
    assert [frame.epoch for frame in read] == [0, 1, 2, 3]
    for frame in read:
        assert list(frame.layers) == ["conv1", "conv2"]
        for name, kernels in scaled(frame.epoch).items():
            np.testing.assert_allclose(frame.layers[name], kernels, rtol=1e-3, atol=1e-6)


def test_of_large_layers_a_part_is_kept(tmp_path: Path) -> None:
    large = {
        "colour": np.ones((100, 2, 2, 3), np.float32),
        "table": np.arange(64 * 4 * 32, dtype=np.float32).reshape(64, 2, 2, 32),
    }
    frames = KernelFrames(tmp_path / "f", large)
    frames.append(0, large)
    (frame,) = frames.read()
    assert frame.layers["colour"].shape == (64, 2, 2, 3)
    np.testing.assert_array_equal(frame.layers["table"], large["table"][:32, :, :, :8].astype(np.float16))


def test_a_torn_record_is_left_out(tmp_path: Path) -> None:
    frames = written(tmp_path / "f")
    whole = (tmp_path / "f").read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        (tmp_path / "f").write_bytes(whole[:length])
        read = frames.read()
        assert len(read) < 4
        assert [frame.epoch for frame in read] == list(range(len(read)))


def test_frames_of_other_layers_count_as_none(tmp_path: Path) -> None:
    written(tmp_path / "f")
    assert KernelFrames(tmp_path / "f", {"conv1": KERNELS["conv1"]}).read() == []
    assert KernelFrames(tmp_path / "absent", KERNELS).read() == []


@pytest.mark.parametrize("epoch", [0, 2, 9])
def test_starting_again_drops_what_came_after(tmp_path: Path, epoch: int) -> None:
    frames = written(tmp_path / "f")
    before = (tmp_path / "f").read_bytes()
    (tmp_path / "f").write_bytes(before + b"torn")
    frames.start_again_after(epoch, scaled(0))
    assert [frame.epoch for frame in frames.read()] == list(range(min(epoch, 3) + 1))
    for later in range(epoch + 1, 4):
        frames.append(later, scaled(later))
    assert (tmp_path / "f").read_bytes() == before


def test_starting_again_without_a_file_begins_with_the_first_kernels(tmp_path: Path) -> None:
    frames = KernelFrames(tmp_path / "f", KERNELS)
    frames.start_again_after(7, KERNELS)
    frames.append(8, scaled(8))
    assert [frame.epoch for frame in frames.read()] == [0, 8]
    np.testing.assert_allclose(frames.read()[0].layers["conv1"], KERNELS["conv1"], rtol=1e-3)


def test_a_network_without_conv_layers_has_frames_of_nothing(tmp_path: Path) -> None:
    frames = KernelFrames(tmp_path / "f", {})
    frames.start_again_after(0, {})
    assert [frame.layers for frame in frames.read()] == [{}]


def test_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    frames = KernelFrames(tmp_path / "gone" / "f", KERNELS)
    with pytest.raises(OutputError, match="its folder does not exist"):
        frames.append(0, KERNELS)


@given(epochs=st.integers(1, 100_000))
def test_frames_are_few_and_evenly_spread(epochs: int) -> None:
    chosen = sorted(frame_epochs(epochs))
    assert (chosen[0], chosen[-1]) == (0, epochs)
    assert len(chosen) == min(epochs + 1, 60)
    steps = np.diff(chosen)
    assert steps.max() - steps.min() <= 1
