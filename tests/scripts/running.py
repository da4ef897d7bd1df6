"""Runs a script of scripts/ as a user does, and reads the tables that it prints."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"

Row = dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """What a script did."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def tables(self) -> list[list[Row]]:
        """The Markdown tables on stdout, in their order: a dictionary from header to cell for each row."""
        found: list[list[Row]] = []
        headers: list[str] | None = None
        for line in self.stdout.splitlines():
            if not line.startswith("|"):
                headers = None
                continue
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if headers is None:
                headers = cells
                found.append([])
            elif set("".join(cells)) - set("-:"):
                found[-1].append(dict(zip(headers, cells, strict=True)))
        return found


def run_script(name: str, *arguments: str | Path) -> Outcome:
    """Run ``scripts/NAME.py`` in a process of its own."""
    done = subprocess.run(
        [sys.executable, SCRIPTS / f"{name}.py", *arguments],
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def assert_picture(path: Path) -> None:
    """That there is a PNG file of a size to look at, which isn't one colour."""
    from PIL import Image

    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) >= 300
        assert len(picture.convert("RGB").getcolors(maxcolors=picture.width * picture.height) or []) > 10
