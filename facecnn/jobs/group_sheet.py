"""The pictures of the contact sheet that ``group`` writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from facecnn.jobs.face_groups import GroupedFaces
from facecnn.photos.folder import UNCLEAR
from facecnn.reports.group_sheet import FaceCard, GroupSection, GroupSheet

_FACES_A_GROUP, _GROUPS = 30, 100
"""More would make a page that no browser likes: 3,000 faces are some 20 MB."""


def make_sheet(
    album: Path,
    faces: GroupedFaces,
    copies: Sequence[Mapping[str, Path]],
    folders: Sequence[str],
    progress: Callable[[int, int], None],
) -> GroupSheet:
    """The contact sheet: the largest groups, each with the faces least like it first, then the unclear faces.

    Args:
        album: the folder that was grouped.
        faces: the faces of the album.
        copies: for each photo its copy in each of its folders.
        folders: in the order of the page.
        progress: called with (done, total).
    """
    members: dict[str, list[int]] = defaultdict(list)
    for face, photo in enumerate(faces.photo.tolist()):
        folder = faces.folder_of(face) or UNCLEAR
        if folder in copies[photo]:  # an unclear face beside others isn't in unclear/
            members[folder].append(face)
    people = [folder for folder in folders if folder != UNCLEAR]
    shown = people[:_GROUPS] + [folder for folder in folders if folder == UNCLEAR]
    sections = []
    for number, folder in enumerate(shown, 1):
        order = sorted(members[folder], key=lambda face: (faces.nearness[face], face))
        cards = []
        for face in order[:_FACES_A_GROUP]:
            file = copies[faces.photo[face]][folder]
            cards.append(FaceCard(file, faces.pixels[faces.crops.rows[face]], faces.reason[face]))
        sections.append(GroupSection(folder, len(members[folder]), cards))
        progress(number, len(shown))
    return GroupSheet(album.resolve().name or str(album), len(people), sections)
