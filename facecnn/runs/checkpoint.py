"""Checkpoints: a model, and the state to resume its training, in one file that is checked before it is used.

The file is in the safetensors format (https://huggingface.co/docs/safetensors): 8 bytes of header length, a JSON header
that lists the arrays, the arrays. Its `__metadata__` holds `format`, `format_version`, `settings` and `classes` (JSON
texts) and `sha256`, the hash of all bytes of the file with its own 64 digits set to '0'. The training state is JSON as
well, but in a uint8 array named ``state``, because it grows with the photos and epochs and the header is limited.

The safetensors library alone isn't enough: it accepts flipped bits and repeated header keys, takes half a minute for a
header of a million names, and writes metadata in random order, while equal runs have to give equal bytes.
"""

import difflib
import hashlib
import io
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from facecnn.errors import CheckpointError, DivergedError, OutputError, shown
from facecnn.runs.atomic import write_atomically

FORMAT = "facecnn"
FORMAT_VERSION = 1
HEADER_CAP = 1 << 20
BEST = "best.safetensors"
LAST = "last.safetensors"
PREVIOUS = "previous.safetensors"
UNKNOWN = "unknown"
"""The class of strangers, as in ``facecnn.photos.folder``, which mustn't be imported here."""

Which = Literal["best", "last"]

_STATE = "state"
_NO_HASH = "0" * 64
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "U8": np.dtype("u1"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
}
_RENAMED = {"variance": "second_moment"}
"""Prefixes of arrays' names in older files, and now."""
_METADATA_KEYS = {"format", "format_version", "settings", "classes", "sha256"}
_TRAIN_WRITES = "give a run folder or a .safetensors file that `facecnn train` wrote"
_CHECK = "check the path and its permissions"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        settings: the resolved configuration, as JSON.
        classes: the people's names, in the order of the network's outputs.
        arrays: parameters, buffers and optimizer state by name. Copy loaded arrays before you write to them.
        state: the state of training (progress, calibration), as JSON.
    """

    settings: dict[str, Any]
    classes: list[str]
    arrays: dict[str, np.ndarray]
    state: dict[str, Any]


@dataclass(frozen=True)
class CheckpointGlance:
    """The ``classes`` and ``state`` of a ``Checkpoint``, read without its arrays."""

    classes: list[str]
    state: dict[str, Any]


class _Refused(Exception):
    """Why a file is refused, and what to do about it where it isn't simply damaged."""

    def __init__(self, reason: str, remedy: str | None = None) -> None:
        super().__init__(reason)
        self.remedy = remedy


def save_checkpoint(path: Path, checkpoint: Checkpoint, *, keep_old_as: Path | None = None) -> None:
    """Write a checkpoint durably and atomically (see ``write_atomically``, also for ``keep_old_as``).

    Equal checkpoints give equal bytes: keys are sorted, and no time, path, run name or program version is written.

    Raises:
        DivergedError: an array holds NaN or infinity; an old file is kept.
        OutputError: the file couldn't be written; an old file is intact.
        ValueError: a dtype can't be stored, or settings or state aren't strict JSON (a bug).
    """
    write_atomically(path, checkpoint_bytes(checkpoint, path), keep_old_as=keep_old_as)


def load_checkpoint(path: Path, which: Which = "best") -> Checkpoint:
    """Read and check a checkpoint: a file, or the one that ``find_checkpoint`` chooses in a run folder.

    Header size and syntax, unique keys, format version, dtypes, shapes, offsets, file size, hash and finite values are
    checked in this order before anything is returned. Nothing is ever unpickled. Raises CheckpointError where it is
    missing, damaged, from another program or from a newer version.
    """
    file = find_checkpoint(path, which)
    with _refusing(file), _opened(file) as (stream, size):
        return _decode(*_read(stream, size))


def checkpoint_of_bytes(data: bytes, path: Path) -> Checkpoint:
    """Read and check a checkpoint in memory, which ``path`` names in messages; see ``load_checkpoint``."""
    with _refusing(path):
        return _decode(*_read(io.BytesIO(data), len(data)))


def glance_at_checkpoint(file: Path) -> CheckpointGlance:
    """Read only a checkpoint's classes and state, to choose among many. Damaged arrays aren't noticed.

    Raises CheckpointError where it can't be read, isn't a facecnn model, or its header or state is damaged.
    """
    with _refusing(file), _opened(file) as (stream, size):
        head, header, metadata, _ = _read_structure(stream, size)
        begin, end = header[_STATE]["data_offsets"]
        stream.seek(len(head) + begin)
        state = _parse_json(stream.read(end - begin), "its training state")
        return CheckpointGlance(_parse_classes(metadata), state)


