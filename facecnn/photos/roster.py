"""Changes to who is in a folder of photos: people added from elsewhere, and people left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from facecnn.photos.folder import UNKNOWN, Scan


@dataclass(frozen=True)
class Roster:
    """Whose photos are used in addition to those in the folder, or left out although they are there."""

    added: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """Files by person, in any place: of new people, or more of those in the folder."""
    without: frozenset[str] = frozenset()
    """People whose photos aren't used."""

    def apply(self, found: Scan) -> None:
        """Change what was found in the folder."""
        people = {name: files for name, files in found.people.items() if name not in self.without}
        for name, files in self.added.items():
            if name == UNKNOWN:
                found.unknown += files
            else:
                people[name] = [*people.get(name, []), *files]
        found.people = dict(sorted(people.items()))

    def and_also(self, other: Roster) -> Roster:
        """This change, followed by another."""
        added = {name: files for name, files in self.added.items() if name not in other.without}
        for name, files in other.added.items():
            added[name] = tuple(dict.fromkeys((*added.get(name, ()), *files)))
        return Roster(added, (self.without - added.keys()) | other.without)

    def record(self) -> dict[str, Any]:
        """For a run's split.json; empty where nothing is changed."""
        record: dict[str, Any] = {}
        if self.added:
            record["added"] = {name: [str(file) for file in files] for name, files in self.added.items()}
        if self.without:
            record["without"] = sorted(self.without)
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """What ``record`` wrote."""
        added = {name: tuple(map(Path, files)) for name, files in record.get("added", {}).items()}
        return cls(added, frozenset(record.get("without", ())))


NO_CHANGES = Roster()
