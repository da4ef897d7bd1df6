"""Checkpoints come back as they were saved, equal ones are equal files, and nothing damaged or foreign is ever used."""

import hashlib
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save as save_safetensors

from facecnn.errors import CheckpointError, DivergedError, OutputError
from facecnn.runs.checkpoint import (
    BEST,
    LAST,
    PREVIOUS,
    Checkpoint,
    checkpoint_bytes,
    checkpoint_of_bytes,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)


def make_checkpoint(epoch: int = 3) -> Checkpoint:
    random = np.random.default_rng(epoch)
    return Checkpoint(
        settings={"version": 1, "photos": {"size": 48}, "network": [{"conv": {"kernels": 2}}, {"dropout": 0.2}]},
        classes=["Ægir", "$x$\n", 'quote "sha256":"0000'],
        arrays={
            "conv1.weight": random.normal(size=(2, 3, 3, 1)).astype(np.float32),
            "mean": random.normal(size=5),
            "scalar": np.array(2.5),
            "none": np.zeros((0, 4), np.float32),
            "steps": np.arange(3, dtype=np.int64),
            "picture": random.integers(0, 255, (3, 5), dtype=np.uint8),
        },
        state={"epoch": epoch, "best": 0.1 + 0.2, "calibration": None, "history": [1, 2.5, None]},
    )


def assert_equal(one: Checkpoint, other: Checkpoint) -> None:
    assert (one.settings, one.classes, one.state) == (other.settings, other.classes, other.state)
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        assert other.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(other.arrays[name], array, strict=True)


@pytest.fixture(scope="module")
def good() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_checkpoint(file, make_checkpoint())
        return file.read_bytes()


def refusal(file: Path, content: bytes) -> str:
    """The message with which `content` is refused."""
    file.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert len(message) < len(str(file)) + 400
    assert message.isprintable()
    return message


def split_file(content: bytes) -> tuple[dict[str, Any], bytes]:
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def join_file(header: dict[str, Any] | bytes, data: bytes, sign: bool = True) -> bytes:
    """A file with a right checksum, by the format's description: header, data, SHA-256 with its digits as zeros."""
    if isinstance(header, dict):
        if sign:
            header["__metadata__"]["sha256"] = "0" * 64
        header = json.dumps(header, separators=(",", ":")).encode()
    content = len(header).to_bytes(8, "little") + header + data
    if sign:
        digest = hashlib.sha256(content).hexdigest()
        content = content.replace(b'"sha256":"' + b"0" * 64, b'"sha256":"' + digest.encode(), 1)
    return content


def test_comes_back_as_saved(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m.safetensors", make_checkpoint())
    assert_equal(make_checkpoint(), load_checkpoint(tmp_path / "m.safetensors"))


def test_bytes_in_memory_are_read_and_checked_as_a_file(good: bytes) -> None:
    path = Path("nowhere.safetensors")
    assert checkpoint_bytes(make_checkpoint(), path) == good
    assert_equal(checkpoint_of_bytes(good, path), make_checkpoint())
    for damaged in (b"", good[:-1], good + b"x", good[:-1] + bytes([good[-1] ^ 1])):
        with pytest.raises(CheckpointError, match=r"^nowhere.safetensors: "):
            checkpoint_of_bytes(damaged, path)


def test_equal_checkpoints_are_equal_files_whatever_the_order_and_the_name(tmp_path: Path, good: bytes) -> None:
    checkpoint = make_checkpoint()
    turned = Checkpoint(
        dict(reversed(checkpoint.settings.items())),
        checkpoint.classes,
        dict(reversed(checkpoint.arrays.items())),
        dict(reversed(checkpoint.state.items())),
    )
    for number in range(5):  # the library alone writes metadata in random order
        save_checkpoint(tmp_path / f"{number}.safetensors", turned)
        assert (tmp_path / f"{number}.safetensors").read_bytes() == good


def test_checksum_is_what_the_description_says(good: bytes) -> None:
    digits = split_file(good)[0]["__metadata__"]["sha256"]
    assert hashlib.sha256(good.replace(digits.encode(), b"0" * 64)).hexdigest() == digits


def test_other_programs_can_read_it(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "m.safetensors").write_bytes(good)
    with safe_open(tmp_path / "m.safetensors", framework="np") as opened:
        assert opened.metadata()["format"] == "facecnn"
        assert json.loads(opened.metadata()["classes"]) == make_checkpoint().classes
        np.testing.assert_array_equal(opened.get_tensor("mean"), make_checkpoint().arrays["mean"])


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a[::2, 1:],
        lambda a: np.asfortranarray(a),
        lambda a: a.astype(">f4"),
        lambda a: np.broadcast_to(a[0], a.shape),
    ],
)
def test_views_are_saved_by_value(tmp_path: Path, view: Any) -> None:
    array = view(np.arange(24, dtype=np.float32).reshape(4, 6))
    save_checkpoint(tmp_path / "m.safetensors", Checkpoint({}, ["a"], {"w": array}, {}))
    np.testing.assert_array_equal(load_checkpoint(tmp_path / "m.safetensors").arrays["w"], array)


