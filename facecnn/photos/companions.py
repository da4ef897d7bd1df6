"""Files that cameras, phones and programs leave beside photos. They are recognised by suffix and never opened.

A file with another suffix, or none, may be a photo: its content decides.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath

PLACEHOLDER = ".icloud"
"""Suffix of the hidden file that iCloud leaves in place of a photo: .photo.jpg.icloud."""

DRAWN, EXPLAINED = ".drawn.jpg", ".explained.png"
"""Suffixes of the pictures that ``predict`` makes from photos and may leave beside them."""

KINDS: dict[str, tuple[str, str]] = {
    "sidecar": (  # edits, ratings and descriptions of Lightroom, Apple, Google Takeout, Capture One, DxO, …
        "sidecars",
        ".xmp .aae .json .xml .thm .dop .pp3 .rpp .cos .comask .on1 .nksc .nka .vrd .acr .gpx .exif",
    ),
    "video": (
        "videos",
        ".mov .mp4 .m4v .mp .avi .mkv .webm .wmv .asf .flv .mpg .mpeg .m2v .vob .ogv .3gp .3g2 .mts .m2ts .mod .tod "
        ".dv .mxf .lrv .insv .braw",
    ),
    "sound": ("sounds", ".wav .mp3 .m4a .aac .amr .ogg .opus .flac .wma .aif .aiff .caf"),
    "document": (
        "documents",
        ".txt .md .rtf .log .csv .tsv .htm .html .pdf .doc .docx .odt .xls .xlsx .ods .ppt .pptx .url .webloc .lnk",
    ),
    "program's file": (
        "programs' files",
        ".db .db-wal .db-shm .db-journal .sqlite .ini .ctg .ind .bdm .cpi .mpl .lrcat .lrcat-data .lrprev .lrfprev "
        ".cot .cop .cof .ithmb",
    ),
    "picture that predict has drawn": ("pictures that predict has drawn", f"{DRAWN} {EXPLAINED}"),
    "photo that iCloud has not downloaded": ("photos that iCloud has not downloaded", PLACEHOLDER),
}
"""Plural and suffixes of each kind."""

_KIND = {suffix: kind for kind, (_, suffixes) in KINDS.items() for suffix in suffixes.split()}


def companion(name: str) -> str | None:
    """The suffix, in lower case, of a file that is no photo by its name; None for any other."""
    suffixes = PurePath(name.lower()).suffixes
    return next((end for end in ("".join(suffixes[-2:]), *suffixes[-1:]) if end in _KIND), None)


def is_drawn(name: str) -> bool:
    """Whether a file is, by its name, a picture drawn by ``predict``."""
    return companion(name) in (DRAWN, EXPLAINED)


def describe(passed_over: Mapping[str, int]) -> str:
    """Describe skipped files, given their number by suffix: "3 videos (.mov)"; empty if there are none."""
    number: Counter[str] = Counter()
    suffixes: dict[str, list[str]] = {}
    for suffix, count in sorted(passed_over.items()):
        number[_KIND[suffix]] += count
        suffixes.setdefault(_KIND[suffix], []).append(suffix)
    parts = [
        f"{number[kind]} {kind if number[kind] == 1 else plural} ({', '.join(suffixes[kind])})"
        for kind, (plural, _) in KINDS.items()
        if kind in number
    ]
    return ", ".join(parts)
