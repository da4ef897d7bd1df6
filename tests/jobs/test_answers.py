"""Answers as rows."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecnn.errors import UsageError, shown
from facecnn.jobs.answers import as_csv, json_lines, write_predictions

rows = st.lists(
    st.builds(
        lambda path, label, confidence, ann, b, box: {
            "path": path,
            "label": label,
            "confidence": confidence,
            "probabilities": None if confidence is None else {"ann": ann, "=b": b},
            "box": box,
        },
        st.text(),
        st.none() | st.text(),
        st.none() | st.floats(0, 1),
        st.floats(0, 1),
        st.floats(0, 1),
        st.none() | st.lists(st.integers(), min_size=4, max_size=4),
    ),
    min_size=1,
    max_size=5,
)


@given(rows)
def test_csv_can_be_read_and_is_no_formula(given_rows: list[dict[str, Any]]) -> None:
    text = as_csv(given_rows)
    text.encode("utf-8")
    header, *read = csv.reader(io.StringIO(text))
    assert header[:4] == ["path", "label", "confidence", "box"]
    assert len(read) == len(given_rows) == len(text.splitlines()) - 1
    for cells, row in zip(read, given_rows, strict=True):
        assert cells[0].removeprefix("'") == shown(str(row["path"])).removeprefix("'")
        assert not cells[0].startswith(("=", "+", "-", "@", "\t", "\r"))
        assert not cells[1].startswith(("=", "+", "-", "@", "\t", "\r"))
        assert cells[2] == ("" if row["confidence"] is None else str(row["confidence"]))
        if row["probabilities"]:
            assert header[4:] == ["p(ann)", "p(=b)"]
            assert [float(cell) for cell in cells[4:]] == list(row["probabilities"].values())


@given(rows)
def test_json_lines_are_the_same_rows(given_rows: list[dict[str, Any]]) -> None:
    text = json_lines(given_rows)
    assert text.isascii()
    assert [json.loads(line) for line in text.split("\n")[:-1]] == given_rows


def test_no_number_is_no_json() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        json_lines([{"confidence": float("nan")}])


def test_the_suffix_is_the_format(tmp_path: Path) -> None:
    answers = [{"path": "a", "label": "ann"}]
    for name, text in (
        ("a.csv", "path,label\na,ann\n"),
        ("a.JSONL", '{"path": "a", "label": "ann"}\n'),
        ("a.json", json.dumps(answers, indent=2) + "\n"),
    ):
        write_predictions(tmp_path / name, answers)
        assert (tmp_path / name).read_text() == text
    with pytest.raises(UsageError, match=r"a\.xls"):
        write_predictions(tmp_path / "a.xls", answers)


def test_csv_of_many_people_has_the_likeliest_in_one_column() -> None:
    unread = {"path": "no.jpg", "label": None, "probabilities": None, "error": "cut short"}
    read = [
        {"path": name, "label": "ann", "probabilities": {"ann": 0.5, other: 0.25}, "error": None, "others": 0.25}
        for name, other in (("a.jpg", "bob"), ("b.jpg", "cid"))
    ]
    table = list(csv.DictReader(io.StringIO(as_csv([unread, *read]))))
    assert list(table[0]) == ["path", "label", "probabilities", "error", "others"]
    assert [row["path"] for row in table] == ["no.jpg", "a.jpg", "b.jpg"]
    assert [json.loads(row["probabilities"]) for row in table[1:]] == [row["probabilities"] for row in read]
    assert [row["others"] for row in table] == ["", "0.25", "0.25"]
