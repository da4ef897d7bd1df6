"""The trials of a sweep: which comes next, and which are repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from facecnn.config.sweep import Range
from facecnn.config.tree import Location
from facecnn.errors import CheckpointError

pytest.importorskip("optuna")

from facecnn.jobs.sweep.study import BEFORE_PRUNING, Trials, mend

HERE = Location(0, 1, 1, "mine.yaml")
RANGES = [
    Range("optimizer.learning_rate", HERE, 0.001, 0.1, log=True),
    Range("train.epochs", HERE, 2, 10, step=2, whole=True),
    Range("photos.colour", HERE, choices=('"grey"', '"rgb"')),
]


@pytest.fixture
def trials(tmp_path: Path) -> Trials:
    made = Trials(tmp_path / "trials.journal", RANGES, 0, 1)
    made.add_study("search")
    return made


def test_parameters_are_of_the_ranges(trials: Trials) -> None:
    for _ in range(12):
        trial = trials.claim("search", 12)
        assert trial is not None
        assert 0.001 <= trial.params["optimizer.learning_rate"] <= 0.1
        assert trial.params["train.epochs"] in (2, 4, 6, 8, 10)
        assert trial.params["photos.colour"] in ('"grey"', '"rgb"')
    assert trials.claim("search", 12) is None
    assert trials.claim("search", 13) is not None


def test_a_lost_trial_is_repeated_whatever_others_did_meanwhile(trials: Trials, tmp_path: Path) -> None:
    lost, other = (trials.claim("search", 3) for _ in range(2))
    assert lost is not None
    assert other is not None
    trials.finish(other, 0.5, {})
    again = Trials(tmp_path / "trials.journal", RANGES, 0, 1)
    assert again.requeue_lost("search") == 1
    assert again.requeue_lost("search") == 0
    repeated, last = (again.claim("search", 3) for _ in range(2))
    assert repeated is not None
    assert last is not None
    assert (repeated.user_attrs["index"], repeated.params) == (0, lost.params)
    assert last.user_attrs["index"] == 2
    assert again.claim("search", 3) is None
    assert [row.user_attrs["index"] for row in again.rows("search")] == [0, 1, 2]


def test_a_trial_is_repeated_once_if_queueing_is_interrupted(
    trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import optuna

    def killed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    trials.claim("search", 2)
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "tell", killed)
        with pytest.raises(KeyboardInterrupt):
            trials.requeue_lost("search")
    assert trials.requeue_lost("search") == 1
    claimed = [trials.claim("search", 2), trials.claim("search", 2)]
    assert [trial.user_attrs["index"] for trial in claimed if trial is not None] == [0, 1]
    assert trials.claim("search", 2) is None


def test_worse_than_the_median_of_the_completed(trials: Trials) -> None:
    for number in range(BEFORE_PRUNING):
        trial = trials.claim("search", 100)
        assert trial is not None
        assert not trials.report(trial, 0, 10 + number), "too few to compare with"
        trials.finish(trial, 10 + number, {})
    for loss, worse in ((11.4, False), (11.6, True)):
        trial = trials.claim("search", 100)
        assert trial is not None
        assert trials.report(trial, 0, loss) == worse
        trials.finish(trial, None, {})
    best = trials.best("search")
    assert best is not None
    assert best.values == [10]


def test_the_first_of_equal_trials_is_the_best(trials: Trials) -> None:
    assert trials.best("search") is None
    claimed = [trials.claim("search", 3) for _ in range(3)]
    for trial, loss in zip(claimed[::-1], (0.25, 0.25, 0.5), strict=True):
        assert trial is not None
        trials.finish(trial, loss, {})
    best = trials.best("search")
    assert best is not None
    assert best.user_attrs["index"] == 1


@pytest.mark.parametrize(
    ("data", "left"),
    [
        (b"", b""),
        (b'{"a": 1}\n', b'{"a": 1}\n'),
        (b'{"a": 1}\n{"b"', b'{"a": 1}\n'),
        (b'{"a": 1}\n{"b": 2}', b'{"a": 1}\n'),
    ],
)
def test_half_a_line_is_cut_off(data: bytes, left: bytes, tmp_path: Path) -> None:
    journal = tmp_path / "trials.journal"
    mend(journal)
    assert not journal.exists()
    journal.write_bytes(data)
    mend(journal)
    assert journal.read_bytes() == left


@pytest.mark.parametrize("line", [b"{", b"[1]", b"\xff"])
def test_a_damaged_line_is_refused(line: bytes, tmp_path: Path) -> None:
    journal = tmp_path / "trials.journal"
    journal.write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(CheckpointError, match=r"trials\.journal:2: damaged"):
        mend(journal)
