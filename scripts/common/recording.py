"""What training reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from facecnn.learning.progress import Recorder


class EpochMetrics(Recorder):
    """Keeps the metrics of each epoch."""

    every_step = False

    def __init__(self) -> None:
        self.epochs: list[Mapping[str, Any]] = []

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        self.epochs.append(metrics)

    def of(self, name: str) -> list[Any]:
        return [epoch[name] for epoch in self.epochs]