def test_a_long_history_fits(tmp_path: Path) -> None:
    state = {"trained_on": [f"{number:064x}" for number in range(40_000)]}
    save_checkpoint(tmp_path / "m.safetensors", Checkpoint({}, ["a"], {}, state))
    assert load_checkpoint(tmp_path / "m.safetensors").state == state


def test_too_many_names_are_refused_at_once_and_not_at_the_next_load(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="fewer or shorter names"):
        save_checkpoint(tmp_path / "m", Checkpoint({}, [f"{number:0200}" for number in range(6000)], {}, {}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("value", "told"), [(np.nan, "holds 1 NaN"), (-np.inf, "holds 1 infinite")])
def test_diverged_weights_are_not_saved(tmp_path: Path, good: bytes, value: float, told: str) -> None:
    (tmp_path / "m").write_bytes(good)
    checkpoint = make_checkpoint()
    checkpoint.arrays["conv1.weight"][1, 0, 0, 0] = value
    with pytest.raises(DivergedError, match=f"conv1.weight {told}"):
        save_checkpoint(tmp_path / "m", checkpoint)
    assert (tmp_path / "m").read_bytes() == good


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_changed_byte_is_refused(good: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(good) - 1))
    damaged = bytearray(good)
    damaged[position] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        refusal(Path(folder) / "m.safetensors", bytes(damaged))


def test_any_flipped_bit_of_the_header_is_refused(tmp_path: Path, good: bytes) -> None:
    for position in range(8 + int.from_bytes(good[:8], "little")):
        for bit in (0, 5):
            damaged = bytearray(good)
            damaged[position] ^= 1 << bit
            refusal(tmp_path / "m", bytes(damaged))


def test_any_cut_is_refused(tmp_path: Path, good: bytes) -> None:
    for length in range(len(good)):
        message = refusal(tmp_path / "m", good[:length])
        assert ("cut short" if length else "empty file") in message


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        refusal(Path(folder) / "m", content)
        refusal(Path(folder) / "m", len(content).to_bytes(8, "little") + b"{" + content)


def test_extra_bytes_are_refused(tmp_path: Path, good: bytes) -> None:
    assert "1 extra bytes at the end" in refusal(tmp_path / "m", good + b"x")
    assert f"{len(good)} extra bytes" in refusal(tmp_path / "m", good + good)


@pytest.mark.parametrize("length", [2**20 + 1, 2**31, 2**63 - 1, 2**64 - 1])
def test_huge_headers_are_refused_unread(tmp_path: Path, good: bytes, length: int) -> None:
    assert "more than 1 MiB" in refusal(tmp_path / "m", length.to_bytes(8, "little") + good[8:])


def changed_header(good: bytes, change: Any) -> bytes:
    header, data = split_file(good)
    change(header)
    return join_file(header, data)


