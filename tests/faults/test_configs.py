"""Settings files, and settings on the command line, that can't be used as they are."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cli.running import Outcome, call

from .conftest import WITHOUT_ROOT, Run, assert_refusal

FILE = Path("config.yaml")

MERGE_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{this}: &{this} [{','.join(9 * [f'*{before}'])}]\n" for before, this in zip("abcdefgh", "bcdefghi", strict=True)
)

REFUSED: dict[str, list[tuple[str | bytes, str, str]]] = {
    "C01": [
        ("version: 1\noptimizer:\n  learning_rat: 0.1", "3:3", "unknown key learning_rat: did you mean learning_rate?")
    ],
    "C02": [("photos:\n  size: 24\n  batch_size: 3", "3:3", "batch_size belongs under train, not under photos")],
    "C03": [
        ('train: {epochs: "ten"}', "1:9", "train.epochs must be a whole number, got the text 'ten'"),
        ("train: {epochs: 3.5}", "1:9", "train.epochs must be a whole number, got 3.5"),
        ("train: {epochs: true}", "1:9", "train.epochs must be a whole number, got true"),
        ("network: 5", "1:1", "network must be a list of layers"),
        ("photos: {folder: [a, b]}", "1:10", "photos.folder must be text or null, got a list"),
    ],
    "C04": [('optimizer: {learning_rate: "0.1"}', "1:13", "write it without quotes")],
    "C05": [
        ("optimizer: {learning_rate: -0.1}", "1:13", "must be greater than 0 (got -0.1)"),
        ("train: {epochs: -1}", "1:9", "must be at least 1 and at most 1000000 (got -1)"),
        ("train: {batch_size: 0}", "1:9", "must be at least 1 and at most 65536 (got 0)"),
        ("optimizer: {name: momentum, momentum: 1.5}", "1:29", "must be at least 0 and less than 1 (got 1.5)"),
        ("network: [dropout: 1.0]", "1:11", "must be at least 0 and less than 1 (got 1.0)"),
    ],
    "C06": [
        ("optimizer: {learning_rate: .nan}", "1:13", "must be a number, got .nan"),
        ("optimizer: {learning_rate: .inf}", "1:13", "too large a number (got .inf)"),
        ("optimizer: {learning_rate: 1e400}", "1:13", "too large a number (got 1e400)"),
        ("optimizer: {learning_rate: -.inf}", "1:13", "must be greater than 0"),
        ("train: {epochs: 1e30}", "1:9", "must be a whole number, got 1e30"),
        ("train: {seed: 99999999999999999999}", "1:9", "at most 4294967295"),
    ],
    "C07": [(f"train: {{seed: {5000 * '9'}}}", "1:9", "train.seed is too large a number")],
    "C08": [("train:\n  epochs: 3\n  seed: 1\n  epochs: 4", "4:3", "epochs is given twice (first on line 2)")],
    "C09": [("train:\n\tbatch_size: 8", "2:1", "tab character: indent with spaces")],
    "C10": [("base: &b {lr: 1}\ntrain: *b", "1:7", "anchor &b: delete it")],
    "C12": [("a: &x {b: *x}", "1:4", "anchor &x: delete it")],
    "C13": [
        (
            'train: {seed: !!python/object/apply:os.system ["touch pwned"]}',
            "1:15",
            "tag !!python/object/apply:os.system: delete it",
        ),
        ("train: {seed: !!binary aGk=}", "1:15", "tag !!binary"),
        ("train: !!set {a, b}", "1:8", "tag !!set"),
        ("train: !custom {epochs: 1}", "1:8", "tag !custom"),
    ],
    "C14": [
        (
            "# a\n# b\ntrain: {epochs: 3} # café".encode("latin-1"),
            "3:25",
            "not UTF-8 (byte 0xE9 at position 32): save it",
        ),
        ("photos: {folder: café}".encode("latin-1"), "1:21", "not UTF-8 (byte 0xE9 at position 20): save it as UTF-8"),
    ],
    "C15": [
        ("train: {epochs: 3}".encode("utf-16"), "", "written in UTF-16: save it as UTF-8"),
        ("train: {epochs: 3}".encode("utf-16-le"), "1:2", "save the file as UTF-8"),
    ],
    "C16": [
        ("", "", "empty: there are no settings in it"),
        ("# only this\n", "", "empty: there are no settings in it"),
        ("---\n", "", "empty: there are no settings in it"),
    ],
    "C17": [
        ("- a\n- b", "1:1", "expected key: value lines, got a list"),
        ("word", "1:1", "expected key: value lines, got the text 'word'"),
        ("[1, 2]", "1:1", "expected key: value lines, got a list"),
        ('{"epochs": 3}', "1:2", "epochs belongs under train"),  # JSON is YAML
        ("train: {epochs: 3}\n---\ntrain: {epochs: 4}", "2:1", "a second document begins here"),
    ],
    "C18": [
        (10_000_000 * b"#", "", "larger than 64 KiB"),
        (b"".join(b"key%d: 1\n" % number for number in range(100_000)), "", "larger than 64 KiB"),
    ],
    "C19": [
        (2000 * "[", "1:17", "nested more than 16 deep"),
        (2000 * "{", "1:17", "nested more than 16 deep"),
    ],
    "C20": [
        ("train: {epochs: 3\0}", "1:18", "NUL character U+0000"),
        ("train:\n  epochs: 3\v", "2:12", "control character U+000B"),
        ("train:\n  epochs:\u00a03", "2:3", "U+00A0 (no-break space) is not a space to YAML"),
        ("lr:0.1", "1:1", "a space is missing after the colon"),
        ("train:\n  epochs:3", "2:3", "a space is missing after the colon"),
    ],
    "C21": [
        ("photos: {augment: {mirror: no}}", "1:20", "the text 'no': write true or false"),
        ("photos: {augment: {mirror: off}}", "1:20", "the text 'off': write true or false"),
        ("train: {seed: 12:30:00}", "1:9", "must be a whole number, got the text '12:30:00'"),
        ("train: {seed: 2026-01-01}", "1:9", "must be a whole number, got the text '2026-01-01'"),
    ],
    "C22": [
        ("1: a", "1:1", "a key must be text, got 1"),
        ("~: b", "1:1", "a key must be text, got nothing"),
        ("? [1, 2]\n: c", "1:3", "a key must be text, got a list"),
        ('"": d', "1:1", "a key must be text, got an empty text"),
    ],
    "C23": [
        ("train:\n  epochs:\n  seed: 3", "2:3", "train.epochs has no value: it must be a whole number"),
        ("train: {epochs: ~}", "1:9", "train.epochs has no value"),
    ],
    "C24": [
        (
            "photos: {size: 18}\nnetwork:\n  - conv: 4\n  - conv: {kernels: 2, size: 32}\n  - dense: people\n",
            "4:5",
            "network[1] conv: a kernel of 32x32 does not fit its input of 16x16, 4 maps\nThe layers before it:\n"
            "  conv1          18x18, 1 map -> 16x16, 4 maps\n",
        )
    ],
    "C25": [
        (
            "photos: {size: 64}\nnetwork:\n" + 7 * "  - pool: 2\n" + "  - dense: people\n",
            "9:5",
            "network[6] pool: a pool of 2x2 does not fit its input of 1x1, 1 map",
        ),
        (
            "photos: {size: 4}\nnetwork:\n  - pool: 2\n  - pool: {size: 3, stride: 5}\n  - dense: people\n",
            "4:5",
            "network[1] pool: a pool of 3x3 does not fit its input of 2x2, 1 map",
        ),
    ],
    "C26": [
        ("network: [pool: {stride: 0}]", "1:18", "network[0].pool.stride must be at least 1 and at most 4096 (got 0)"),
        (
            "network: [conv: {kernels: 8, stride: 0}]",
            "1:30",
            "network[0].conv.stride must be at least 1 and at most 4096 (got 0)",
        ),
        ("network: [conv: {kernels: 8, stride: 2, padding: same}]", "1:11", "network[0] conv: padding: same keeps the"),
        ("network: [conv: {kernels: 8, dilation: 0}]", "1:30", "unknown key dilation"),
        ("network: [conv: {kernels: 8, padding: -1}]", "1:30", "network[0].conv.padding must be valid or same, got -1"),
        ("network: [conv: {kernels: 8, padding: 3}]", "1:30", "network[0].conv.padding must be valid or same, got 3"),
    ],
    "C29": [
        ("optimizer: {name: sgd, beta2: 0.9}", "1:24", "beta2 belongs to rmsprop, adam, adamw or lion, not sgd"),
        ("optimizer: {name: lbfgs, momentum: 0.9}", "1:26", "momentum belongs to momentum or nesterov, not lbfgs"),
    ],
    "C30": [
        ("optimizer: {name: adamm}", "1:13", "sgd, momentum, nesterov"),
        ("optimizer: {name: adamm}", "1:13", "got the text 'adamm': did you mean adam?"),
        ("network: [activation: rellu]", "1:11", "got the text 'rellu': did you mean relu?"),
        ("schedule: {name: cosin}", "1:12", "got the text 'cosin': did you mean cosine?"),
    ],
    "C32": [
        ("network: []", "1:1", "network has no layers"),
        ("network: [conv: 4]", "1:11", "the last layer gives 46x46, 4 maps, the data needs 2"),
        ("network:\n- softmax\n- softmax", "2:3", "network[0]: unknown layer softmax"),
        ("network:\n- dense: people\n- activation: softmax", "3:3", "network[1].activation.name must be"),
        ("network:\n- dense: 4\n- conv: 4\n- dense: people", "3:3", "network[1] conv: conv needs maps"),
    ],
    "C33": [
        ("network: [dense: 1000000000]", "1:11", "network[0].dense.units must be at least 1 and at most 1000000"),
        ("network: [conv: 100000]", "1:11", "network[0].conv.kernels must be at least 1 and at most 4096"),
    ],
    "C38": [("version: 99\nwhatever: 3", "1:1", "written for version 99, this is 1: update facecnn")],
}
"""Texts of files, each with the place and the words that the refusal must have."""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def write(text: str | bytes) -> None:
    FILE.write_bytes(text if isinstance(text, bytes) else text.encode())


assert_refused = partial(assert_refusal, exit_code=2, longest=1500)


def rows(identities: Iterable[str]) -> list[Any]:
    return [pytest.param(identity, marks=pytest.mark.fault(identity), id=identity) for identity in identities]


@pytest.mark.parametrize("row", rows(REFUSED))
def test_a_faulty_file_is_refused_with_the_place_and_the_reason(row: str) -> None:
    for text, place, said in REFUSED[row]:
        write(text)
        done = call("config", "check", FILE)
        assert_refused(done, said)
        assert done.stderr.startswith(f"error: {FILE}:{place}: " if place else f"error: {FILE}: ")
    assert [*Path().iterdir()] == [FILE]  # nothing was run (C13), nothing was written


ACCEPTED: dict[str, list[tuple[str, tuple[str, ...], Any]]] = {
    "C04": [("optimizer: {learning_rate: 1e-3}", ("optimizer", "learning_rate"), 0.001)],
    "C15": [("\ufefftrain: {epochs: 3}", ("train", "epochs"), 3)],
    "C21": [
        ("train: {seed: 012}", ("train", "seed"), 12),
        ("photos: {folder: no}", ("photos", "folder"), "no"),
        ("photos: {folder: 2026-01-01}", ("photos", "folder"), "2026-01-01"),
    ],
    "C26": [  # an even kernel has no middle; "same" gives the map's size all the same
        (
            "network: [conv: {kernels: 8, size: 4, padding: same}, dense: people]",
            ("network", "0", "conv", "padding"),
            "same",
        )
    ],
}


@pytest.mark.parametrize("row", rows(ACCEPTED))
def test_what_is_no_fault_is_read_as_meant(row: str) -> None:
    from ruamel.yaml import YAML

    for text, keys, value in ACCEPTED[row]:
        write(text)
        done = call("config", "show", "-c", FILE)
        assert (done.exit_code, done.stderr) == (0, "")
        found = YAML(typ="safe", pure=True).load(done.stdout)
        for key in keys:
            found = found[int(key)] if isinstance(found, list) else found[key]
        assert found == value
        assert type(found) is type(value)


@pytest.mark.fault("C26")
def test_an_even_kernel_with_same_padding_keeps_the_maps_size() -> None:
    write("photos: {size: 16}\nnetwork: [conv: {kernels: 8, size: 4, padding: same}, dense: people]")
    assert re.search(r"conv1 +16x16, 1 map +16x16, 8 maps ", call("config", "check", FILE).stdout)


@pytest.mark.fault("C11")
def test_a_merge_bomb_takes_neither_time_nor_memory(run: Run) -> None:
    write(MERGE_BOMB)
    done = run("config", "check", FILE, before="ulimit -v 2000000", timeout=10)
    assert_refused(done, f"{FILE}:1:4: anchor &a", "alias *a")


@pytest.mark.fault("C34")
def test_a_config_that_is_no_readable_file(run: Run) -> None:
    Path("nosuchyet.yaml").write_text("train: {epochs: 3}")
    assert_refused(call("train", "-c", "nosuch.yaml"), "nosuch.yaml: no such file: did you mean nosuchyet.yaml?")
    assert_refused(call("train", "-c", "."), ".: a folder, not a settings file")
    if hasattr(os, "mkfifo"):
        os.mkfifo("fifo")
        assert_refused(run("train", "-c", "fifo", timeout=10), "fifo: not a regular file")
    if Path("/dev/zero").exists():
        assert_refused(run("train", "-c", "/dev/zero", timeout=10), "/dev/zero: not a regular file")


@pytest.mark.fault("C34")
def test_a_config_that_may_not_be_read(run: Run) -> None:
    write("train: {epochs: 3}")
    FILE.chmod(0)
    if os.access(FILE, os.R_OK):
        done = run("train", "-c", FILE, prefix=WITHOUT_ROOT, timeout=10)
        if "setpriv" in done.stderr:
            pytest.skip("this user may read everything")
    else:
        done = run("train", "-c", FILE, timeout=10)
    assert_refused(done, f"{FILE}: no permission to read it")


@pytest.mark.fault("C39")
def test_all_faults_are_listed_in_order() -> None:
    write("trian: {}\ntrain:\n  epochs: ten\n  batch: 3\nphotos:\n  size: 2\noptimizer:\n  learning_rate: -1\n")
    done = call("config", "check", FILE)
    assert_refused(done)
    places = re.findall(rf"{FILE}:(\d+):\d+: ", done.stderr)
    assert places == ["1", "3", "4", "6", "8"]


# Settings and the data


REFERENCE = ("--device", "reference")
"""Its kernels needn't be compiled for networks that nothing else here has."""

