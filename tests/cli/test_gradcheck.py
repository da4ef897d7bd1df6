"""``facecnn gradcheck``."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facecnn.kernels import cpu, reference

from .contract import check
from .running import Facecnn

ROW = {
    "name": str,
    "parameter": str,
    "max_relative_error": (float, None),
    "elements": int,
    "passed": bool,
    "fault": ({"place": [int], "backward": (float, None), "expected": (float, None), "likeness": (str, None)}, None),
}
FIGURES = {
    "passed": bool,
    "worst": (float, None),
    "layers": [ROW],
    "parts": [
        {"name": str, "elements": int, "max_relative_error": (float, None), "worst_at": str, "passed": bool},
    ],
    "shrunk_to": {
        "height": int,
        "width": int,
        "channels": int,
        "photos": int,
        "layers": [{"name": str, "input": [int], "output": [int], "parameters": int, "multiply_adds": int}],
    },
    "step": float,
    "kink_distance": (float, None),
    "tolerance": float,
    "seed": int,
    "device": str,
    "device_reason": str,
    "on_device": (
        {
            "passed": bool,
            "worst": (float, None),
            "layers": [ROW],
            "kink_distance": (float, None),
            "tolerance": float,
            "description": str,
        },
        None,
    ),
}


def checked(facecnn: Facecnn, *options: str | Path, exit_code: int = 0) -> dict[str, Any]:
    done = facecnn("gradcheck", "--format", "json", *options)
    assert done.exit_code == exit_code, done.stderr
    figures: dict[str, Any] = done.json()
    check(figures, FIGURES)
    assert figures["passed"] is (exit_code == 0)
    return figures


def break_kernel(monkeypatch: pytest.MonkeyPatch, backend: Any, name: str, change: Any) -> None:
    right = getattr(backend, name)

    def wrong(result: Any, *arguments: Any) -> None:
        right(result, *arguments)
        result[...] = change(result.copy())

    monkeypatch.setattr(backend, name, wrong)


def wrong_rows(rows: list[dict[str, Any]]) -> set[str]:
    return {f"{row['name']}.{row['parameter']}" for row in rows if not row["passed"]}


def test_the_reference(facecnn: Facecnn) -> None:
    figures = checked(facecnn, "-c", "smoke", "--device", "reference")
    assert (figures["device"], figures["on_device"]) == ("reference", None)
    assert figures["worst"] == max(row["max_relative_error"] for row in figures["layers"]) <= figures["tolerance"]
    shrunk = figures["shrunk_to"]
    assert (shrunk["height"], shrunk["width"], shrunk["channels"]) == (8, 12, 1)
    assert [layer["name"] for layer in shrunk["layers"]] == ["conv1", "conv2", "neuron1", "activation1", "dense1"]
    weights = sum(row["elements"] for row in figures["layers"] if row["parameter"] != "input")
    assert weights == sum(layer["parameters"] for layer in shrunk["layers"]) == figures["parts"][-1]["elements"]
    assert figures["kink_distance"] >= 50 * figures["step"]


def test_the_cpu(facecnn: Facecnn) -> None:
    figures = checked(facecnn, "-c", "smoke", "--device", "cpu")
    there = figures["on_device"]
    assert figures["device"] == "cpu"
    assert there["worst"] <= there["tolerance"]
    trained = {(row["name"], row["parameter"]) for row in figures["layers"] if row["parameter"] != "input"}
    assert {(row["name"], row["parameter"]) for row in there["layers"]} == {*trained, ("loss", "input")}


def test_text(facecnn: Facecnn) -> None:
    done = facecnn("gradcheck", "-c", "smoke", "--device", "cpu")
    assert done.exit_code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    for part in (
        "Each layer alone",
        "conv1, its sums only",
        "the whole network with the loss",
        "a step h of 2e-05",
        "steps.",
        "cpu against the reference",
        "All gradients are right, and cpu computes them.",
    ):
        assert part in done.stdout
    assert "WRONG" not in done.stdout
    assert "Device: cpu" in done.stderr
    assert facecnn("gradcheck", "-c", "smoke", "--device", "reference", "--quiet").stderr == ""


def test_a_wrong_formula(facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch) -> None:
    break_kernel(monkeypatch, reference, "conv_backward_weight", lambda dweight: dweight[:, ::-1, ::-1])
    figures = checked(facecnn, "-c", "smoke", "--device", "reference", exit_code=1)
    assert wrong_rows(figures["layers"]) == {"conv1.weight", "conv2.weight"}
    assert figures["worst"] > 0.01
    assert not figures["parts"][0]["passed"]
    assert figures["parts"][0]["worst_at"] == "conv1.weight"
    fault = next(row["fault"] for row in figures["layers"] if not row["passed"])
    assert len(fault["place"]) == 4
    assert fault["likeness"] == "the right one turned by 180 degrees"

    done = facecnn("gradcheck", "-c", "smoke", "--device", "reference")
    assert done.exit_code == 1
    assert max(map(len, done.stdout.splitlines())) <= 80
    text = " ".join(done.stdout.split())
    assert "The whole array is the right one turned by 180 degrees." in text
    assert "In the growing network the mistake comes in with: conv1, its sums only." in text
    assert "All gradients are right" not in text
    assert "wrong gradients: conv1.weight, conv2.weight" in done.stderr


def test_a_mistake_that_only_the_whole_network_shows(facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch) -> None:
    from facecnn.network.network import Network

    right = Network.backward

    def forgets(network: Network, *arguments: Any, **options: Any) -> None:
        right(network, *arguments, **options)
        assert network.gradient is not None
        network.gradient.flat[...] = 0

    monkeypatch.setattr(Network, "backward", forgets)
    done = facecnn("gradcheck", "-c", "smoke", "--device", "reference")
    assert done.exit_code == 1
    assert "the whole network, though of no layer alone" in done.stderr
    assert "comes in with: the whole network with the loss" in " ".join(done.stdout.split())


def test_a_wrong_device(facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch) -> None:
    break_kernel(monkeypatch, cpu, "neuron_backward_weight", lambda dweight: dweight * np.float32(1.01))
    figures = checked(facecnn, "-c", "smoke", "--device", "cpu", exit_code=5)
    assert wrong_rows(figures["layers"]) == set()
    assert wrong_rows(figures["on_device"]["layers"]) == {"neuron1.weight"}
    done = facecnn("gradcheck", "-c", "smoke", "--device", "cpu")
    assert done.exit_code == 5
    assert "1.01 times the right one" in done.stdout
    assert "cpu gives other gradients than the reference: neuron1.weight" in done.stderr


def test_something_that_is_not_a_number(facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch) -> None:
    break_kernel(monkeypatch, reference, "dense_backward_input", lambda dx: dx * np.nan)
    figures = checked(facecnn, "-c", "smoke", "--device", "reference", exit_code=1)
    assert wrong_rows(figures["layers"]) == {"dense1.input"}
    assert figures["worst"] is None
    done = facecnn("gradcheck", "-c", "smoke", "--device", "reference")
    assert "no number" in done.stdout


def test_settings_and_seed(facecnn: Facecnn) -> None:
    options = ("-c", "smoke", "--device", "reference")
    first, again, other = (checked(facecnn, *options, "--seed", seed) for seed in ("3", "3", "4"))
    assert first == again
    assert first["seed"] == 3
    assert first["layers"] != other["layers"]
    changed = checked(facecnn, *options, "--set", "network.0.conv.size=2", "--set", "photos.colour=rgb")
    rows = {(row["name"], row["parameter"]): row["elements"] for row in changed["layers"]}
    assert rows["conv1", "weight"] == 2 * 2 * 2 * 3


@pytest.mark.parametrize(
    ("network", "place", "message"),
    [
        ("- conv: {kernels: 2, size: 30}\n  - dense: 2", "config.yaml:6:5", "does not fit"),
        ("- conv: {kernels: 2}", "config.yaml:6:5", "must give units"),
    ],
)
def test_a_network_that_does_not_fit(
    network: str, place: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(f"version: 1\nphotos:\n  size: 24\n\nnetwork:\n  {network}\n")
    done = facecnn("gradcheck", "-c", "config.yaml", "--device", "reference")
    assert (done.exit_code, done.stdout) == (2, "")
    assert place in done.stderr
    assert message in done.stderr


def test_a_device_that_there_is_not(facecnn: Facecnn) -> None:
    done = facecnn("gradcheck", "--device", "cudo")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "did you mean cuda?" in done.stderr


def test_help(facecnn: Facecnn) -> None:
    done = facecnn("gradcheck", "--help")
    assert done.exit_code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    text = " ".join(done.stdout.split())
    assert "Exit code 1 if a gradient's formula is wrong, 5 if the device alone is" in text
    for option in ("--config", "-c", "--set", "--device", "--seed", "--format", "--traceback"):
        assert option in text
