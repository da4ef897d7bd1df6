"""Forget a person: a new run without them, and nothing of them left in the other runs and the caches."""

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from facecnn.arrays import Float32Array
from facecnn.body.embedder import key_of_bytes
from facecnn.body.embedding_cache import forget_embeddings
from facecnn.config import load
from facecnn.errors import FacecnnError, OutputError, UsageError, shown
from facecnn.jobs.console import Console
from facecnn.jobs.membership import People, digests_of, needs_no_training, run_of, train_anew, write_run
from facecnn.jobs.models import TRAINED_ON, ModelFile, read_model
from facecnn.jobs.training.options import TrainOptions
from facecnn.network.layers import Body
from facecnn.photos.cache_folder import cache_folder
from facecnn.photos.folder import UNKNOWN, list_photos
from facecnn.photos.forgetting import Forgotten, find_cached, forget_cached
from facecnn.photos.roster import Roster
from facecnn.runs.choice import candidates, read_pin, write_pin
from facecnn.runs.folder import RunFolder


@dataclass(frozen=True)
class Plan:
    """What forgetting a person removes."""

    person: str
    model: ModelFile
    runs: list[RunFolder]
    """The runs that know the person: they are deleted."""
    lost: list[str]
    """Other people whom only these runs know, and not the model."""
    cached: Forgotten
    """What the caches hold of the person's photos."""
    originals: Path | None
    """The person's own folder of photos, which stays."""

    @property
    def bytes(self) -> int:
        """Size of the runs."""
        return sum(run.size() for run in self.runs)


def plan(person: str, model_path: Path, out: Path) -> Plan:
    """Find everything that is known about a person, in the folder of runs ``out`` and in the caches.

    Raises:
        UsageError: the model doesn't know the person, or nobody else.
        OutputError: a training run is writing to one of the runs.
        CheckpointError: the model or its run can't be read.
    """
    model = read_model(model_path)
    known = candidates(out)
    people = [name for name in model.checkpoint.classes if name != UNKNOWN]
    if person not in people:
        near = get_close_matches(person, people, n=1)
        hint = f"did you mean {shown(near[0])}?" if near else f"it knows {', '.join(map(shown, people[:10]))}"
        hint = next((f"-m {shown(run.path)} does" for run in known[::-1] if person in run.people), hint)
        raise UsageError(f"{shown(person)}: not one of the people of {shown(model_path)}: {hint}")
    if len(people) == 1:
        raise UsageError(f"{shown(person)} is the only person whom {shown(model_path)} knows: delete its run instead")
    own = run_of(model)
    runs = {run.path.resolve(): RunFolder(run.path) for run in known if person in run.people}
    runs.setdefault(own.path.resolve(), own)
    for run in runs.values():
        if run.in_use():
            raise OutputError(
                f"{shown(run.path)}: knows {shown(person)} and is in use: wait for its training, or stop it"
            )
    kept = {name for run in known if person not in run.people for name in run.people}
    lost = {name for run in known if person in run.people for name in run.people} - kept - set(people)
    digests: set[str] = set()
    originals = None
    for run in runs.values():
        with suppress(FacecnnError):
            digests |= _all_digests(run.read_split(), person)
            folder = load(str(run.config_path)).settings.photos.folder
            if folder is not None and Path(folder, person).is_dir():
                originals = Path(folder, person)
                digests |= _digests_of_files(originals)
    return Plan(person, model, list(runs.values()), sorted(lost), find_cached(frozenset(digests)), originals)


def _all_digests(split: Mapping[str, Any], person: str) -> set[str]:
    """SHA-256 of a person's photos in a run, including those that training left out."""
    left_out = split.get("left_out", {}).items()
    return digests_of(split, person) | {photo["sha256"] for path, photo in left_out if path.startswith(f"{person}/")}


def _digests_of_files(folder: Path) -> set[str]:
    """SHA-256 of the photos in a folder, as they are now."""
    digests = set()
    for file in list_photos(folder).files:
        with suppress(OSError):
            digests.add(hashlib.sha256(file.read_bytes()).hexdigest())
    return digests


