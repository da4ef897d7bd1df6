"""Start from another run's weights, as far as its layers fit the new network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.arrays import Array
from facecnn.config import Loaded
from facecnn.errors import CheckpointError, shown
from facecnn.jobs.console import Console
from facecnn.jobs.faces import finds_faces
from facecnn.jobs.models import TRAINED_ON, ModelFile, read_model
from facecnn.jobs.training.photos import TrainingPhotos, warn
from facecnn.network.stages import Stage
from facecnn.photos.preparation import PhotoSettings

_NO_PREPARATION = {"folder", "faces", "validation", "augment"}
"""Settings that don't change what a prepared photo looks like. (Whether faces are aligned is compared separately.)"""


@dataclass(frozen=True)
class InitialWeights:
    """What a new training takes from a model."""

    arrays: Mapping[str, Array] = field(default_factory=dict)
    """By name (``conv1.weight``), including the running statistics of batch norm."""
    trained_on: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 32), np.uint8))
    """(n, 32): SHA-256 of each photo that the model was trained on."""
    record: dict[str, Any] | None = None
    """``init_from`` of the ``train`` JSON: ``model``, and the names of ``taken`` and ``fresh`` layers."""


NO_MODEL = InitialWeights()


def read_initial_weights(
    path: Path, loaded: Loaded, data: TrainingPhotos, strict: bool, console: Console
) -> InitialWeights:
    """Take the weights of a model that fit the network of ``loaded``, and say which.

    A layer is taken if the model has one of the same name (its kind and number) with arrays of the same shapes. The
    last layer with random initial weights, and all after it, belong to the people: they are taken for the same people
    only.

    ``strict``: raise OutputError where photos that the model was trained on are held out.

    Raises:
        CheckpointError: the model can't be read, or no layer fits.
        UsageError: the new network isn't valid.
        OutputError: see ``strict``.
    """
    source = read_model(path)
    checkpoint = source.checkpoint
    stages = loaded.plan(len(data.classes))
    model = {name.removeprefix("model."): a for name, a in checkpoint.arrays.items() if name.startswith("model.")}
    refused = _refused(stages, model, same_people=checkpoint.classes == data.classes)
    with_arrays = [stage.name for stage in stages if stage.parameters or stage.statistics]
    taken = [name for name in with_arrays if name not in refused]
    fresh = ", ".join(f"{name} ({reason})" for name, reason in refused.items())
    if not taken:
        raise CheckpointError(f"{shown(path)}: none of its layers fits this network: {fresh}")
    console.info(f"Initial weights: {', '.join(taken)} of {shown(path)}")
    if refused:
        console.info(f"Starting fresh: {fresh}")
    _warn_of_frozen(loaded.settings.train.freeze, stages, refused, console)
    aligned = finds_faces(checkpoint.arrays), data.dataset.finder is not None
    _warn_of_preparation(path, source.settings.photos, loaded.settings.photos, aligned, console)
    _warn_of_held_out(source, data, strict, console)
    return InitialWeights(
        arrays={name: array for name, array in model.items() if name.partition(".")[0] in taken},
        trained_on=checkpoint.arrays[TRAINED_ON],
        record={"model": str(path), "taken": taken, "fresh": list(refused)},
    )


def _refused(stages: Sequence[Stage], model: Mapping[str, Array], *, same_people: bool) -> dict[str, str]:
    """The layers with arrays that can't be taken from a model, and why."""
    draws = [
        number for number, stage in enumerate(stages) if any(p.start == "random" for p in stage.parameters.values())
    ]
    refused = {}
    for number, stage in enumerate(stages):
        shapes = {f"{stage.name}.{name}": p.shape for name, p in {**stage.parameters, **stage.statistics}.items()}
        if not shapes:
            continue
        if not shapes.keys() <= model.keys():
            refused[stage.name] = "not in it"
        elif not same_people and draws and number >= draws[-1]:
            refused[stage.name] = "other people"
        elif any(model[name].shape != shape for name, shape in shapes.items()):
            refused[stage.name] = "another shape"
    return refused


def _warn_of_frozen(freeze: int, stages: Sequence[Stage], refused: Mapping[str, str], console: Console) -> None:
    at_the_bottom = [stage for stage in stages if stage.index < freeze and not stage.keeps_weights]
    frozen = [stage.name for stage in at_the_bottom if stage.name in refused]
    if frozen:
        console.warning(f"train.freeze {freeze}: {', '.join(frozen)} will stay as they start, and they start fresh")


def _warn_of_preparation(
    path: Path, before: PhotoSettings, now: PhotoSettings, aligned: tuple[bool, bool], console: Console
) -> None:
    """Warn where the photos were prepared differently; ``aligned``: whether faces were found, before and now."""
    unused = {"crop"} if all(aligned) else {"align", "eye_distance"}
    if any(aligned) and not all(aligned):
        unused.add("crop")
    if "dlib" in (before.align, now.align):
        unused.add("eye_distance")
    others = [
        f"photos.{name} {getattr(before, name)} instead of {getattr(now, name)}"
        for name in (entry.name for entry in fields(PhotoSettings))
        if name not in _NO_PREPARATION | unused and getattr(before, name) != getattr(now, name)
    ]
    if aligned[0] != aligned[1]:
        others.insert(0, "faces aligned" if aligned[0] else "faces not aligned")
    if others:
        console.warning(
            f"{shown(path)} was trained on photos that were prepared in another way ({', '.join(others)}): its weights "
            "fit these photos less well"
        )


def _warn_of_held_out(source: ModelFile, data: TrainingPhotos, strict: bool, console: Console) -> None:
    seen = sum(digest in source.trained_on for digest in data.validation_digests.values())
    if seen:
        message = (
            f"{seen} of the {len(data.validation_digests)} held-out photos were trained on by {shown(source.path)}, so "
            "validation is optimistic: take the train.seed of that run, or other photos with --validation"
        )
        warn([message], strict, console)
