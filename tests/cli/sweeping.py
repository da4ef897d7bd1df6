"""Sweeps in which nothing is trained: how good a trial is follows from its settings and the fold."""

from __future__ import annotations

import math
import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from facecnn.config import shipped
from facecnn.errors import DivergedError

RATE = "optimizer.learning_rate"
SECTION = f"""sweep:
  {RATE}: {{low: 0.0001, high: 1, log: true}}
  train.epochs: {{low: 1, high: 8}}
"""
PLACE = "facecnn.jobs.sweep.trial.train_and_judge"


def write_config(folder: Path, section: str = SECTION) -> Path:
    file = folder / "mine.yaml"
    file.write_text(shipped()["smoke"].read_text(encoding="utf-8") + section, encoding="utf-8")
    return file


class Judge:
    """Stands for ``train_and_judge``. The best rate is 0.01; above 0.5 a training diverges."""

    def __init__(self, kill_at: int | None = None) -> None:
        """``kill_at``: the call in which the process is killed."""
        self.calls: list[tuple[float, int, frozenset[str], frozenset[str]]] = []
        """Rate, epochs, what was left out and what was judged."""
        self.kill_at = kill_at

    def __call__(self, loaded: Any, dataset: Any, left_out: Any, judged: Any, *rest: Any) -> dict[str, Any]:
        rate, epochs = loaded.settings.optimizer.learning_rate, loaded.settings.train.epochs
        self.calls.append((rate, epochs, left_out, judged))
        if len(self.calls) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if rate > 0.5:
            raise DivergedError("the loss is no longer finite")
        loss = abs(math.log10(rate / 0.01)) + 0.01 * epochs + 0.001 * len(min(judged))
        return {
            "closed_set_accuracy": 1 / (1 + loss),
            "log_loss": loss,
            "photos": len(judged),
            "seconds": 0.0,
            "epochs": epochs,
        }


def sweep_and_be_killed(kill_at: int, *arguments: str) -> None:
    """Run ``facecnn sweep``, which is killed in a call of the judge."""
    from facecnn.cli import main

    for place, other in ((PLACE, Judge(kill_at)), ("facecnn.jobs.faces.installed_arrays", lambda: None)):
        mock.patch(place, other).start()
    sys.argv = ["facecnn", "sweep", *arguments]
    main()