@contextmanager
def _refusing(file: Path) -> Iterator[None]:
    """Turn errors into CheckpointErrors with a reason and a remedy."""
    try:
        yield
    except _Refused as refused:
        raise CheckpointError(f"{shown(file)}: {refused}: {refused.remedy or _remedy(file)}") from None
    except OSError as error:
        raise CheckpointError(f"{shown(file)}: can't be read ({error.strerror}): {_CHECK}") from error
    except MemoryError:
        raise CheckpointError(
            f"{shown(file)}: not enough memory to read it: free some or use a smaller model"
        ) from None


def find_checkpoint(path: Path, which: Which = "best") -> Path:
    """The checkpoint file that ``path`` stands for: itself, or a file of the run folder.

    Of a run folder, "best" is best.safetensors, or last.safetensors if there is no best one yet (or only some files
    were copied). "last" is last.safetensors, or previous.safetensors if a save was killed between its two renames.
    Raises CheckpointError where nothing is there (with similar names), the folder has no checkpoint, or it isn't a
    regular file.
    """
    try:
        if not path.exists():
            reason = "a link to nothing" if path.is_symlink() else "no such file or folder"
            raise CheckpointError(f"{shown(path)}: {reason}: {near_names(path) or _TRAIN_WRITES}")
        file = _in_folder(path, which) if path.is_dir() else path
        if not file.is_file():
            raise CheckpointError(f"{shown(file)}: not a regular file: {_TRAIN_WRITES}")
    except OSError as error:
        raise CheckpointError(f"{shown(path)}: can't be read ({error.strerror}): {_CHECK}") from error
    return file


def _in_folder(folder: Path, which: Which) -> Path:
    for name in (BEST, LAST, PREVIOUS) if which == "best" else (LAST, PREVIOUS):
        if (folder / name).exists():
            return folder / name
    if (folder / BEST).exists():
        raise CheckpointError(f"{shown(folder)}: no {LAST} in this folder, so training can't go on: train anew")
    raise CheckpointError(f"{shown(folder)}: no checkpoint in this folder: {_TRAIN_WRITES}")


def near_names(path: Path) -> str | None:
    """'did you mean A or B?', with checkpoints and folders whose names are close to the missing ``path``, if any."""
    try:
        beside = sorted(
            entry.name for entry in path.parent.iterdir() if entry.suffix == ".safetensors" or entry.is_dir()
        )
    except OSError:
        return None
    near = difflib.get_close_matches(path.name, beside, n=3)
    return f"did you mean {' or '.join(shown(path.with_name(name)) for name in near)}?" if near else None


# Writing


def checkpoint_bytes(checkpoint: Checkpoint, path: Path) -> bytes:
    """What ``save_checkpoint`` writes, and what it raises; ``path``: the file in messages."""
    if _STATE in checkpoint.arrays:
        raise ValueError(f"the array name {_STATE!r} is taken by the training state")
    arrays = {_STATE: np.frombuffer(_json_text(checkpoint.state).encode(), np.uint8)}
    for name, array in checkpoint.arrays.items():
        stored = array.dtype.newbyteorder("<")
        if stored not in _DTYPES.values():
            raise ValueError(f"{name}: checkpoints hold no {array.dtype}")
        if (fault := _not_finite(array)) is not None:
            raise DivergedError(f"{shown(path)}: not written, {name} {fault}: lower the learning rate")
        # Not np.ascontiguousarray, which makes scalars one-dimensional. Of arrays that aren't contiguous, the library
        # writes wrong values.
        arrays[name] = np.asarray(array, dtype=stored, order="C")
    body = save_safetensors(arrays)
    header_end = 8 + int.from_bytes(body[:8], "little")
    metadata = {
        "classes": _json_text(checkpoint.classes),
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "settings": _json_text(checkpoint.settings),
        "sha256": _NO_HASH,
    }
    header = _json_text({"__metadata__": metadata, **json.loads(body[8:header_end])}).encode()
    header += b" " * (-len(header) % 8)  # the arrays stay aligned
    if len(header) > HEADER_CAP:
        raise OutputError(
            f"{shown(path)}: settings, class names and array names fill {len(header)} bytes, more than {HEADER_CAP}:"
            " use fewer or shorter names"
        )
    unsigned = len(header).to_bytes(8, "little") + header
    digest = _digest(unsigned, body[header_end:])
    return unsigned.replace(_signature(_NO_HASH), _signature(digest), 1) + body[header_end:]


def _json_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _signature(digest: str) -> bytes:
    # JSON texts escape quotes, so these bytes can only be the metadata's key.
    return f'"sha256":"{digest}"'.encode()


