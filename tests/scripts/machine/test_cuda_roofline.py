"""``machine/cuda_roofline.py``: the work of a training step, counted without a card."""

from __future__ import annotations

import json

from scripts.running import run_script


def test_operations_and_bytes_are_those_of_the_formulas() -> None:
    done = run_script("machine/cuda_roofline", "seed", "--batch", "3", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    rows = {(row["layer"], row["kernel"]): row for row in json.loads(done.stdout)["seed"]}
    forward = rows["conv1", "conv_forward"]
    # 220 x 220 positions of 8 kernels of 5 x 5 x 3; the pooled map is stored, with a byte for each winner's place.
    assert forward["operations"] == 2 * 3 * 220 * 220 * 8 * 75
    assert forward["bytes"] == 4 * 3 * 224 * 224 * 3 + 5 * 3 * 110 * 110 * 8 + 4 * (8 * 75 + 8)
    weights = rows["conv1", "conv_backward_weight"]
    assert weights["operations"] == 2 * 3 * 110 * 110 * 8 * 75
    neuron = rows["neuron1", "neuron_forward"]
    assert neuron["operations"] == 2 * 3 * 110 * 110 * 8
    update = rows["update", "optimizer_update"]
    parameters = 8 * 75 + 8 + 8 * 110 * 110 + 8 + 16 * 8 + 16 + 2 * 16 + 2
    assert update["bytes"] >= 4 * 5 * parameters  # weights and velocity read and written, the gradient read
    for row in rows.values():
        assert row["launches"] >= 1
        assert row["microseconds"] == 1e6 * max(row["operations"] / 67e12, row["bytes"] / 3.35e12)


def test_a_table_a_config() -> None:
    done = run_script("machine/cuda_roofline", "smoke", "default", "--batch", "2")
    assert done.exit_code == 0
    assert done.stdout.count("| in all |") == 2


def test_bad_options_are_refused() -> None:
    for arguments in (
        ("--batch", "0"),
        ("--tflops", "-1"),
        ("--nosuch",),
        ("--node-us", "-1"),
        ("--multiprocessors", "0"),
    ):
        assert run_script("machine/cuda_roofline", *arguments).exit_code == 2
