"""Runs of an older facecnn (0.1.0, commit 3ed69e2): they still answer and go on as they would have then.

tests/data/runs has three on the drawn people, trained on an AMD EPYC with AVX2: an interrupted one with AdamW, batch
norm, dropout, a clipped gradient and averaged weights, an interrupted one with L-BFGS, and one with RMSprop that had
ended. The figures are what that commit printed. Vectors of another length give other last digits.
"""

import json
import shutil
from pathlib import Path

import pytest

from .running import Facecnn

RUNS = Path(__file__).parents[1] / "data" / "runs"


@pytest.fixture
def older(people: Path, tmp_path: Path) -> Path:
    """Copies of the runs, which know where their photos are."""
    shutil.copytree(RUNS, tmp_path / "runs")
    for config in (tmp_path / "runs").glob("*/config.yaml"):
        config.write_text(config.read_text(encoding="utf-8").replace('"PHOTOS"', json.dumps(str(people))), "utf-8")
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("run", "confidences"),
    [
        ("adamw", [1.0000000, 1.0000000, 1.0000000, 1.0000000, 0.9999986, 0.9999995, 0.9999997, 0.9999998]),
        ("rmsprop", [0.6944110, 0.8301067, 0.8333333, 0.6382961, 0.6146063, 0.7404825, 0.7525246, 0.6173764]),
        ("lbfgs", [0.9999858, 0.9998527, 0.9999676, 0.9999430, 0.9983789, 0.9996857, 0.9997548, 0.9991864]),
    ],
)
def test_they_answer(run: str, confidences: list[float], older: Path, people: Path, facecnn: Facecnn) -> None:
    photos = [people / name / f"0{number}.png" for name in ("ann", "bob") for number in range(4)]
    answers = facecnn("predict", *photos, "-m", older / run, "--format", "json").json()
    assert [answer["label"] for answer in answers] == ["ann"] * 4 + ["bob"] * 4
    assert [answer["confidence"] for answer in answers] == pytest.approx(confidences, abs=1e-5)


@pytest.mark.parametrize(
    ("run", "following", "epochs"),
    [
        ("adamw", [5.014313865103759e-05, 0.005301294848322868, 5.739088919654023e-06], 60),
        ("lbfgs", [0.00010911034769378603, 5.0462571380194277e-05, 2.2995413019089028e-05], 30),
    ],
)
def test_they_go_on(run: str, following: list[float], epochs: int, older: Path, facecnn: Facecnn) -> None:
    """``following``: the training losses of the next epochs. Later ones are other processors' own."""
    begun = (older / run / "metrics.jsonl").read_text("utf-8")
    done = facecnn("train", "--resume", older / run)
    assert done.exit_code == 0, done.stderr
    metrics = (older / run / "metrics.jsonl").read_text("utf-8")
    assert metrics.startswith(begun)
    rows = [json.loads(line) for line in metrics[len(begun) :].splitlines()]
    assert [row["train_loss"] for row in rows[:3]] == pytest.approx(following, rel=1e-3)
    assert rows[-1]["epoch"] == epochs
