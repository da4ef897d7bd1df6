"""Model files and run folders that are damaged, foreign, in use or not what a command needs."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save as save_safetensors

from cli.running import Outcome, call
from facecnn.learning.full_batch_optimizers import FULL_BATCH_OPTIMIZERS
from facecnn.learning.optimizers import OPTIMIZERS
from facecnn.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from facecnn.runs.metrics import MetricsLog

from .conftest import COMMAND, QUICK, Run, assert_refusal

Change = Callable[[dict[str, Any], bytearray], Any]


@dataclass(frozen=True)
class File:
    """A model file taken apart."""

    header: dict[str, Any]
    arrays: bytes

    @classmethod
    def of(cls, content: bytes) -> File:
        end = 8 + int.from_bytes(content[:8], "little")
        return cls(json.loads(content[8:end]), content[end:])

    def changed(self, change: Change) -> bytes:
        """The file after ``change`` to header or arrays, with a right checksum."""
        header, arrays = json.loads(json.dumps(self.header)), bytearray(self.arrays)
        change(header, arrays)
        header["__metadata__"]["sha256"] = 64 * "0"
        unsigned = joined(json.dumps(header, separators=(",", ":")).encode(), bytes(arrays))
        return unsigned.replace(64 * b"0", hashlib.sha256(unsigned).hexdigest().encode(), 1)


def joined(header: bytes, arrays: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + arrays


def metadata(**changes: str | None) -> Change:
    """A change of the metadata; None takes a key away."""

    def change(header: dict[str, Any], arrays: bytearray) -> None:
        for key, text in changes.items():
            if text is None:
                del header["__metadata__"][key]
            else:
                header["__metadata__"][key] = text

    return change


def entry(name: str, **changes: Any) -> Change:
    """A change of what the header says of an array."""
    return lambda header, arrays: header[name].update(changes)


def not_a_number(name: str) -> Change:
    def change(header: dict[str, Any], arrays: bytearray) -> None:
        begin = header[name]["data_offsets"][0]
        arrays[begin : begin + 4] = struct.pack("<f", float("nan"))

    return change


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures stay empty, as they are most of a short training's time."""
    monkeypatch.setattr("matplotlib.backends.backend_agg.FigureCanvasAgg.print_figure", lambda *_, **__: None)


@pytest.fixture(scope="module")
def content(model: Path) -> bytes:
    return (model / "best.safetensors").read_bytes()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.fixture
def asked(made_people: Path, file: Path) -> Callable[..., Outcome]:
    """``predict`` about a photo by a file of some content, in this process."""

    def ask(content: bytes) -> Outcome:
        file.write_bytes(content)
        return predict(made_people, file)

    return ask


def predict(people: Path, model: Path, *options: str) -> Outcome:
    photo = people / "person_0000" / "0000.jpg"
    return call("predict", photo, "-m", model, "--device", "reference", "--format", "json", *options)


assert_refused = partial(assert_refusal, exit_code=4, longest=1000)


@pytest.fixture
def run_folder(model: Path, tmp_path: Path) -> Path:
    """A finished run, to be damaged."""
    return Path(shutil.copytree(model, tmp_path / "run"))