def _digest(head: bytes, data: bytes | memoryview) -> str:
    digest = hashlib.sha256(head)
    digest.update(data)
    return digest.hexdigest()


# Reading


def _read(stream: BinaryIO, size: int) -> tuple[dict[str, str], bytes]:
    """The metadata and all bytes of a file of ``size`` bytes, after checking its structure and hash."""
    head, _, metadata, expected = _read_structure(stream, size)
    data = stream.read(expected - len(head))
    if len(head) + len(data) != expected:
        raise _Refused(f"cut short: {len(head) + len(data)} bytes, {expected} expected")
    signature = _signature(metadata["sha256"])
    if head.count(signature) != 1 or metadata["sha256"] != _digest(head.replace(signature, _signature(_NO_HASH)), data):
        raise _Refused("checksum differs: the file is damaged")
    return metadata, head + data


@contextmanager
def _opened(file: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file and its size in bytes."""
    with file.open("rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _Refused("not a regular file", _TRAIN_WRITES)
        yield stream, status.st_size


def _read_structure(stream: BinaryIO, size: int) -> tuple[bytes, dict[str, Any], dict[str, str], int]:
    """Read and check everything before the arrays of a file of ``size`` bytes.

    Returns the head (length and header), the header without metadata, the metadata, and the file's size.
    """
    head = _read_head(stream, size)
    header = _parse_json(head[8:], "its header")
    metadata = _check_metadata(header.pop("__metadata__", None))
    expected = len(head) + _check_arrays(header)
    if size < expected:
        raise _Refused(f"cut short: {size} bytes, {expected} expected")
    if size > expected:
        raise _Refused(f"{size - expected} extra bytes at the end")
    return head, header, metadata, expected


def _read_head(stream: BinaryIO, size: int) -> bytes:
    """The header's length and the header, which is only read if the length is reasonable."""
    if size == 0:
        raise _Refused("empty file (0 bytes)")
    if size < 8:
        raise _Refused(f"cut short ({size} of at least 8 bytes)")
    head = stream.read(64)
    length = int.from_bytes(head[:8], "little")
    if size > 8 and head[8:9] != b"{":
        # Not checked earlier, because the length of a good file may look like a pickle.
        raise _Refused(f"not safetensors{_foreign_format(head)}", _TRAIN_WRITES)
    if length > HEADER_CAP:
        raise _Refused(f"a header of {length} bytes, more than 1 MiB: damaged or not a facecnn model", _TRAIN_WRITES)
    if length > size - 8:
        raise _Refused(f"cut short: {size} bytes, at least {8 + length} expected")
    head += stream.read(max(0, 8 + length - len(head)))
    stream.seek(8 + length)
    return head[: 8 + length]


def _foreign_format(head: bytes) -> str:
    """' (a zip archive …)' for common formats that aren't ours, recognised by their first bytes."""
    formats = [
        (rb"PK\x03\x04", "a zip archive: PyTorch, Keras or NumPy"),
        (rb"\x89HDF\r\n\x1a\n", "HDF5: Keras or TensorFlow"),
        (rb"\x93NUMPY", "a NumPy array"),
        (rb"\x80[\x02-\x05]|\(dp0|\(lp0|ccopy_reg|c__builtin__", "a pickle, which is never loaded: it can run code"),
        (rb".{4}TFL3", "TensorFlow Lite"),
        (rb"\x08[\x01-\x1f][\x12\x1a\x22\x2a\x3a]", "protocol buffers: ONNX or TensorFlow"),
        (rb"\x0a.{1,3}[\x0a\x12]", "protocol buffers: TensorFlow"),
        (rb"GGUF", "GGUF"),
        (rb"\x1f\x8b", "gzip: unpack it first"),
        (rb"\xff\xd8\xff|\x89PNG|GIF8|BM|RIFF.{4}WEBP", "a picture"),
    ]
    return next((f" ({name})" for pattern, name in formats if re.match(pattern, head, re.DOTALL)), "")


def _parse_json(text: bytes | str, what: str) -> dict[str, Any]:
    """Parse a JSON object, and refuse repeated keys and NaN, which ``json`` accepts."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise _Refused(f"{_quoted(key)} is listed twice in {what}")
            found[key] = value
        return found

    def constant(name: str) -> None:
        raise _Refused(f"{what} holds {name}, which isn't JSON")

    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        value = json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except (ValueError, RecursionError):
        raise _Refused(f"{what} is damaged (not JSON in UTF-8)") from None
    if not isinstance(value, dict):
        raise _Refused(f"{what} is damaged (not a JSON object)")
    return value


def _quoted(name: str) -> str:
    """Text from a file, short and without control characters, to be shown."""
    return name if re.fullmatch(r"[\w.:/ -]{1,80}", name, re.ASCII) else ascii(name[:80])


def _check_metadata(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise _Refused("not a facecnn model (written by another program)", _TRAIN_WRITES)
    version = metadata.get("format_version")
    if not isinstance(version, str) or re.fullmatch(r"[1-9][0-9]{0,8}", version) is None:
        raise _Refused("damaged: its format version is missing or no positive number")
    if int(version) > FORMAT_VERSION:
        raise _Refused(
            f"written by a newer facecnn (format {version}, this one reads up to {FORMAT_VERSION})", "update facecnn"
        )
    if set(metadata) != _METADATA_KEYS or not all(isinstance(text, str) for text in metadata.values()):
        raise _Refused("damaged: its metadata isn't complete")
    if re.fullmatch(r"[0-9a-f]{64}", metadata["sha256"]) is None:
        raise _Refused("damaged: its checksum isn't a SHA-256")
    return metadata


def _check_arrays(header: dict[str, Any]) -> int:
    """Check names, dtypes, shapes and offsets of all arrays. Returns their size in bytes."""
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        title = _quoted(name)
        if not name.isprintable() or not name:
            raise _Refused(f"damaged: an array is named {title}")
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise _Refused(f"damaged: {title} has no dtype, shape and offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            expected = "F32" if "." in name else f"one of {', '.join(_DTYPES)}"  # a layer's, as conv1.weight, or not
            raise _Refused(f"{title} is {_quoted(str(dtype))}, {expected} expected")
        if not _are_counts(shape) or len(shape) > 8:
            raise _Refused(f"damaged: {title} has a shape that isn't up to 8 whole numbers")
        if math.prod(max(1, side) for side in shape) * _DTYPES[dtype].itemsize >= 2**62:
            raise _Refused(f"damaged: {title} has a shape larger than any memory")
        if not _are_counts(offsets) or len(offsets) != 2:
            raise _Refused(f"damaged: {title} has offsets that aren't two whole numbers")
        begin, end = offsets
        if end - begin != math.prod(shape) * _DTYPES[dtype].itemsize:
            raise _Refused(f"damaged: {title} has offsets {begin} to {end}, which don't fit its shape {shape}")
        spans.append((begin, end, title))
    if _STATE not in header or header[_STATE]["dtype"] != "U8" or len(header[_STATE]["shape"]) != 1:
        raise _Refused("damaged: it has no training state")
    filled = 0
    for begin, end, title in sorted(spans):
        if begin != filled:
            raise _Refused(f"damaged: {title} begins at {begin}, {filled} expected: arrays overlap or leave a gap")
        filled = end
    return filled


def _are_counts(value: Any) -> bool:
    # Not isinstance, which takes true for a number.
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


def _decode(metadata: dict[str, str], file_bytes: bytes) -> Checkpoint:
    try:
        arrays: dict[str, np.ndarray] = load_safetensors(file_bytes)
    except SafetensorError as error:
        raise _Refused(f"damaged ({error})") from None
    state = _parse_json(arrays.pop(_STATE).tobytes(), "its training state")
    for name, array in arrays.items():
        if (fault := _not_finite(array)) is not None:
            raise _Refused(f"{_quoted(name)} {fault}")
    arrays = {_current_name(name): array for name, array in arrays.items()}
    return Checkpoint(_parse_json(metadata["settings"], "its settings text"), _parse_classes(metadata), arrays, state)


def _current_name(name: str) -> str:
    first, dot, rest = name.partition(".")
    return _RENAMED.get(first, first) + dot + rest


def _parse_classes(metadata: dict[str, str]) -> list[str]:
    classes = _parse_json(f'{{"classes":{metadata["classes"]}}}', "its class list")["classes"]
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) and name for name in classes):
        raise _Refused("damaged: its class list isn't a list of names")
    if len(set(classes)) != len(classes):
        raise _Refused("damaged: its class list repeats a name")
    return classes


def _not_finite(array: np.ndarray) -> str | None:
    """'holds 1 NaN' or 'holds 2 infinite values'; None where all are finite."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return None
    if nans := int(np.isnan(array).sum()):
        return f"holds {nans} NaN"
    return f"holds {int(np.isinf(array).sum())} infinite values"


def _remedy(file: Path) -> str:
    """What to do about a damaged file, depending on the files beside it."""
    if file.name == LAST and (file.parent / PREVIOUS).is_file():
        return f"delete it to go on from {PREVIOUS}, the state before"
    if file.name != LAST and (file.parent / LAST).is_file():
        return f"use {shown(file.parent / LAST)}, the last state of the same training, or copy the file again"
    return "copy it again or train anew"
