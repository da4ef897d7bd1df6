"""One exception class per exit code, raised where the problem is known and caught once, in ``facecnn.cli``.

A message says what is wrong, where (file, line, column, key) and what to do about it.
"""

import os
import re
import unicodedata

# Marks that turn the direction of what follows: "photo<RLO>gpj.exe" would read as "photoexe.jpg".
_DIRECTION_MARKS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def shown(path: str | os.PathLike[str]) -> str:
    r"""A file's name as it can be printed, in one line and as UTF-8, whatever the file system holds.

    Control characters, line separators, marks that change the writing direction and bytes that aren't UTF-8 are
    written as ``\x1b``, ``\u202e`` or ``\xff``; anything else stays.
    """
    return "".join(map(_shown_character, os.fspath(path)))


def folded(name: str) -> str:
    """A file's name as a file system knows it that takes no account of case, nor of how an accent is encoded."""
    return unicodedata.normalize("NFC", name).casefold()


def natural_order(name: str) -> tuple[object, ...]:
    """A key to sort names by as people read them: s2 before s10, whatever the case."""
    # Not by int(): it refuses thousands of digits.
    parts = re.split(r"0*([0-9]+)", name.casefold())
    key = tuple((len(part), part) if place % 2 else part for place, part in enumerate(parts))
    return (key, name)


def _shown_character(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode puts byte 0xNN, where it isn't UTF-8, at U+DCNN
        return f"\\x{code - 0xDC00:02x}"
    if character in _DIRECTION_MARKS or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    return character


class FacecnnError(Exception):
    """A problem that is explained to the user without a traceback."""

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
    """Training whose loss is no longer a number."""

    exit_code = 7


class InterruptedTraining(FacecnnError):
    """Training that was ended by a signal after its run was saved; the exit code is 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