SMALL = "photos: {faces: off, size: 12}\nnetwork:\n  - conv: {kernels: 2, pool: 2}\n"


def train(data: Path, *options: str | Path) -> Outcome:
    return call("train", data, *options, "--out", "runs", "--format", "json")


@pytest.mark.fault("C27")
def test_a_batch_larger_than_the_data_set_is_all_of_it(made_people: Path) -> None:
    write(SMALL + "  - dense: people\ntrain: {batch_size: 1000, epochs: 2, least_steps: 0}\n")
    done = train(made_people, "-c", FILE, "--dry-run", *REFERENCE)
    assert done.exit_code == 0, done.stderr
    assert "Batch size: 28, all there is (train.batch_size is 1000)" in done.stderr
    assert (done.json()["batch_size"], done.json()["steps"]) == (28, 2)


@pytest.mark.fault("C28")
@pytest.mark.parametrize("batch", [1, 16])
def test_a_batch_of_one_with_batch_normalisation(batch: int, made_people: Path) -> None:
    write(SMALL + f"  - batch_norm\n  - dense: people\ntrain: {{batch_size: {batch}, epochs: 2}}\n")
    done = call("cross-validate", made_people, "-c", FILE, "--folds", "2", *REFERENCE, "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert 36 - 17 in [fold["photos"] for fold in done.json()["folds"]]  # 17 to train on: 16, and a last one
    assert all(math.isfinite(fold["log_loss"]) for fold in done.json()["folds"])


@pytest.mark.fault("C31")
def test_outputs_that_are_not_the_people(made_people: Path) -> None:
    write(SMALL + "  - dense: 2\n")
    done = train(made_people, "-c", FILE, "--dry-run", *REFERENCE)
    assert_refused(done, f"{FILE}:4:5: the last layer gives 2 outputs, the data needs 3", "`- dense: {units: people}`")


@pytest.mark.fault("C35")
def test_paths_in_a_config(made_people: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``~`` is expanded, a relative path is the working folder's, all else is taken to the letter."""
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("sub").mkdir()
    config = Path("sub") / FILE

    def start(folder: str) -> Outcome:
        config.write_text(f"photos: {{folder: {json.dumps(folder)}, faces: off}}\n")
        return call("train", "-c", config, "--dry-run", *REFERENCE)

    for absent, shown in (
        ("~/faces", str(tmp_path / "faces")),
        ("$HOME/faces", "$HOME/faces"),
        (r"C:\faces", r"C:\faces"),
        (f"{made_people} ", f"{made_people} : no such folder; did you mean {made_people}?"),
    ):
        done = start(absent)
        assert (done.exit_code, done.stdout) == (3, "")
        assert shown in done.stderr
    (tmp_path / "faces").symlink_to(made_people)
    Path("photos").symlink_to(made_people)
    for present in ("~/faces", "photos", "./photos"):
        assert start(present).exit_code == 0


# The command line


@pytest.mark.fault("C36")
def test_set_is_checked_like_the_file() -> None:
    write("train: {epochs: 5}")
    for options, said in (
        (["--set", "train.epochs=abc"], "--set train.epochs=abc: train.epochs must be a whole number, got the text"),
        (["--set", "nosuch=1"], "--set nosuch=1: unknown key nosuch"),
        (["--set", "train.epochs"], "--set train.epochs: a value is missing: --set train.epochs=VALUE"),
        (["--epochs", "0"], "--epochs 0: train.epochs must be at least 1"),
    ):
        assert_refused(call("train", "-c", FILE, *options), said)


@pytest.mark.fault("C36")
def test_the_command_line_wins(made_people: Path) -> None:
    write("train: {epochs: 5, least_steps: 0}\nphotos: {faces: off, size: 12}\nnetwork: [dense: people]")
    for options, epochs in (([], 5), (["--set", "train.epochs=4"], 4), (["--set", "train.epochs=4", "--epochs=3"], 3)):
        done = train(made_people, "-c", FILE, *options, "--dry-run", *REFERENCE)
        assert done.json()["epochs"] == epochs


@pytest.mark.fault("C37")
def test_settings_that_facecnn_wrote_are_read_back_to_the_same_training(made_people: Path) -> None:
    FILE.write_text(call("config", "show", "-c", "smoke", "--set", "train.epochs=9").stdout, encoding="utf-8")
    losses = []
    for name, options in (("first", ["-c", FILE, "--epochs", "2"]), ("again", ["-c", "runs/first/config.yaml"])):
        done = train(made_people, *options, "--name", name)
        assert done.exit_code == 0, done.stderr
        assert "warning" not in done.stderr
        assert done.json()["epochs"] == 2  # as the command line said, and as it was recorded
        losses.append(json.loads(Path(f"runs/{name}/metrics.jsonl").read_text().splitlines()[0])["train_loss"])
    assert losses[0] == losses[1]


@pytest.mark.fault("C40")
def test_odd_names_of_runs_stay_where_they_belong(made_people: Path, tmp_path: Path) -> None:
    for name in (1_000_000 * "x", "../../etc/x", "../x", "a\nb", "\x1b[31m", ""):
        assert_refused(call("train", made_people, "-c", "smoke", "--name", name, "--out", "runs", *REFERENCE), "--name")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert [*Path().iterdir()] == []
