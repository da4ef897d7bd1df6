"""Processes that answer questions, with a line of JSON for each."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from facecnn.errors import FacecnnError

ENDING_SECONDS = 10


def last_line(text: str) -> str:
    """The last line of what a process printed before it failed."""
    return (text.strip().splitlines() or ["it said nothing"])[-1]


class LineProcess:
    """A process that reads questions from stdin and prints answers, a line each."""

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Start the process. Raises OSError."""
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            encoding="utf-8",
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._questions, self._answers = self._process.stdin, self._process.stdout

    def ask(self, question: str) -> Any:
        """Ask a question. Returns the answer; raises FacecnnError if the process has ended."""
        with contextlib.suppress(BrokenPipeError):
            print(question, file=self._questions, flush=True)
        return self.answer()

    def answer(self) -> Any:
        """Read an answer. Raises FacecnnError if the process has ended."""
        line = self._answers.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            raise FacecnnError(f"its process ended ({code}): {last_line(self._errors.read())}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self._questions.close()
        try:
            self._process.wait(ENDING_SECONDS)  # so that it ends its own children, and their time is counted
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
        self._errors.close()
