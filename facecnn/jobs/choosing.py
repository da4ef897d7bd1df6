"""Which model a job works with. Nothing heavy is imported before it is asked for: every command imports this."""

from pathlib import Path

from facecnn.errors import UsageError, shown
from facecnn.jobs.console import Console


def find_model(model: Path | None, out: Path, console: Console) -> Path:
    """The checkpoint file that ``model`` stands for, a run's folder or a file; without it, that of the run that
    ``find_run`` chooses. Raises CheckpointError if there is none."""
    from facecnn.runs.checkpoint import find_checkpoint
    from facecnn.runs.choice import resolve_model

    return find_checkpoint(find_run(out, console)) if model is None else resolve_model(model, out)


def find_run(out: Path, console: Console) -> Path:
    """The folder of the run that is used where none is named. Warns where another one may be expected.

    Raises CheckpointError if there is none.
    """
    from facecnn.runs.choice import choose_run

    choice = choose_run(out)
    for remark in choice.remarks:
        console.warning(remark)
    return choice.run


def checked_threshold(given: float | str, name: str) -> float | str:
    """A threshold for strangers: ``auto``, ``off``, or a number from 0 to 1, also as text. Raises UsageError.

    ``name``: of the option or argument.
    """
    if given in ("auto", "off"):
        return given
    try:
        value = -1.0 if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f"{name} {shown(str(given))}: auto, off, or a number from 0 to 1")
    return value