def stop_after(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next training get a Ctrl-C when so many of its epochs are done."""
    append = MetricsLog.append

    def then_stop(log: MetricsLog, record: Any) -> None:
        append(log, record)
        if record["epoch"] == epoch:
            monkeypatch.setattr(MetricsLog, "append", append)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(MetricsLog, "append", then_stop)


def train(people: Path, out: Path, *options: str) -> Outcome:
    return call("train", people, *QUICK, "--epochs", "6", "--out", out, *options)


@pytest.fixture
def stopped(made_people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was stopped after three of its six epochs."""
    stop_after(3, monkeypatch)
    done = train(made_people, tmp_path / "runs", "--name", "stopped")
    assert done.exit_code == 130, done.stderr
    return tmp_path / "runs" / "stopped"


# Files that are missing, cut or damaged


@pytest.mark.fault("K01")
def test_a_model_that_is_not_there(made_people: Path, run_folder: Path, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    done = predict(made_people, file.with_name("modell.safetensors"))
    assert_refused(done, "modell.safetensors: no such file or folder", f"did you mean {file}?")
    done = predict(made_people, file.with_name("nothing.like.it"))
    assert_refused(done, "nothing.like.it: no such file or folder", "give a run folder or a .safetensors file")


@pytest.mark.fault("K02")
def test_a_folder_and_a_pipe(made_people: Path, model: Path, tmp_path: Path, run: Run) -> None:
    answer = predict(made_people, model)
    assert (answer.exit_code, answer.stdout) == (0, predict(made_people, model / "best.safetensors").stdout)
    (tmp_path / "E").mkdir()
    assert_refused(predict(made_people, tmp_path / "E"), "E: no checkpoint in this folder")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")
        done = run("predict", made_people, "-m", tmp_path / "fifo", timeout=10)
        assert_refused(done, "fifo: not a regular file")


@pytest.mark.fault("K03")
def test_hardly_any_bytes(asked: Callable[..., Outcome], content: bytes) -> None:
    assert_refused(asked(b""), "model.safetensors: empty file (0 bytes): copy it again or train anew")
    assert_refused(asked(content[:7]), "cut short (7 of at least 8 bytes)")
    assert_refused(asked(content[:8]), "cut short: 8 bytes, at least ")


@pytest.mark.fault("K03")
def test_a_damaged_model_names_what_is_left_of_its_run(made_people: Path, run_folder: Path) -> None:
    (run_folder / "best.safetensors").write_bytes(b"")
    assert_refused(predict(made_people, run_folder), f"use {run_folder / 'last.safetensors'}")
    (run_folder / "last.safetensors").rename(run_folder / "previous.safetensors")
    (run_folder / "last.safetensors").write_bytes(b"")
    done = call("train", "--resume", run_folder)
    assert_refused(done, "last.safetensors: empty file (0 bytes): delete it to go on from previous.safetensors")
    (run_folder / "last.safetensors").unlink()
    (run_folder / "best.safetensors").unlink()
    assert predict(made_people, run_folder).exit_code == 0


@pytest.mark.fault("K04")
def test_a_file_cut_anywhere(asked: Callable[..., Outcome], content: bytes) -> None:
    header = 8 + int.from_bytes(content[:8], "little")
    for size in (header // 2, header, (header + len(content)) // 2, len(content) - 1):
        assert_refused(asked(content[:size]), f"cut short: {size} bytes, ", " expected: copy it again or train anew")
    assert f"{len(content)} expected" in asked(content[:-1]).stderr


@pytest.mark.fault("K05")
def test_more_than_the_file(asked: Callable[..., Outcome], content: bytes) -> None:
    assert_refused(asked(content + b"x"), ": 1 extra bytes at the end")
    assert_refused(asked(content + content), f": {len(content)} extra bytes at the end")


@pytest.mark.fault("K06")
def test_a_flipped_bit_of_the_weights(asked: Callable[..., Outcome], content: bytes) -> None:
    for place, bit in ((-5, 6), (-5, 0), (-1, 0)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        assert_refused(asked(bytes(damaged)), "checksum differs: the file is damaged")


def flip_header_bits(step: int, asked: Callable[..., Outcome], content: bytes) -> None:
    for place in range(0, 8 + int.from_bytes(content[:8], "little"), step):
        for bit in (0, 5):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            assert_refused(asked(bytes(damaged)))


@pytest.mark.fault("K07")
def test_a_flipped_bit_of_the_header(asked: Callable[..., Outcome], content: bytes) -> None:
    flip_header_bits(53, asked, content)


@pytest.mark.long
@pytest.mark.fault("K07")
def test_every_flipped_bit_of_the_header(asked: Callable[..., Outcome], content: bytes) -> None:
    flip_header_bits(1, asked, content)


@pytest.mark.fault("K08")
def test_a_header_longer_than_the_file(
    asked: Callable[..., Outcome], content: bytes, file: Path, made_people: Path, run: Run
) -> None:
    for length in (len(content) + 1, 2**31, 2**63 - 1, 2**64 - 1):
        assert_refused(asked(struct.pack("<Q", length) + content[8:]))
    done = run("predict", made_people, "-m", file, before="ulimit -v 4000000", timeout=20)
    assert_refused(done, f"a header of {2**64 - 1} bytes, more than 1 MiB")


@pytest.mark.fault("K09")
def test_a_header_of_a_million_names(asked: Callable[..., Outcome]) -> None:
    one = '"layer_%d.weight_of_a_kernel_number_%d":{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}'
    header = "{" + ",".join(one % (n, n, 4 * n, 4 * n + 4) for n in range(1_000_000)) + "}"
    begun = time.process_time()
    assert_refused(asked(joined(header.encode())), f"a header of {len(header)} bytes, more than 1 MiB")
    assert time.process_time() - begun < 5  # a parser takes half a minute


@pytest.mark.fault("K10")
def test_an_array_that_is_listed_twice(asked: Callable[..., Outcome]) -> None:
    for offsets in ("[0,4]", "[4,8]"):
        one = '"a":{"dtype":"F32","shape":[1],"data_offsets":%s}'
        header = "{" + one % "[0,4]" + "," + one % offsets + "}"
        assert_refused(asked(joined(header.encode(), bytes(8))), "a is listed twice in its header")


@pytest.mark.fault("K11")
def test_offsets_that_do_not_fit(asked: Callable[..., Outcome], content: bytes) -> None:
    name = "model.conv2.bias"
    begin, end = File.of(content).header[name]["data_offsets"]
    size = len(File.of(content).arrays)
    for offsets in ([begin - 4, end - 4], [begin + 4, end + 4], [end, begin], [-32, 0], [size, size + end - begin]):
        done = asked(File.of(content).changed(entry(name, data_offsets=offsets)))
        assert_refused(done, "damaged: ")
        assert "model." in done.stderr or "state" in done.stderr  # the array, or the one that it overlaps


@pytest.mark.fault("K12")
def test_a_header_that_is_no_json(asked: Callable[..., Outcome], content: bytes) -> None:
    for header in (b'{"a":' + 100_000 * b"[", b'{"a":NaN}', b'{"a":"\xff"}'):
        assert_refused(asked(joined(header)), "its header ")
    odd = {"a\0\x1b[31mb": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}
    done = asked(File.of(content).changed(lambda header, arrays: header.update(odd)))
    assert_refused(done, r"an array is named 'a\x00\x1b[31mb'")


# Files of others


@pytest.mark.fault("K13")
def test_another_programs_file(asked: Callable[..., Outcome]) -> None:
    weights = {f"model.layers.{n}.self_attn.q_proj.weight": np.ones((2, 2), np.float32) for n in range(32)}
    for arrays, texts in (({"weight": np.ones(3, np.float32)}, None), (weights, {"format": "pt"})):
        done = asked(save_safetensors(arrays, metadata=texts))
        assert_refused(done, "not a facecnn model (written by another program)")


@pytest.mark.fault("K14")
def test_weights_of_another_type(asked: Callable[..., Outcome], content: bytes) -> None:
    name = "model.conv1.weight"
    for dtype in ("F16", "BF16", "I8", "BOOL", "F8_E4M3"):
        assert_refused(asked(File.of(content).changed(entry(name, dtype=dtype))), f"{name} is {dtype}, ", "expected")


class _Touches:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.fault("K20")
def test_a_pickle_and_its_like_are_never_opened(asked: Callable[..., Outcome], tmp_path: Path) -> None:
    pwned = tmp_path / "pwned"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        done = asked(pickle.dumps(_Touches(pwned), protocol))
        assert_refused(done, "not safetensors")
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Touches(pwned)))
    np.savez(tmp_path / "model.npz", **{"conv1.weight": np.ones(3)})
    others = {
        "a zip archive": (tmp_path / "model.pt").read_bytes(),
        "PyTorch, Keras or NumPy": (tmp_path / "model.npz").read_bytes(),
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "ONNX": b"\x08\x08\x12\x07pytorch" + bytes(100),
        "a pickle, which is never loaded": pickle.dumps(_Touches(pwned)),
    }
    for kind, other in others.items():
        assert_refused(asked(other), "not safetensors (", kind)
    assert not pwned.exists()


# What is in a model


@pytest.mark.fault("K16")
def test_a_weight_that_is_no_number(
    asked: Callable[..., Outcome], content: bytes, made_people: Path, stopped: Path
) -> None:
    change = not_a_number("model.conv1.weight")
    assert_refused(asked(File.of(content).changed(change)), "model.conv1.weight holds 1 NaN")
    last = stopped / "last.safetensors"
    last.write_bytes(File.of(last.read_bytes()).changed(change))
    assert_refused(call("train", "--resume", stopped), "last.safetensors: model.conv1.weight holds 1 NaN")


@pytest.mark.fault("K17")
def test_the_format_of_another_version(asked: Callable[..., Outcome], content: bytes) -> None:
    done = asked(File.of(content).changed(metadata(format_version="99")))
    assert_refused(done, "written by a newer facecnn (format 99, this one reads up to 1): update facecnn")
    for version in ("0", "-1", "one", "", None):
        done = asked(File.of(content).changed(metadata(format_version=version)))
        assert_refused(done, "damaged: its format version is missing or no positive number")


@pytest.mark.fault("K18")
def test_a_list_of_people_that_is_not_the_last_layers(asked: Callable[..., Outcome], content: bytes) -> None:
    for classes, said in (
        (["a", "b"], "dense1.weight"),
        (["a", "b", "c", "d"], "dense1.weight"),
        (["a", "b", "a"], "its class list repeats a name"),
        ([], "its class list isn't a list of names"),
        ("abc", "its class list isn't a list of names"),
        (["a", "b", ""], "its class list isn't a list of names"),
    ):
        assert_refused(asked(File.of(content).changed(metadata(classes=json.dumps(classes)))), said)
    done = asked(File.of(content).changed(metadata(classes=json.dumps(["a", "b", "unknown"]))))
    assert done.exit_code == 0  # the output more than the people that a model with strangers has


@pytest.mark.fault("K19")
def test_other_people_than_the_models(data: Path, run_folder: Path) -> None:
    whole = call("eval", data, "-m", run_folder, "--split", "all", "--device", "reference", "--format", "json").json()
    shutil.rmtree(data / "person_0001")
    done = call("eval", data, "-m", run_folder, "--split", "all", "--device", "reference", "--format", "json")
    assert done.exit_code == 0, done.stderr
    for index in (0, 2):  # nobody's photos count as the next one's
        assert done.json()["confusion"][index] == whole["confusion"][index]
    assert sum(done.json()["confusion"][1]) == 0
    done = call("train", "--resume", run_folder, data)
    assert (done.exit_code, done.stdout) == (3, "")
    assert "gone: person_0001; new: nobody" in done.stderr
    (data / "person_0002").rename(data / "somebody")
    for done, said in (
        (call("eval", data, "-m", run_folder, "--device", "reference"), "somebody"),
        (call("train", "--resume", run_folder, data), "gone: person_0001, person_0002; new: somebody"),
    ):
        assert (done.exit_code, done.stdout) == (3, "")
        assert said in done.stderr


@pytest.mark.fault("K21")
def test_settings_in_a_model_are_checked_like_a_file(
    asked: Callable[..., Outcome], content: bytes, tmp_path: Path
) -> None:
    def settings(section: str, key: str | int, value: Any) -> Change:
        changed = json.loads(File.of(content).header["__metadata__"]["settings"])
        changed[section][key] = value
        return metadata(settings=json.dumps(changed))

    for change, said in (
        (settings("network", 0, {"convv": {"kernels": 4}}), "unknown layer convv: did you mean conv?"),
        (settings("network", 3, {"dense": {"units": 10**9}}), "at most 1000000"),
        (settings("train", "seed", "!!python/object/apply:os.system ['touch pwned']"), "train.seed must be a whole"),
        (settings("photos", "folder", 10_000_000 * "x"), "more than 1 MiB"),
        (metadata(settings="!!python/object/apply:os.system ['touch pwned']"), "its settings text is damaged"),
    ):
        assert_refused(asked(File.of(content).changed(change)), "model.safetensors: ", said)
    assert not Path("pwned").exists()


@pytest.mark.fault("K31")
def test_weights_that_are_views_are_saved_by_value(file: Path) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    views = {"turned": array.T, "some": array[:, ::2, 1:], "back": array[::-1], "fortran": np.asfortranarray(array)}
    save_checkpoint(file, Checkpoint({}, ["a"], views, {}))
    found = load_checkpoint(file).arrays
    for name, view in views.items():
        np.testing.assert_array_equal(found[name], view, strict=True)


@pytest.mark.fault("K32")
def test_a_model_alone_in_another_folder(
    data: Path, made_people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = call("train", data, *QUICK, "--out", tmp_path / "runs", "--name", "run")
    assert done.exit_code == 0, done.stderr
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs" / "run" / "best.safetensors").rename(tmp_path / "elsewhere" / "m.safetensors")
    before = predict(made_people, tmp_path / "elsewhere" / "m.safetensors").stdout
    shutil.rmtree(tmp_path / "runs")
    shutil.rmtree(data)
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = predict(made_people, Path("m.safetensors"))
    assert (done.exit_code, done.stdout) == (0, before)
    assert [*done.json()[0]["probabilities"]] == ["person_0000", "person_0001", "person_0002"]


@pytest.mark.long
@pytest.mark.fault("K33")
def test_a_model_goes_from_one_device_to_another(made_people: Path, model: Path, tmp_path: Path, run: Run) -> None:
    """On a card where there is one; else in Numba's simulator of one, where training would take many minutes."""
    environment, models = {}, [model]
    if json.loads(call("doctor", "--device", "reference", "--format", "json").stdout)["cuda"]["available"]:
        done = run("train", made_people, *QUICK[:-1], "cuda", "--out", tmp_path, "--name", "run", timeout=300)
        assert done.exit_code == 0, done.stderr
        models.append(tmp_path / "run")
    else:
        environment = {"NUMBA_ENABLE_CUDASIM": "1"}
    photo = made_people / "person_0000" / "0000.jpg"
    for trained in models:
        options = ["-m", trained, "--format", "json"]
        answers = [
            run("predict", photo, *options, "--device", "cuda", environment=environment, timeout=300),
            run("predict", photo, *options, "--device", "cpu"),
        ]
        assert [answer.exit_code for answer in answers] == [0, 0]
        one, other = (json.loads(answer.stdout)[0]["probabilities"] for answer in answers)
        assert one == pytest.approx(other, abs=1e-4)


@pytest.mark.fault("K34")
def test_export_of_a_damaged_model() -> None:
    pytest.skip("there is no export yet")


def fuzz(count: int, asked: Callable[..., Outcome], content: bytes) -> None:
    import resource

    chance = random.Random(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(changed))
            kind = chance.choice(["change", "change", "cut", "insert", "delete"])
            if kind == "change":
                changed[place] = chance.randrange(256)
            elif kind == "cut":
                del changed[place:]
                break
            elif kind == "insert":
                changed[place:place] = chance.randbytes(chance.randint(1, 20))
            else:
                del changed[place : place + chance.randint(1, 20)]
        begun = time.process_time()
        done = asked(bytes(changed))
        assert time.process_time() - begun < 5
        if changed != content:
            assert_refused(done)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # KiB


@pytest.mark.fault("K35")
@pytest.mark.skipif(sys.platform == "win32", reason="resource is POSIX's")
def test_a_hundred_random_damages(asked: Callable[..., Outcome], content: bytes) -> None:
    fuzz(100, asked, content)


@pytest.mark.long
@pytest.mark.fault("K35")
@pytest.mark.skipif(sys.platform == "win32", reason="resource is POSIX's")
def test_a_thousand_random_damages(asked: Callable[..., Outcome], content: bytes) -> None:
    fuzz(1000, asked, content)


# Going on with a run


@pytest.mark.fault("K22")
def test_a_run_goes_on_with_its_own_settings_only(stopped: Path) -> None:
    for options in (
        ["--set", "network.0.conv.kernels=5"],
        ["--set", "optimizer.learning_rate=0.5"],
        ["--set", "train.batch_size=4"],
        ["--epochs", "20"],
        ["--config", "deep"],
    ):
        done = call("train", "--resume", stopped, *options)
        assert (done.exit_code, done.stdout) == (2, "")
        assert f"--resume goes on with the run's own settings, so {options[0]} can't be given" in done.stderr
    config = stopped / "config.yaml"
    text = config.read_text(encoding="utf-8")
    changed = text.replace("kernels: 4 ", "kernels: 5 ", 1).replace("epochs: 6 ", "epochs: 9 ", 1)
    config.write_text(changed, encoding="utf-8")
    done = call("train", "--resume", stopped)
    assert_refused(done, "network[0].conv.kernels is 5, was 4; train.epochs is 9, was 6", "put them back")
    config.write_text(text, encoding="utf-8")
    assert call("train", "--resume", stopped).exit_code == 0


@pytest.mark.fault("K23")
def test_a_finished_run_has_nothing_to_go_on_with(run_folder: Path) -> None:
    before = (run_folder / "best.safetensors").read_bytes()
    done = call("train", "--resume", run_folder)
    assert done.exit_code == 0
    assert (
        f"had ended, at epoch 2: only its results are made anew. To train its model further, start a new run: "
        f"--init-from {run_folder}" in done.stderr
    )
    assert (run_folder / "best.safetensors").read_bytes() == before


@pytest.mark.fault("K23")
def test_a_run_at_its_very_start(made_people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from facecnn.learning.loop import Trainer

    def stop(*_: Any) -> bool:
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", stop)
        assert train(made_people, tmp_path, "--name", "run").exit_code == 9
    done = call("train", "--resume", tmp_path / "run", "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert "Going on after epoch 0, step 0" in done.stderr
    assert done.json()["epochs"] == 6


@pytest.mark.fault("K23")
def test_a_diverged_run(made_people: Path, tmp_path: Path) -> None:
    done = train(made_people, tmp_path, "--name", "run", "--set", "optimizer.learning_rate=1e9")
    assert done.exit_code == 7
    assert predict(made_people, tmp_path / "run").exit_code == 0
    done = call("train", "--resume", tmp_path / "run")
    assert (done.exit_code, done.stdout) == (7, "")
    assert "learning_rate" in done.stderr
    assert predict(made_people, tmp_path / "run").exit_code == 0  # what was good is kept


def assert_resumed_is_unbroken(optimizer: str, people: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--set", f"optimizer.name={optimizer}"]
    assert train(people, out, "--name", "unbroken", *options).exit_code == 0
    stop_after(3, monkeypatch)
    assert train(people, out, "--name", "resumed", *options).exit_code == 130
    assert call("train", "--resume", out / "resumed").exit_code == 0
    resumed, unbroken = (
        {path.name: path.read_bytes() for path in (out / name).glob("*.safetensors")}
        for name in ("resumed", "unbroken")
    )
    assert resumed.keys() >= {"best.safetensors", "last.safetensors"}
    assert resumed == unbroken


@pytest.mark.fault("K24")
def test_resumed_is_unbroken(made_people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_resumed_is_unbroken("adamw", made_people, tmp_path, monkeypatch)


@pytest.mark.long
@pytest.mark.fault("K24")
@pytest.mark.parametrize("optimizer", [name for name in {**OPTIMIZERS, **FULL_BATCH_OPTIMIZERS} if name != "adamw"])
def test_resumed_is_unbroken_with_every_optimizer(
    optimizer: str, made_people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_resumed_is_unbroken(optimizer, made_people, tmp_path, monkeypatch)


@pytest.mark.fault("K25")
def test_an_optimizer_without_its_state(stopped: Path) -> None:
    def strip(header: dict[str, Any], arrays: bytearray) -> None:
        kept = bytearray()
        for name in sorted(set(header) - {"__metadata__"}, key=lambda name: header[name]["data_offsets"]):
            begin, end = header[name]["data_offsets"]
            if name.startswith(("mean.", "second_moment.")):
                del header[name]
            else:
                header[name]["data_offsets"] = [len(kept), len(kept) + end - begin]
                kept += arrays[begin:end]
        arrays[:] = kept

    last, config = stopped / "last.safetensors", stopped / "config.yaml"
    before, text = last.read_bytes(), config.read_text(encoding="utf-8")
    last.write_bytes(File.of(before).changed(strip))
    assert_refused(call("train", "--resume", stopped), "mean.")
    last.write_bytes(before)
    assert "name: adamw" in text
    config.write_text(text.replace("name: adamw", "name: adam"), encoding="utf-8")
    assert_refused(call("train", "--resume", stopped), 'optimizer.name is "adam", was "adamw"')


@pytest.mark.fault("K27")
def test_a_run_that_is_there_already(made_people: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "theirs.txt").write_text("keep")
    shutil.copytree(model, tmp_path / "mine")
    (tmp_path / "file").write_text("keep")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for name, options, exit_code, said in (
        ("mine", [], 2, "this run exists already: --resume "),
        ("run", [], 2, "or choose another --name"),
        ("run", ["--overwrite"], 2, "not the folder of a run, so it is not overwritten: choose another --name"),
        ("file", [], 6, "a file has this name: choose another --name"),
        ("file", ["--overwrite"], 6, "a file has this name: choose another --name"),
    ):
        done = train(made_people, tmp_path, "--name", name, *options)
        assert (done.exit_code, done.stdout) == (exit_code, "")
        assert said in done.stderr
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.fault("K29")
def test_leftovers_of_a_kill(stopped: Path, content: bytes, made_people: Path) -> None:
    ours, theirs = stopped / ".0123456789abcdef.facecnn-tmp", stopped / ".best.safetensors.tmp123"
    for leftover in (ours, theirs):
        leftover.write_bytes(content[: len(content) // 2])
    for done in (predict(made_people, stopped), call("train", "--resume", stopped), predict(made_people, stopped)):
        assert done.exit_code == 0, done.stderr
        assert ours.name not in done.stderr
        assert theirs.name not in done.stderr
    assert not ours.exists()
    assert theirs.exists()  # no name of ours, so it isn't ours to delete


@pytest.mark.fault("K30")
def test_a_checkpoint_that_is_a_link(stopped: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.safetensors"
    (stopped / "last.safetensors").rename(elsewhere)
    (stopped / "last.safetensors").symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    done = call("train", "--resume", stopped)
    assert done.exit_code == 0, done.stderr
    assert not (stopped / "last.safetensors").is_symlink()
    assert load_checkpoint(stopped / "last.safetensors").state["progress"]["epoch"] == 6
    assert elsewhere.read_bytes() == before


# Two at once


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.long
@pytest.mark.fault("K26")
def test_two_trainings_of_one_name_at_once(made_people: Path, model: Path, tmp_path: Path) -> None:
    for number in range(20):
        arguments = ["train", made_people, *QUICK, "--out", tmp_path, "--name", f"run{number}"]
        processes = [start(*arguments) for _ in range(2)]
        ends = sorted(
            ((done.returncode, stderr.decode()) for done in processes for _, stderr in [done.communicate(timeout=120)])
        )
        assert [code for code, _ in ends] == [0, 6], ends
        assert "in use by process" in ends[1][1]
        assert (tmp_path / f"run{number}" / "best.safetensors").read_bytes() == (
            model / "best.safetensors"
        ).read_bytes()


@pytest.mark.fault("K26")
def test_a_run_in_use_and_a_lock_of_the_dead(made_people: Path, tmp_path: Path, run: Run) -> None:
    options = [*QUICK, "--epochs", "100000", "--out", tmp_path, "--name", "run"]
    with start("train", made_people, *options) as first:
        try:
            wait_for(tmp_path / "run" / "metrics.jsonl", first)
            for second in (["train", made_people, *options], ["train", "--resume", tmp_path / "run"]):
                done = call(*second)
                assert (done.exit_code, done.stdout) == (6, "")
                assert f"run: in use by process {first.pid}: " in done.stderr
        finally:
            first.kill()
            first.communicate()
    assert (tmp_path / "run" / ".facecnn.lock").exists()
    assert train(made_people, tmp_path, "--name", "run", "--overwrite").exit_code == 0


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a process has made a file."""
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.fault("K28")
def test_a_model_that_is_replaced_while_it_is_read(
    made_people: Path, model: Path, stopped: Path, file: Path, tmp_path: Path
) -> None:
    models = [(folder / "last.safetensors").read_bytes() for folder in (model, stopped)]
    answers = []
    for one in models:
        file.write_bytes(one)
        answers.append(predict(made_people, file).stdout)
    assert answers[0] != answers[1]
    done = threading.Event()

    def replace() -> None:
        while not done.is_set():
            for one in models:
                (tmp_path / "new").write_bytes(one)
                (tmp_path / "new").replace(file)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        seen = [predict(made_people, file) for _ in range(50)]
    finally:
        done.set()
        thread.join()
    assert {answer.exit_code for answer in seen} == {0}
    assert {answer.stdout for answer in seen} == set(answers)