def forget(plan: Plan, new: TrainOptions, console: Console) -> dict[str, Any]:
    """Make the new run, then remove what ``plan`` lists.

    Returns:
        The ``forget`` JSON: ``run``, ``person``, ``classes``, ``trained`` (whether anything was trained), ``removed
        {runs, crops, faces, embeddings}`` and ``originals``, the person's own folder of photos, which stays.

    Raises:
        OutputError: something can't be removed.
        FacecnnError: the new run can't be made; nothing is removed then.
    """
    pinned = read_pin(new.out)
    path, classes, trained = _without(plan, new, console)
    if pinned is not None and pinned.resolve() in {run.path.resolve() for run in plan.runs}:
        write_pin(path, new.out)
        console.info(f"Pinned: {shown(path)}, in place of {shown(pinned)}")
    # The runs last: as long as one knows the person, the command can be given again.
    cached = find_cached(plan.cached.digests)
    try:
        # Their crops are the keys of embeddings, so these go first.
        keys = [key for key in map(key_of_bytes, cached.pixels()) if key is not None]
        embeddings = forget_embeddings(keys, _embeddings_in(plan.runs, plan.person))
        forget_cached(cached)
    except (OSError, sqlite3.Error) as error:
        raise OutputError(
            f"{shown(cache_folder())}: not everything could be removed there ({error}), so no run was deleted: delete "
            f"this folder, which will be recreated, and repeat the command with -m {shown(plan.model.path.parent)}"
        ) from error
    for run in plan.runs:
        if not run.delete():
            console.warning(f"{shown(run.path)}: also has files that training didn't write; these are left")
    return {
        "run": str(path),
        "person": plan.person,
        "classes": classes,
        "trained": trained,
        "removed": {
            "runs": [str(run.path) for run in plan.runs],
            "crops": cached.crops,
            "faces": cached.searched,
            "embeddings": embeddings,
        },
        "originals": None if plan.originals is None else str(plan.originals),
    }


def _without(plan: Plan, new: TrainOptions, console: Console) -> tuple[Path, list[str], bool]:
    """Make the new run. Returns its folder, its classes, and whether it was trained."""
    model, person = plan.model, plan.person
    if not needs_no_training(model):
        result = train_anew(model, Roster(without=frozenset({person})), new, console)
        return Path(result["run"]), result["classes"], True
    people = People.of(model).without(person)
    split = run_of(model).read_split()
    of_others = set[str]().union(*(digests_of(split, name) for name in [*people.names, UNKNOWN]))
    own = {bytes.fromhex(digest) for digest in digests_of(split, person) - of_others}
    kept = np.array([row for row in model.checkpoint.arrays[TRAINED_ON] if row.tobytes() not in own], np.uint8)
    run = write_run(model, people, kept.reshape(-1, 32), _split_without(split, person), new)
    return run.path, [*people.names, UNKNOWN], False


def _embeddings_in(runs: Sequence[RunFolder], person: str) -> Float32Array:
    """A person's embeddings (n, 128) in the models of runs; none of models without, or that can't be read."""
    found = [np.zeros((0, Body.EMBEDDING), np.float32)]
    for run in runs:
        with suppress(FacecnnError):
            model = read_model(run.path)
            if needs_no_training(model):
                people = People.of(model)
                found.append(people.embeddings[people.owners == people.names.index(person)])
    return np.concatenate(found)


def _split_without(split: Mapping[str, Any], person: str) -> dict[str, Any]:
    """The contents of a split.json without the person's photos."""
    of_photos = {
        key: {path: value for path, value in entries.items() if not path.startswith(f"{person}/")}
        for key, entries in split.items()
        if isinstance(entries, Mapping) and key != "added"
    }
    change = Roster.from_record(split).and_also(Roster(without=frozenset({person})))
    rest = {key: value for key, value in split.items() if key not in ("added", "without")}
    return {**rest, **of_photos, **change.record(), "classes": [name for name in split["classes"] if name != person]}
