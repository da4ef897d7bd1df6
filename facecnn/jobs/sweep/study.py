"""The trials of a sweep in Optuna's journal: which comes next, and which were lost.

A trial's parameters depend on the seed, on its index among the trials that count, and on the results before it. So with
one process a sweep that was killed and continued has the same trials as one that wasn't.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import get_param_importances
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from facecnn.config.sweep import Range
from facecnn.errors import CheckpointError, shown

BEFORE_PRUNING = 4
"""Trials that are completed before one is pruned: a median of fewer says little."""

_INDEX, _RETRY_OF, _LOST = "index", "retry_of", "lost"
"""Attributes of trials."""


class _Lock(JournalFileOpenLock):
    """A lock that ends with its process, unlike Optuna's, which outlives a killed process by 30 seconds."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


class Trials:
    """The studies of a sweep, each with its trials, in one file that several processes may work on."""

    def __init__(self, path: Path, ranges: Sequence[Range], seed: int, processes: int) -> None:
        """``path``: the journal, made if missing; ``processes``: how many work on it at a time."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._seed, self._processes = seed, processes
        self._distributions = {one.path: _distribution(one) for one in ranges}
        self._claiming = FileLock(path.with_name(f".{path.name}.claim"))
        lock = _Lock(path.with_name(f".{path.name}.lock"))
        self._storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))

    def add_study(self, name: str) -> None:
        """Add a study, unless it is there."""
        optuna.create_study(study_name=name, storage=self._storage, direction="minimize", load_if_exists=True)

    def claim(self, name: str, trials: int) -> Trial | None:
        """The next trial of a study, which no other process gets: one that was lost, or a new one; None if there are
        already ``trials``."""
        with self._claiming:
            study = self._study(name)
            known = study.get_trials(deepcopy=False)
            waiting = [one for one in known if one.state == TrialState.WAITING]
            counted = sum(one.state != TrialState.FAIL for one in known)
            if not waiting and counted >= trials:
                return None
            index = waiting[0].user_attrs[_INDEX] if waiting else counted
            study.sampler = self._sampler(name, index)
            trial = study.ask(self._distributions)
            trial.set_user_attr(_INDEX, index)
            return trial

    def requeue_lost(self, name: str) -> int:
        """Queue the trials of a study again that ended with their process, with the same parameters. No other process
        may work on the study. Returns how many there were."""
        study = self._study(name)
        known = study.get_trials(deepcopy=False)
        again = {one.user_attrs.get(_RETRY_OF) for one in known}
        lost = [one for one in known if one.state == TrialState.RUNNING]
        for one in lost:
            # First the new one: if this process is killed between the two, the next one finds both.
            if one.number not in again:
                earlier = sum(other.state != TrialState.FAIL for other in known[: one.number])
                index = one.user_attrs.get(_INDEX, earlier)
                study.enqueue_trial(one.params, user_attrs={_INDEX: index, _RETRY_OF: one.number})
            study.tell(one.number, state=TrialState.FAIL)
        return len(lost)

    def report(self, trial: Trial, step: int, loss: float) -> bool:
        """Note a trial's mean loss after ``step``. Returns whether it is worse than the median of the others' there."""
        trial.report(loss, step)
        return trial.should_prune()

    def finish(self, trial: Trial, loss: float | None, figures: Mapping[str, Any]) -> None:
        """End a trial: with its loss, or pruned if that is None."""
        for key, value in figures.items():
            trial.set_user_attr(key, value)
        trial.study.tell(trial, loss, state=TrialState.PRUNED if loss is None else TrialState.COMPLETE)

    def rows(self, name: str) -> list[FrozenTrial]:
        """The trials of a study by their index, without those that were lost."""
        counted = [one for one in self._study(name).get_trials() if one.state != TrialState.FAIL]
        return sorted(counted, key=lambda one: one.user_attrs.get(_INDEX, one.number))

    def best(self, name: str) -> FrozenTrial | None:
        """The trial with the lowest loss; of equal ones the first. None if none was completed."""
        complete = [one for one in self.rows(name) if one.state == TrialState.COMPLETE]
        return min(complete, key=lambda one: float(one.values[0]), default=None)

    def importances(self, name: str) -> dict[str, float] | None:
        """How much each parameter matters among the better trials (PED-ANOVA), summing to 1; None if too few were
        completed to say."""
        study = self._study(name)
        values = {one.values[0] for one in study.get_trials(states=(TrialState.COMPLETE,))}
        if len(values) < BEFORE_PRUNING:
            return None
        return {key: float(share) for key, share in get_param_importances(study).items()}

    def noted(self, name: str, key: str) -> Any:
        """What ``note`` kept, or None."""
        return self._study(name).user_attrs.get(key)

    def note(self, name: str, key: str, value: Any) -> None:
        """Keep JSON with a study."""
        self._study(name).set_user_attr(key, value)

    def _study(self, name: str) -> optuna.Study:
        pruner = MedianPruner(n_startup_trials=BEFORE_PRUNING, n_warmup_steps=0)
        return optuna.load_study(study_name=name, storage=self._storage, pruner=pruner, sampler=self._sampler(name, 0))

    def _sampler(self, name: str, index: int) -> TPESampler:
        text = f"{self._seed}/{name}/{index}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # Several processes: they don't try what others are trying.
            return TPESampler(seed=seed, constant_liar=self._processes > 1)


def _distribution(one: Range) -> BaseDistribution:
    if one.choices:
        return CategoricalDistribution(one.choices)
    if one.whole:
        return IntDistribution(int(one.low), int(one.high), log=one.log, step=int(one.step or 1))
    return FloatDistribution(one.low, one.high, log=one.log, step=one.step)


def mend(path: Path) -> None:
    """Cut off a journal's last line if a kill left it half written: what comes next would be appended to it.

    Raises CheckpointError if it can't be read or written, or another line is damaged.
    """
    try:
        if not path.exists():
            return
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(), start=1):
            _refuse_damaged(path, number, line)
        if whole < len(data):
            os.truncate(path, whole)
    except OSError as error:
        raise CheckpointError(f"{shown(path)}: can't be read or written ({error.strerror}): check it") from error


def _refuse_damaged(path: Path, number: int, line: bytes) -> None:
    try:
        damaged = not isinstance(json.loads(line), dict)
    except ValueError:
        damaged = True
    if damaged:
        raise CheckpointError(f"{shown(path)}:{number}: damaged: start another sweep")
