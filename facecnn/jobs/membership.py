"""What ``add`` and ``forget`` share: a new run with the same settings for other people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from facecnn.arrays import Array
from facecnn.config import load, to_yaml
from facecnn.errors import CheckpointError, shown
from facecnn.jobs.console import Console
from facecnn.jobs.models import TRAINED_ON, ModelFile
from facecnn.jobs.training.options import TrainOptions
from facecnn.learning.class_means import EMBEDDINGS, OWNERS, Head, head_in, head_of, metrics_of, model_arrays
from facecnn.network.layers import with_outputs
from facecnn.network.stages import plan
from facecnn.photos.folder import UNKNOWN
from facecnn.photos.roster import Roster
from facecnn.runs.folder import RunFolder, read_json, write_json
from facecnn.runs.metrics import MetricsLog


def needs_no_training(model: ModelFile) -> bool:
    """Whether people can be added to a model and removed from it without training."""
    return model.by_embeddings and EMBEDDINGS in model.checkpoint.arrays


def run_of(model: ModelFile) -> RunFolder:
    """The run that a model's file lies in. Raises CheckpointError if it is in none."""
    run = RunFolder(model.path.parent)
    if not (run.config_path.exists() and run.split_path.exists()):
        raise CheckpointError(
            f"{shown(model.path)}: not in a run's folder, so its photos aren't known: give the folder that "
            "`facecnn train` made"
        )
    return run


def digests_of(split: Mapping[str, Any], person: str) -> set[str]:
    """SHA-256, hexadecimal, of a person's photos in a split.json, whether trained on or held out."""
    photos = [*split["train"].items(), *split["validation"].items()]
    return {digest for path, digest in photos if path.startswith(f"{person}/")}


def train_anew(model: ModelFile, change: Roster, new: TrainOptions, console: Console) -> dict[str, Any]:
    """Train a new run on the photos of a model's run, with people added or left out. Returns the ``train`` JSON.

    Raises what ``train`` raises.
    """
    from facecnn.jobs.training.train import train  # slow to load, and rarely needed here

    run = run_of(model)
    record = run.read_split()
    console.info(
        "This model was trained from scratch, so it can't be changed: a new one is trained, on the photos of all "
        "people. (A model made with facecnn train -c pretrained needs no training.)"
    )
    held_out = record.get("validation_folder")
    options = replace(
        new,
        label=_label(run),
        validation=None if held_out is None else Path(held_out),
        roster=Roster.from_record(record).and_also(change),
    )
    return train(load(str(run.config_path)), options, console)


@dataclass(frozen=True)
class People:
    """The people of a model of class means."""

    names: list[str]
    """Sorted, without ``unknown``."""
    embeddings: Array
    """(n, 128) float32"""
    owners: Array
    """(n,) int32, index into ``names``."""

    @classmethod
    def of(cls, model: ModelFile) -> People:
        """Those of a model."""
        arrays = model.checkpoint.arrays
        names = [name for name in model.checkpoint.classes if name != UNKNOWN]
        return cls(names, arrays[EMBEDDINGS], arrays[OWNERS])

    def with_more(self, person: str, embeddings: Array) -> People:
        """With more embeddings (n, 128) of a person, who may be new."""
        names = sorted({*self.names, person})
        numbers = np.array([names.index(name) for name in self.names], np.int32)
        added = np.full(len(embeddings), names.index(person), np.int32)
        return People(
            names, np.concatenate([self.embeddings, embeddings]), np.concatenate([numbers[self.owners], added])
        )

    def without(self, person: str) -> People:
        """Without a person."""
        names = [name for name in self.names if name != person]
        kept = self.owners != self.names.index(person)
        numbers = np.array([names.index(name) if name in names else -1 for name in self.names], np.int32)
        return People(names, self.embeddings[kept], numbers[self.owners[kept]])


def write_run(
    model: ModelFile, people: People, trained_on: Array, split: Mapping[str, Any], new: TrainOptions
) -> RunFolder:
    """Write a finished run for other people than a model's, with the threshold that the model has.

    ``model``: of class means; ``trained_on``: (n, 32) uint8, SHA-256 of the photos that it is made of. Raises
    UsageError or OutputError: see ``RunFolder.create``.
    """
    old = run_of(model)
    settings = load(str(old.config_path)).settings
    head = rebuilt(model, people)
    classes = [*people.names, UNKNOWN]
    stages = plan(with_outputs(settings.network, len(classes)), settings.photos.shape)
    checkpoint = replace(
        model.checkpoint,
        classes=classes,
        arrays={
            **model.checkpoint.arrays,
            **model_arrays({}, stages, head),
            EMBEDDINGS: people.embeddings,
            OWNERS: people.owners,
            TRAINED_ON: trained_on,
        },
    )
    with RunFolder.create(new.out, new.name, _label(old), new.overwrite) as run:
        run.write_start(_label(old))
        run.write_config(to_yaml(settings))
        strangers = [UNKNOWN] if UNKNOWN in split["classes"] else []
        write_json(run.split_path, {**split, "classes": [*people.names, *strangers]})
        MetricsLog(run.metrics_path).append(metrics_of(head, people.embeddings, people.owners, seconds=0.0))
        run.save_last(checkpoint, rotate=False)
        run.save_best(checkpoint)
    return run


def rebuilt(model: ModelFile, people: People) -> Head:
    """The head for other people, with a model's threshold: those who stay get the same answers."""
    stages = plan(with_outputs(model.settings.network, len(model.checkpoint.classes)), model.settings.photos.shape)
    before = head_in(model.checkpoint.arrays, stages)
    head = head_of(people.embeddings, people.owners, len(people.names), 0.0)
    head.bias[-1] = before.bias[-1]
    return head


def _label(run: RunFolder) -> str:
    return str((read_json(run.start_path) or {}).get("config") or "pretrained")