def test_the_test_can_sign(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "m").write_bytes(changed_header(good, lambda header: None))
    assert_equal(make_checkpoint(), load_checkpoint(tmp_path / "m"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda h: h["__metadata__"].update(format_version="99"), r"newer facecnn \(format 99, .* up to 1\): update"),
        (lambda h: h["__metadata__"].update(format_version="0"), "damaged: its format version"),
        (lambda h: h["__metadata__"].update(format_version="-1"), "damaged: its format version"),
        (lambda h: h["__metadata__"].update(format_version="one"), "damaged: its format version"),
        (lambda h: h["__metadata__"].update(format_version=1), "damaged: its format version"),
        (lambda h: h["__metadata__"].pop("format_version"), "damaged: its format version"),
        (lambda h: h["__metadata__"].update(format="pt"), "written by another program"),
        (lambda h: h["__metadata__"].pop("settings"), "its metadata isn't complete"),
        (lambda h: h["__metadata__"].update(settings="[]"), "its settings text is damaged"),
        (lambda h: h["__metadata__"].update(settings='{"a":1,"a":2}'), "a is listed twice in its settings text"),
        (lambda h: h["__metadata__"].update(settings='{"a":NaN}'), "its settings text holds NaN"),
        (lambda h: h["__metadata__"].update(settings='{"a":' * 5000), "its settings text is damaged"),
        (lambda h: h["__metadata__"].update(classes="[]"), "class list isn't a list of names"),
        (lambda h: h["__metadata__"].update(classes='"ab"'), "class list isn't a list of names"),
        (lambda h: h["__metadata__"].update(classes='["a",1]'), "class list isn't a list of names"),
        (lambda h: h["__metadata__"].update(classes='["a","a"]'), "class list repeats a name"),
        (lambda h: h["__metadata__"].update(classes='["a"],"classes":["b"]'), "listed twice"),
        (lambda h: h["mean"].update(dtype="BF16"), "mean is BF16, one of F32"),
        (lambda h: h["mean"].update(dtype=["F32"]), "mean is .*F32.* expected"),
        (lambda h: h["mean"].update(shape=[6]), "mean has offsets"),
        (lambda h: h["mean"].update(shape=[-5]), "mean has a shape"),
        (lambda h: h["mean"].update(shape=[5.0]), "mean has a shape"),
        (lambda h: h["mean"].update(shape=5), "mean has a shape"),
        (lambda h: h["mean"].update(shape=[1] * 9), "mean has a shape"),
        (lambda h: h["none"].update(shape=[0, 2**40, 2**40]), "none has a shape larger than any memory"),
        (lambda h: h["mean"].update(data_offsets=h["mean"]["data_offsets"][::-1]), "mean has offsets"),
        (lambda h: h["mean"].update(data_offsets=[-40, 0]), "mean has offsets"),
        (lambda h: h["mean"].update(data_offsets=[0, True]), "mean has offsets"),
        (lambda h: h["mean"].update(data_offsets=[2**70, 2**70 + 40]), "begins at"),
        (lambda h: h.update(mean=[]), "mean has no dtype"),
        (lambda h: h["mean"].update(more=1), "mean has no dtype"),
        (lambda h: h.update(twin=h["mean"]), "overlap or leave a gap"),
        (lambda h: h.pop("mean"), "overlap or leave a gap"),
        (lambda h: h.update({"a\0\x1b[31mb": h.pop("mean")}), r"an array is named 'a\\x00\\x1b\[31mb'"),
        (lambda h: h.update({"\ud800": h.pop("mean")}), "an array is named"),
        (lambda h: h.update(other=h.pop("state")), "no training state"),
    ],
)
def test_signed_nonsense_is_refused(tmp_path: Path, good: bytes, change: Any, told: str) -> None:
    message = refusal(tmp_path / "m", changed_header(good, change))
    assert re.search(told, message), message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_signed_weights_that_are_no_numbers_are_refused(tmp_path: Path, good: bytes, value: float) -> None:
    header, data = split_file(good)
    begin, end = header["conv1.weight"]["data_offsets"]
    weights = np.frombuffer(data[begin:end], np.float32).copy()
    weights[3] = value
    message = refusal(tmp_path / "m", join_file(header, data[:begin] + weights.tobytes() + data[end:]))
    assert "conv1.weight holds 1 " in message


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}',
        b'{"a":NaN}',
        b'{"\xff":1}',
        b'{"a":' + b"[" * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
        b"{}",
        b"{" + b" " * 1000,
    ],
)
def test_odd_json_is_refused(tmp_path: Path, header: bytes) -> None:
    refusal(tmp_path / "m", join_file(header, b"", sign=False))


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    for metadata in (None, {"format": "pt"}):
        content = save_safetensors({"weight": np.ones(3, np.float32)}, metadata=metadata)
        assert "not a facecnn model (written by another program)" in refusal(tmp_path / "m", content)


