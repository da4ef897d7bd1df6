"""Odd and broken pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Run


@pytest.mark.fault("I02")
def test_an_empty_file_is_called_empty(images: Path, model: Path, run: Run) -> None:
    done = run("predict", images / "made" / "empty.jpg", "-m", model)
    assert done.exit_code == 3
    assert "empty file (0 bytes)" in done.stdout
