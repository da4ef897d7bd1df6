"""Answers as rows: CSV, JSON and JSON lines."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facecnn.errors import UsageError, shown
from facecnn.runs.atomic import write_atomically


def check_predictions_name(path: Path) -> None:
    """Raise UsageError unless the file's suffix names a format."""
    if path.suffix.lower() not in (".csv", ".json", ".jsonl"):
        raise UsageError(f"--predictions {shown(path)}: the name must end in .csv, .json or .jsonl")


def write_predictions(path: Path, predictions: Sequence[dict[str, Any]]) -> None:
    """Write a row for each photo, in the format that the suffix names. Raises UsageError, OutputError."""
    check_predictions_name(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        text = json.dumps(list(predictions), indent=2, allow_nan=False) + "\n"
    else:
        text = json_lines(predictions) if suffix == ".jsonl" else as_csv(predictions)
    write_atomically(path, text.encode("utf-8"))


def json_lines(rows: Sequence[dict[str, Any]]) -> str:
    """One JSON object on each line."""
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """A CSV table with a header.

    Each person's probability has a column; where only the likeliest people have one, they are in one column, as JSON.
    Boxes and points are written as JSON, too. Texts that a spreadsheet would take for a formula get an apostrophe in
    front.
    """
    answered = next((row for row in rows if row.get("probabilities")), rows[0] if rows else {})
    people, left_out = list(answered.get("probabilities") or ()), {"probabilities", "faces"}
    if "others" in answered:
        people, left_out = [], {"faces"}
    plain = [key for key in answered if key not in left_out]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*plain, *(_harmless(f"p({name})") for name in people)])
    for row in rows:
        probabilities = row.get("probabilities") or {}
        writer.writerow([*(_cell(row.get(key)) for key in plain), *(probabilities.get(name, "") for name in people)])
    return stream.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return _harmless(value)
    return json.dumps(value) if isinstance(value, (list, dict, tuple)) else value


def _harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    text = shown(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
