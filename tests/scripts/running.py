"""Runs a script of scripts/, and reads the tables that it prints."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

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
    """Run ``scripts/NAME.py``, in this process: to start another one takes longer than most of them do."""
    stdout, stderr, exit_code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", [f"{name}.py", *map(str, arguments)]),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        except SystemExit as end:
            if isinstance(end.code, str):  # as Python does
                print(end.code, file=sys.stderr)
            exit_code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Outcome(exit_code, stdout.getvalue(), stderr.getvalue())


def assert_picture(path: Path) -> None:
    """That there is a PNG file of a size to look at, which isn't one colour."""
    from PIL import Image

    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) >= 300
        assert len(picture.convert("RGB").getcolors(maxcolors=picture.width * picture.height) or []) > 10
