"""scripts/mutants.py: its table fits the sources, and its results are kept."""

from pathlib import Path

import pytest

import mutants

ROOT = Path(__file__).resolve().parents[2]
KNOWN = mutants.read_table(mutants.TABLE)


def test_every_bug_fits_one_place_and_changes_it() -> None:
    for mutant in KNOWN.values():
        assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1, mutant.name
        assert mutant.old != mutant.new, mutant.name
        assert mutant.tests, mutant.name
        assert all((ROOT / test).is_file() for test in mutant.tests), mutant.name


def test_a_bug_that_fits_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("x = 1\nx = 1\n")
    for old, times in (("x = 2", 0), ("x = 1", 2)):
        with pytest.raises(ValueError, match=f"{times} times, not once"):
            mutants.Mutant("a bug", "file.py", old, "x = 3", ("tests",), True).put_in(tmp_path)
    assert (tmp_path / "file.py").read_text() == "x = 1\nx = 1\n"


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    names = list(KNOWN)[:2]
    caught, survived = (
        mutants.Result(names[0], "1234567", "tests/test_x.py::test_y"),
        mutants.Result(names[1], "7654321+", None),
    )
    path = tmp_path / "results.md"
    path.write_text(mutants.as_markdown({names[0]: caught, names[1]: survived}, KNOWN), encoding="utf-8")
    results = mutants.read_results(path)
    assert results == {names[0]: caught, names[1]: survived}
    left = mutants.choose(KNOWN, results, [], again=False, sample=None, seed=0)
    assert [mutant.name for mutant in left] == list(KNOWN)[2:], "a later run goes on"
    assert [mutant.name for mutant in mutants.choose(KNOWN, results, names, False, None, 0)] == names
    assert len(mutants.choose(KNOWN, results, [], False, 5, 0)) == 5


def test_a_failing_test_is_named_and_a_passing_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("def test_right():\n    pass\n")
    (tmp_path / "test_two.py").write_text("def test_right():\n    pass\n\n\ndef test_wrong():\n    assert 1 == 2\n")
    assert mutants.first_failure(tmp_path, ["test_one.py"]) is None
    assert mutants.first_failure(tmp_path, ["test_one.py", "test_two.py"]) == "test_two.py::test_wrong"
