"""One exception class for each exit code, caught in ``facecnn.cli``, and functions for names in messages.

A message says what is wrong, where (file, line, column, key) and what to do about it.
"""

import os
import re
import unicodedata

# Marks that change the writing direction: "photo<RLO>gpj.exe" would read as "photoexe.jpg".
_DIRECTION_MARKS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def shown(path: str | os.PathLike[str]) -> str:
    r"""A file's name in printable form: one line of valid UTF-8.

    Control characters, line separators, marks that change the writing direction and bytes that aren't UTF-8 are
    escaped as ``\x1b``, ``\u202e`` or ``\xff``.
    """
    return "".join(map(_shown_character, os.fspath(path)))


def folded(name: str) -> str:
    """A file's name as on a file system that ignores case and the encoding of accents."""
    return unicodedata.normalize("NFC", name).casefold()


def natural_order(name: str) -> tuple[object, ...]:
    """Sort key for names in natural order: s2 before s10, whatever the case."""
    # int() would refuse thousands of digits.
    parts = re.split(r"0*([0-9]+)", name.casefold())
    key = tuple((len(part), part) if place % 2 else part for place, part in enumerate(parts))
    return (key, name)


def _shown_character(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode gives U+DCNN for byte 0xNN that isn't UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if character in _DIRECTION_MARKS or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    return character


class FacecnnError(Exception):
    """A problem that is shown to the user without a traceback."""

    exit_code = 1


class UsageError(FacecnnError):
    """A wrong argument, option or setting."""

    exit_code = 2


class PhotoError(FacecnnError):
    """A photo, or a folder of photos, that can't be used."""

    exit_code = 3


class CheckpointError(FacecnnError):
    """A model file that is missing, damaged or doesn't fit."""

    exit_code = 4


class DeviceError(FacecnnError):
    """A device that isn't there or can't be used."""

    exit_code = 5


class OutputError(FacecnnError):
    """Output that couldn't be written, or a demand of ``--strict`` or ``--fail-under`` that isn't met."""

    exit_code = 6


class DivergedError(FacecnnError):
    """Training whose loss or weights are no longer finite."""

    exit_code = 7


class InterruptedTraining(FacecnnError):
    """Training that a signal ended, after the run was saved; the exit code is 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
