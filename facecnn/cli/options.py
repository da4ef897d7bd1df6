"""Options that several commands share.

A dataclass here is a group of options. A command that takes one as a parameter has an option for each of its fields:
see ``facecnn.cli.common.command``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from facecnn.jobs.choosing import find_model

if TYPE_CHECKING:
    from facecnn.config import Loaded
    from facecnn.jobs.stderr import StderrConsole

DEFAULT_OUT = Path("runs")


Format = Literal["text", "json"]


def path(text: str | Path) -> Path:
    """Parse the path of an option or argument (``parser=``).

    Raises BadParameter for an empty text, as from an unset shell variable: it would mean the current folder.
    """
    if not str(text):
        raise typer.BadParameter("empty: give a name, or . for the current folder")
    return Path(text)


PhotosArgument = Annotated[
    Path | None,
    typer.Argument(
        parser=path,
        metavar="PHOTOS",
        help="A folder with one folder of photos per person. Without it: data/photos where it exists, else two sample "
        "people.",
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", help="Format of the results on stdout.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Fail if a photo is skipped or the data are doubtful.")]
TrackOption = Annotated[
    bool, typer.Option("--track", help="Also write files for TensorBoard, into the run's folder tensorboard/.")
]
ThresholdOption = Annotated[
    str, typer.Option(help="Unknown-score above which a face is a stranger's: auto, off, or 0 to 1.")
]
OverridesOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: train.epochs=20. Repeatable."),
]
NewNameOption = Annotated[
    str | None, typer.Option("--name", help="The new run's name; by default made from date and config.")
]
LinkOption = Annotated[
    bool, typer.Option("--link", help="Hard links instead of copies: one file under two names, no extra space.")
]
OutOption = Annotated[Path, typer.Option("--out", parser=path, metavar="DIR", help="The folder for runs.")]


@dataclass(frozen=True)
class SettingsOptions:
    """The settings file, and changes to it."""

    given_config: Annotated[
        str | None,
        typer.Option(
            "--config",
            "-c",
            help="A settings file, or a shipped one: default (if not given), many, pretrained, finetune, seed, deep, "
            "smoke.",
        ),
    ] = None
    overrides: OverridesOption = None

    @property
    def config(self) -> str:
        """The settings file, or the name of a shipped one."""
        return "default" if self.given_config is None else self.given_config

    def read(self) -> Loaded:
        """Read the settings file, then apply ``--set``, then the options that stand for a setting."""
        from facecnn.config import apply_overrides, load

        loaded, options = load(self.config), self.as_settings()
        return apply_overrides(loaded, self.overrides or [], options) if self.overrides or options else loaded

    def as_settings(self) -> dict[str, tuple[str, object]]:
        """The options that stand for a setting, as ``apply_overrides`` takes them."""
        return {}

    def given(self) -> dict[str, object]:
        """Whether each option was given, by its name."""
        names = {"given_config": "--config", "overrides": "--set"}
        return {names.get(one.name, f"--{one.name}"): getattr(self, one.name) not in (None, []) for one in fields(self)}


@dataclass(frozen=True)
class SeededSettingsOptions(SettingsOptions):
    """The settings, and the seed."""

    seed: Annotated[int | None, typer.Option(help="Random seed (train.seed).")] = None

    def as_settings(self) -> dict[str, tuple[str, object]]:
        return {} if self.seed is None else {"--seed": ("train.seed", self.seed)}


@dataclass(frozen=True)
class TrainingSettingsOptions(SeededSettingsOptions):
    """The settings for training."""

    epochs: Annotated[
        int | None, typer.Option(help="Passes over the photos (train.epochs; least_steps becomes 0).")
    ] = None

    def as_settings(self) -> dict[str, tuple[str, object]]:
        options: dict[str, tuple[str, object]] = {}
        if self.epochs is not None:
            options["--epochs"] = ("train.epochs", self.epochs)
            options["--epochs (least_steps)"] = ("train.least_steps", 0)
        return options | super().as_settings()


DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or reference.")]


@dataclass(frozen=True)
class ComputeOptions:
    """What to compute on."""

    device: DeviceOption = "auto"
    threads: Annotated[int | None, typer.Option(help="Processor threads; all by default.")] = None


ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        "-m",
        parser=path,
        metavar="MODEL",
        help="A run's folder or a .safetensors file; by default the pinned or newest finished run.",
    ),
]
ModelArgument = Annotated[Path | None, typer.Argument(parser=path, metavar="MODEL", help="The same as -m.")]


@dataclass(frozen=True)
class ModelOptions:
    """Which model answers."""

    model: ModelOption = None
    out: OutOption = DEFAULT_OUT

    def find(self, console: StderrConsole) -> Path:
        """The checkpoint file of the model."""
        return find_model(self.model, self.out, console)
