"""Splits photos into those to train on and those held out. Photos that look alike stay on one side."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from facecnn.errors import PhotoError, UsageError, natural_order, shown
from facecnn.photos.fingerprint import near_duplicate_groups
from facecnn.photos.folder import UNKNOWN, some


class Photo(NamedTuple):
    """What a split depends on."""

    path: str
    """PERSON/FILE, the same on every computer."""
    sha256: str
    """Hexadecimal SHA-256 of the file's bytes."""
    hash: int
    """See ``facecnn.photos.fingerprint.dct_hash``."""
    faces: int = 1
    """Number of faces found in it."""


class Split(NamedTuple):
    """The two sides, each sorted, and warnings."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    warnings: tuple[str, ...]


def split(people: Mapping[str, Sequence[Photo]], share: float, seed: int) -> Split:
    """Hold out about ``share`` of each person's photos.

    A person's photos that look alike (see ``fingerprint``) stay on one side, and so do photos of equal content,
    whoever's they are. Each side has at least one photo of each person; a single photo, or copies of one, is trained
    on. The same holds for strangers, but none of them are held out if none of the people's photos are. Photos with one
    face are held out before those with several, but at most half of them: since it isn't known whose the other faces
    are, photos with several are less useful, both for judging a model and for training it. The choice depends on
    names, contents, numbers of faces and the seed only.

    Args:
        people: each class's photos, in any order; ``unknown`` are strangers.
        share: 0 (nothing is held out) to below 1.
        seed: another seed gives another choice.

    Raises:
        PhotoError: ``share`` leaves none of a person's photos to train on.
    """
    warnings: list[str] = []
    single = _with_one_photo(people)
    if share:
        _refuse_too_few({name: photos for name, photos in people.items() if name not in single}, share)
        warnings += _warn_of_one_photo(people, single)
    if len(single) == len(people.keys() - {UNKNOWN}):
        share = 0  # for strangers, too: an epoch chosen by them alone would refuse everybody
    alike: list[str] = []
    held_out: dict[str, bool] = {}  # sha256 → whether the photo is held out
    for name in sorted(people, key=lambda person: (person == UNKNOWN, person)):
        photos = sorted(people[name])
        groups = _near_duplicates(photos)
        contents = _grouped(photos, [photo.sha256 for photo in photos])
        if len(groups) == 1 and len(contents) > 1:
            # All look alike by hash, which may be a false alarm: rather a near-duplicate held out than nothing.
            groups = contents
            alike.append(f"{shown(name)} ({len(contents)})")
        groups.sort(key=lambda group: (_several(group), _order(f"split-{seed}:{group[0].path}")))
        _hold_out(groups, share, held_out)
        sides = {held_out[photo.sha256] for photo in photos}
        if name != UNKNOWN and sides == {True}:
            raise PhotoError(f"{shown(name)}: copies of other people's photos only: nothing is left for training")
        if share and name != UNKNOWN and name not in single and sides == {False}:
            warnings.append(f"{shown(name)}: no photo for validation, all are copies of other people's")
    if share and alike:
        warnings.append(f"all photos look nearly the same of {some(alike)}: add different ones")
    paths = [(photo.path, held_out[photo.sha256]) for photos in people.values() for photo in photos]
    training = tuple(sorted(path for path, is_held_out in paths if not is_held_out))
    return Split(training, tuple(sorted(path for path, is_held_out in paths if is_held_out)), tuple(warnings))


def folds(people: Mapping[str, Sequence[Photo]], count: int = 5) -> tuple[tuple[str, ...], ...]:
    """Assign photos to folds for cross-validation, by a rule that gives everybody the same folds.

    Photos of a person that look alike form a group. People are taken by name, a person's groups by size, largest first,
    then by the SHA-256 (hexadecimal) of "folds-1:PERSON/FILE" of the group's first file name. Each goes to the fold
    with the fewest photos of that person, then with the fewest of all, then with the lowest number. Returns the paths
    of each fold's photos, sorted. Raises UsageError for fewer than two folds, or where a person has fewer photos than
    there are folds.
    """
    if count < 2:
        raise UsageError(f"{count} folds: at least 2 are needed")
    few = {name: len(photos) for name, photos in people.items() if len(photos) < count and name != UNKNOWN}
    if few:
        names = some([f"{shown(name)} has {few[name]}" for name in sorted(few)])
        raise UsageError(f"{count} folds need at least {count} photos per person, {names}: add photos or lower --folds")
    fold_of: dict[str, int] = {}
    in_fold = [0] * count
    for name in sorted(people):
        of_person = [0] * count
        groups = _near_duplicates(sorted(people[name]))
        for group in sorted(groups, key=lambda group: (-len(group), _order(f"folds-1:{group[0].path}"))):
            chosen = min(range(count), key=lambda fold: (of_person[fold], in_fold[fold], fold))
            fold_of |= dict.fromkeys((photo.path for photo in group), chosen)
            of_person[chosen] += len(group)
            in_fold[chosen] += len(group)
    return tuple(tuple(sorted(path for path in fold_of if fold_of[path] == fold)) for fold in range(count))


def _order(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _near_duplicates(photos: Sequence[Photo]) -> list[list[Photo]]:
    """Group sorted photos that look alike; groups are in the order of their first photos."""
    hashes = np.array([photo.hash for photo in photos], dtype=np.uint64)
    return _grouped(photos, near_duplicate_groups(hashes).tolist())


def _grouped(photos: Sequence[Photo], keys: Sequence[object]) -> list[list[Photo]]:
    groups: dict[object, list[Photo]] = {}
    for photo, key in zip(photos, keys, strict=True):
        groups.setdefault(key, []).append(photo)
    return list(groups.values())


def _hold_out(groups: list[list[Photo]], share: float, held_out: dict[str, bool]) -> None:
    """Decide which of one person's groups are held out, in the order given, and note it under each photo's SHA-256.

    A group with a photo that is decided already, as another person's, follows that. Any other is held out if that
    brings the number of held-out photos nearer to the share. At least one group stays on either side. If some photos
    show several faces, at most half of those with one are held out.
    """
    alone = sum(len(group) for group in groups if not _several(group))
    most_alone = alone / 2 if any(map(_several, groups)) else alone
    free = []
    count = 0
    training = 0
    for group in groups:
        decided = next((held_out[photo.sha256] for photo in group if photo.sha256 in held_out), None)
        if decided is None:
            free.append(group)
        else:
            _note(group, decided, held_out)
            count += len(group) if decided else 0
            most_alone -= len(group) if decided and not _several(group) else 0
            training += not decided
    training += len(free)
    wanted = share * sum(map(len, groups))
    chosen = set()
    for index, group in enumerate(free):
        size_alone = 0 if _several(group) else len(group)
        if training > 1 and size_alone <= most_alone and abs(count + len(group) - wanted) < abs(count - wanted):
            chosen.add(index)
            count += len(group)
            most_alone -= size_alone
            training -= 1
    if share and count == 0 and free and training > 1:
        chosen.add(min(range(len(free)), key=lambda index: len(free[index])))
    for index, group in enumerate(free):
        _note(group, index in chosen, held_out)


def _several(group: list[Photo]) -> bool:
    """Whether any of these photos shows several faces."""
    return any(photo.faces > 1 for photo in group)


def _note(group: list[Photo], is_held_out: bool, held_out: dict[str, bool]) -> None:
    for photo in group:
        held_out.setdefault(photo.sha256, is_held_out)


def _with_one_photo(people: Mapping[str, Sequence[Photo]]) -> list[str]:
    """People with a single photo, or copies of one, in natural order of their names."""
    one = [name for name, photos in people.items() if name != UNKNOWN and len({photo.sha256 for photo in photos}) == 1]
    return sorted(one, key=natural_order)


def _warn_of_one_photo(people: Mapping[str, Sequence[Photo]], single: Sequence[str]) -> list[str]:
    if not single:
        return []
    who = some([shown(name) for name in single], 10)
    copies = ", or copies of one" if any(len(people[name]) > 1 for name in single) else ""
    if len(single) == len(people.keys() - {UNKNOWN}):
        return [
            f"each person has one photo{copies}: nothing is held out, so nobody knows how good this is: "
            f"add photos of {who}"
        ]
    return [
        f"only one photo{copies}{',' if copies else ''} of {who}: none of theirs is held out, so nobody knows how well "
        "they are told: add photos"
    ]


def _refuse_too_few(people: Mapping[str, Sequence[Photo]], share: float) -> None:
    for name, photos in sorted(people.items()):
        if name != UNKNOWN and share * len(photos) > len(photos) - 0.5:
            raise PhotoError(
                f"validation {share:g} of {len(photos)} photos leaves 0 for training ({shown(name)}): "
                "lower photos.validation or add photos"
            )
