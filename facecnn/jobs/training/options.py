"""The options of training, besides its settings."""

from dataclasses import dataclass
from pathlib import Path

from facecnn.photos.roster import NO_CHANGES, Roster
from facecnn.runs.folder import check_new_run, check_out


@dataclass(frozen=True)
class TrainOptions:
    """The options of training, besides its settings."""

    photos: Path | None = None
    label: str = "default"
    """The config's name, which becomes part of the run's default name."""
    out: Path = Path("runs")
    name: str | None = None
    overwrite: bool = False
    resume: Path | None = None
    init_from: Path | None = None
    """The model whose weights to start from where they fit."""
    validation: Path | None = None
    device: str = "auto"
    threads: int | None = None
    strict: bool = False
    roster: Roster = NO_CHANGES
    """Who is added to the people in ``photos``, or left out."""
    profile: bool = False
    """Whether to time every layer."""
    track: bool = False
    """Whether an event file for TensorBoard is written."""
    heeds_signals: bool = True
    """Whether a signal ends it, saved, after the current step; if not, signals are left to the program around it."""
    documents: bool = True
    """Whether pictures, the report page and the model card are made at the end, and the pretrained body compared
    with."""


def check_place(options: TrainOptions) -> None:
    """Check that the run can be made in ``out``, before any photo is read. Raises UsageError, OutputError."""
    check_out(options.out)
    if options.name is not None:
        check_new_run(options.out, options.name, options.overwrite)
