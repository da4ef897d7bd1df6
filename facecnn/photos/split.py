"""Which photos are trained on and which are kept to judge by. Photos that look alike stay on one side."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from facecnn.errors import PhotoError, UsageError, natural_order, shown
from facecnn.photos.fingerprint import near_duplicate_groups
from facecnn.photos.folder import UNKNOWN, some


class Photo(NamedTuple):
    """What a split needs to know about a photo."""

    path: str
    """PERSON/FILE, the same on every computer."""
    sha256: str
    """Hexadecimal SHA-256 of the file's bytes."""
    hash: int
    """See ``facecnn.photos.fingerprint.dct_hash``."""
    faces: int = 1
    """How many were found in it."""


class Split(NamedTuple):
    """The two sides, each sorted, and what a user should know about them."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    warnings: tuple[str, ...]


def split(people: Mapping[str, Sequence[Photo]], share: float, seed: int) -> Split:
    """Choose the photos to judge by: about ``share`` of each person's.

    A person's photos that look alike (see ``fingerprint``) and photos of equal content, whoever's they are, come on one
    side. A person has at least one photo on either side; an only photo, or copies of one, is trained on. So it is with
    strangers, of whom none is kept where none of the people's is. Where a person has photos with several faces, those
    with one are kept first, half of them at most: whose the other faces are isn't known, so they say less about how
    good a training is, and are of less use in it. The choice depends on names, contents, numbers of faces and the seed
    only.

    Args:
        people: each class's photos, in any order; ``unknown`` are strangers.
        share: 0 (nothing is kept) to below 1.
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
        share = 0  # of strangers, too: an epoch chosen by their photos alone would be one that refuses everybody
    alike: list[str] = []
    kept: dict[str, bool] = {}  # sha256 → whether the photo is kept for validation
    for name in sorted(people, key=lambda person: (person == UNKNOWN, person)):
        groups = _groups(people[name])
        contents = _same_contents(people[name])
        if len(groups) == 1 and len(contents) > 1:
            # All look alike by their hashes, which raise false alarms: better judged by a sibling than not trained.
            groups = contents
            alike.append(f"{shown(name)} ({len(contents)})")
        groups.sort(key=lambda group: (_several(group), _order(f"split-{seed}:{group[0].path}")))
        _keep(groups, share, kept)
        sides = {kept[photo.sha256] for photo in people[name]}
        if name != UNKNOWN and sides == {True}:
            raise PhotoError(f"{shown(name)}: copies of other people's photos only: nothing is left for training")
        if share and name != UNKNOWN and name not in single and sides == {False}:
            warnings.append(f"{shown(name)}: no photo for validation, all are copies of other people's")
    if share and alike:
        warnings.append(f"all photos look nearly the same of {some(alike)}: add different ones")
    paths = [(photo.path, kept[photo.sha256]) for photos in people.values() for photo in photos]
    training = tuple(sorted(path for path, is_kept in paths if not is_kept))
    return Split(training, tuple(sorted(path for path, is_kept in paths if is_kept)), tuple(warnings))


def folds(people: Mapping[str, Sequence[Photo]], count: int = 5) -> tuple[tuple[str, ...], ...]:
    """Deal the photos out to folds for cross-validation, the same for everybody who follows this rule.

    Photos of a person that look alike form a group. People are taken by name, a person's groups by size, large first,
    then by the SHA-256 (hexadecimal) of "folds-1:PERSON/FILE" of the group's first file name; each goes to the fold
    with the fewest photos of that person, then the fewest at all, then the lowest number.

    Returns:
        For each fold the paths of its photos, sorted.

    Raises:
        UsageError: fewer than two folds, or a person has fewer photos than there are folds.
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
        for group in sorted(_groups(people[name]), key=lambda group: (-len(group), _order(f"folds-1:{group[0].path}"))):
            chosen = min(range(count), key=lambda fold: (of_person[fold], in_fold[fold], fold))
            fold_of |= dict.fromkeys((photo.path for photo in group), chosen)
            of_person[chosen] += len(group)
            in_fold[chosen] += len(group)
    return tuple(tuple(sorted(path for path in fold_of if fold_of[path] == fold)) for fold in range(count))


def _order(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _groups(photos: Sequence[Photo]) -> list[list[Photo]]:
    """Near-duplicates together; each group's photos, and the groups by their first photos, sorted by path."""
    photos = sorted(photos)
    numbers = near_duplicate_groups(np.array([photo.hash for photo in photos], dtype=np.uint64))
    groups: dict[int, list[Photo]] = {}
    for photo, number in zip(photos, numbers.tolist(), strict=True):
        groups.setdefault(number, []).append(photo)
    return list(groups.values())


def _same_contents(photos: Sequence[Photo]) -> list[list[Photo]]:
    groups: dict[str, list[Photo]] = {}
    for photo in sorted(photos):
        groups.setdefault(photo.sha256, []).append(photo)
    return list(groups.values())


def _keep(groups: list[list[Photo]], share: float, kept: dict[str, bool]) -> None:
    """Decide about one person's groups in the order given, and note it in ``kept`` under each photo's SHA-256.

    What holds a photo that is decided already, as another person's, follows that. Else a group is kept where this
    brings the number kept nearer to the share. One group at least stays on either side. Where some photos show several
    faces, at most half of those with one are kept.
    """
    alone = sum(len(group) for group in groups if not _several(group))
    most_alone = alone / 2 if any(map(_several, groups)) else alone
    free = []
    count = 0
    training = 0
    for group in groups:
        decided = next((kept[photo.sha256] for photo in group if photo.sha256 in kept), None)
        if decided is None:
            free.append(group)
        else:
            _note(group, decided, kept)
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
        _note(group, index in chosen, kept)


def _several(group: list[Photo]) -> bool:
    """Whether a photo of these shows several faces."""
    return any(photo.faces > 1 for photo in group)


def _note(group: list[Photo], is_kept: bool, kept: dict[str, bool]) -> None:
    for photo in group:
        kept.setdefault(photo.sha256, is_kept)


def _with_one_photo(people: Mapping[str, Sequence[Photo]]) -> list[str]:
    """The people with only one photo, or copies of one, in the natural order of their names."""
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
