"""A training on a folder in which much is wrong, looked at by many tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.running import Outcome

from .conftest import QUICK, Run


@dataclass(frozen=True)
class Training:
    """A training, and ``data check`` on the same photos."""

    outcome: Outcome
    figures: dict[str, Any]
    run: Path
    check: dict[str, Any]

    def side(self, path: str) -> str:
        """Whether a photo is trained on or held out."""
        (side,) = (name for name in ("train", "validation") if path in self.split()[name])
        return side

    def split(self) -> dict[str, dict[str, str]]:
        split: dict[str, dict[str, str]] = json.loads((self.run / "split.json").read_text(encoding="utf-8"))
        return split

    def reason(self, path: str) -> str:
        """Why a photo was left out."""
        reasons: dict[str, str] = {one["path"]: one["reason"] for one in self.check["skipped"]}
        return reasons[path]


def train_and_check(photos: Path, out: Path, run: Run, **options: Any) -> Training:
    """Train for an epoch. ``options``: as ``run`` takes them."""
    checked = run("data", "check", photos, "-c", "smoke", "--format", "json", **options)
    assert checked.exit_code == 0, checked.stderr
    words = ("train", photos, *QUICK, "--epochs", "1", "--out", out, "--name", "mess", "--format", "json")
    done = run(*words, **options)
    assert done.exit_code == 0, done.stderr
    return Training(done, json.loads(done.stdout), out / "mess", json.loads(checked.stdout))
