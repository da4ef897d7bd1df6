"""machine/roofline.py: what networks ask of a processor; of what that can do, only that it is measured is tested."""

from __future__ import annotations

import json

from scripts.running import run_script


def test_operations_and_bytes_are_those_of_the_formulas() -> None:
    done = run_script("machine/roofline", "seed", "--batch", "3", "--threads", "1", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["threads"] == 1
    assert found["peak"] > 1e8
    assert found["bandwidth"] > 1e7
    rows = {row["work"]: row for row in found["costs"]}
    # 220 x 220 positions of 8 kernels of 5 x 5 x 3; 8 neurons of 110 x 110; 16 units of 8 inputs, 2 of 16.
    conv, others = 220 * 220 * 8 * 75, 8 * 110 * 110 + 16 * 8 + 2 * 16
    assert rows["predict"]["operations"] == 2 * 3 * (conv + others)
    assert rows["train"]["operations"] == 2 * 3 * (2 * conv + 3 * others)
    picture, pooled = 224 * 224 * 3, 110 * 110 * 8
    parameters = 8 * 75 + 8 + 8 * 110 * 110 + 8 + 16 * 8 + 16 + 2 * 16 + 2
    forward = 4 * 3 * (picture + 2 * pooled + 2 * 8 + 2 * 16 + 2) + 4 * parameters
    assert rows["predict"]["bytes"] == forward
    # Inputs again, gradients of outputs, those of all inputs but the picture; a byte for each winner, twice. Weights
    # again, the gradient twice, weights and velocity read and written.
    backward = 4 * 3 * (picture + 3 * (pooled + 8 + 16) + 2) + 2 * 3 * pooled + 4 * 7 * parameters
    assert rows["train"]["bytes"] == forward + backward


def test_a_row_a_network_and_work() -> None:
    done = run_script("machine/roofline", "smoke", "default", "--batch", "2", "--threads", "1")
    assert done.exit_code == 0, done.stderr
    (rows,) = done.tables
    assert [(row["network, batch 2"], row["work"]) for row in rows] == [
        (network, work) for network in ("smoke", "default") for work in ("train", "predict")
    ]
    for row in rows:
        assert row["bound by"] in ("arithmetic", "memory")
        assert float(row["roofline ms"]) >= 0


def test_bad_options_are_refused() -> None:
    for arguments in (("--batch", "0"), ("--threads", "0"), ("--threads", "9999"), ("--nosuch",)):
        assert run_script("machine/roofline", *arguments).exit_code == 2
