"""Forget a person: a new run without them, and nothing of them left in the other runs and the caches."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from facecnn.body.embedder import key_of_bytes
from facecnn.body.embedding_cache import forget_embeddings
from facecnn.config import load
from facecnn.errors import FacecnnError, OutputError, UsageError, shown
from facecnn.jobs.console import Console
from facecnn.jobs.membership import NewRun, People, needs_no_training, run_of, train_anew, write_run
from facecnn.jobs.models import TRAINED_ON, ModelFile, read_model
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
    photos: dict[str, str]
    """SHA-256 of the person's photos, by PERSON/FILE."""
    cached: Forgotten
    """What the caches hold of these."""
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
        OutputError: a training is writing to one of the runs.
        CheckpointError: the model or its run can't be read.
    """
    model = read_model(model_path)
    people = [name for name in model.checkpoint.classes if name != UNKNOWN]
    if person not in people:
        near = get_close_matches(person, people, n=1)
        hint = f"did you mean {shown(near[0])}?" if near else f"it knows {', '.join(map(shown, people[:10]))}"
        raise UsageError(f"{shown(person)}: not one of the people of {shown(model_path)}: {hint}")
    if len(people) == 1:
        raise UsageError(f"{shown(person)} is the only person whom {shown(model_path)} knows: delete its run instead")
    own = run_of(model)
    runs = {run.path.resolve(): RunFolder(run.path) for run in candidates(out) if person in run.people}
    runs.setdefault(own.path.resolve(), own)
    for run in runs.values():
        if run.in_use():
            raise OutputError(
                f"{shown(run.path)}: knows {shown(person)} and is in use: wait for its training, or stop it"
            )
    photos: dict[str, str] = {}
    originals = None
    for run in runs.values():
        with suppress(FacecnnError):
            photos |= _of_person(run.read_split(), person)
            folder = load(str(run.config_path)).settings.photos.folder
            if folder is not None and Path(folder, person).is_dir():
                originals = Path(folder, person)
    if originals is not None:
        for file in list_photos(originals).files:
            with suppress(OSError):
                photos[f"{person}/{file.name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return Plan(person, model, list(runs.values()), photos, find_cached(frozenset(photos.values())), originals)


def _of_person(split: Mapping[str, Any], person: str) -> dict[str, str]:
    """SHA-256 of a person's photos in a run, by PERSON/FILE."""
    left_out = {path: photo["sha256"] for path, photo in split.get("left_out", {}).items()}
    photos = {**split["train"], **split["validation"], **left_out}
    return {path: digest for path, digest in photos.items() if path.startswith(f"{person}/")}


def forget(plan: Plan, new: NewRun, console: Console) -> dict[str, Any]:
    """Make the new run, then remove what ``plan`` lists.

    Returns:
        The ``forget`` JSON: ``run``, ``person``, ``classes``, ``trained`` (whether there was a training), ``removed
        {runs, crops, faces, embeddings}`` and ``originals``, the person's own folder of photos, which stays.

    Raises:
        OutputError: something can't be removed.
        FacecnnError: the new run can't be made; nothing is removed then.
    """
    path, classes, trained = _without(plan, new, console)
    pinned = read_pin(new.out) if (new.out / ".pinned").exists() else None
    if pinned is not None and pinned.resolve() in {run.path.resolve() for run in plan.runs}:
        write_pin(path, new.out)
        console.info(f"Pinned: {shown(path)}, in place of {shown(pinned)}")
    removed = []
    for run in plan.runs:
        if run.path.resolve() == path.resolve():
            continue  # --overwrite: the new run took its place
        if not run.delete():
            console.warning(f"{shown(run.path)}: also has files that no training wrote; these are left")
        removed.append(str(run.path))
    try:
        # Their crops are the keys of embeddings, so these go first.
        embeddings = forget_embeddings(key for key in map(key_of_bytes, plan.cached.pixels()) if key is not None)
        forget_cached(plan.cached)
    except (OSError, sqlite3.Error) as error:
        raise OutputError(
            f"{shown(cache_folder())}: not all could be removed there ({error}): delete the folder, which is made anew"
        ) from error
    return {
        "run": str(path),
        "person": plan.person,
        "classes": classes,
        "trained": trained,
        "removed": {
            "runs": removed,
            "crops": plan.cached.crops,
            "faces": plan.cached.searched,
            "embeddings": embeddings,
        },
        "originals": None if plan.originals is None else str(plan.originals),
    }


def _without(plan: Plan, new: NewRun, console: Console) -> tuple[Path, list[str], bool]:
    """Make the new run. Returns its folder, its classes, and whether it was trained."""
    model, person = plan.model, plan.person
    if not needs_no_training(model):
        result = train_anew(model, Roster(without=frozenset({person})), new, console)
        return Path(result["run"]), result["classes"], True
    people = People.of(model).without(person)
    own = {bytes.fromhex(digest) for digest in plan.photos.values()}
    kept = np.array([row for row in model.checkpoint.arrays[TRAINED_ON] if row.tobytes() not in own], np.uint8)
    run = write_run(model, people, kept.reshape(-1, 32), _split_without(run_of(model).read_split(), person), new)
    return run.path, [*people.names, UNKNOWN], False


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