class _Executed:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_unloaded(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps(_Executed(tmp_path / "pwned"), protocol)
    message = refusal(tmp_path / "m.safetensors", content)
    assert protocol == 1 or "a pickle" in message
    assert not (tmp_path / "pwned").exists()


def test_foreign_formats_are_named(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", b"")
    array = io.BytesIO()
    np.save(array, np.zeros(30))
    for content, told in [
        (archive.getvalue(), "a zip archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (array.getvalue(), "a NumPy array"),
        (b"\x08\x07\x12\x07pytorch\x1a\x051.1.0" + bytes(30), "ONNX"),
        (b"\x1c\0\0\0TFL3" + bytes(30), "TensorFlow Lite"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(30), "a picture"),
        (b"version: 1\nphotos: {}\n", "not safetensors: give a run folder"),
    ]:
        assert told in refusal(tmp_path / "m.safetensors", content)


def test_missing_and_odd_paths(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "model_one.safetensors").write_bytes(good)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, told in [
        ("model_on.safetensors", "no such file or folder: did you mean .*model_one.safetensors"),
        ("zzz", "no such file or folder: give a run folder"),
        ("empty", "no checkpoint in this folder"),
        ("link", "a link to nothing"),
        ("x" * 300, "can't be read|no such file"),
    ]:
        with pytest.raises(CheckpointError, match=told):
            load_checkpoint(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFO")
def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / BEST)
    for path in (tmp_path / "run", tmp_path / "run" / BEST):
        with pytest.raises(CheckpointError, match="not a regular file"):
            load_checkpoint(path)


def test_a_run_folder_stands_for_its_best_or_last(tmp_path: Path) -> None:
    for epoch, name in enumerate((PREVIOUS, LAST, BEST)):
        save_checkpoint(tmp_path / name, make_checkpoint(epoch))
        assert load_checkpoint(tmp_path).state["epoch"] == epoch
    assert load_checkpoint(tmp_path, "last").state["epoch"] == 1
    (tmp_path / LAST).unlink()
    assert load_checkpoint(tmp_path, "last").state["epoch"] == 0
    (tmp_path / PREVIOUS).unlink()
    assert find_checkpoint(tmp_path) == tmp_path / BEST
    with pytest.raises(CheckpointError, match="training can't go on"):
        load_checkpoint(tmp_path, "last")


def test_damage_names_the_state_that_is_left(tmp_path: Path, good: bytes) -> None:
    (tmp_path / PREVIOUS).write_bytes(good)
    assert f"delete it to go on from {PREVIOUS}" in refusal(tmp_path / LAST, good[:-1])
    (tmp_path / LAST).write_bytes(good)
    assert f"use {tmp_path / LAST}" in refusal(tmp_path / BEST, good[:-1])


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, good: bytes, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    (tmp_path / "m").write_bytes(good)

    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OutputError, match=r"no space left on the device; needs about 0.1 MB"):
        save_checkpoint(tmp_path / "m", make_checkpoint(4))
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]
    assert (tmp_path / "m").read_bytes() == good


def test_ctrl_c_in_a_write_keeps_the_old_file(tmp_path: Path, good: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").write_bytes(good)

    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "m", make_checkpoint(4))
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]
    assert (tmp_path / "m").read_bytes() == good


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_kill_before_the_rename_keeps_the_old_file(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "m").write_bytes(good)
    script = """
import os, signal, sys
from pathlib import Path
from facecnn.runs.checkpoint import Checkpoint, save_checkpoint
os.replace = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
save_checkpoint(Path(sys.argv[1]), Checkpoint({}, ["a"], {}, {}))
"""
    killed = subprocess.run([sys.executable, "-c", script, tmp_path / "m"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert_equal(make_checkpoint(), load_checkpoint(tmp_path / "m"))
    assert len(list(tmp_path.iterdir())) == 2  # the kill did fall between write and rename


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "target").write_bytes(b"mine")
    (tmp_path / "m").symlink_to(tmp_path / "target")
    save_checkpoint(tmp_path / "m", make_checkpoint())
    assert (tmp_path / "target").read_bytes() == b"mine"
    assert not (tmp_path / "m").is_symlink()
    assert (tmp_path / "m").read_bytes() == good


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000])
def test_the_mode_is_what_the_umask_gives(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        save_checkpoint(tmp_path / "m", make_checkpoint())
    finally:
        os.umask(before)
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o666 & ~mask
