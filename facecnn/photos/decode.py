"""Decodes a picture file to upright pixels, or says why it can't. Any file may be damaged, huge or something else."""

import contextlib
import errno
import hashlib
import importlib.util
import io
import logging
import os
import re
import stat
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from facecnn.errors import PhotoError, shown
from facecnn.process_wide import WhileInUse

DECODER_VERSION = 2
"""Part of the cache's key: raise it whenever ``decode`` gives another result for some file than before."""

LARGEST_PICTURE = 50_000_000
"""Default for the maximum number of pixels. The header is checked: a file of a few bytes can declare billions."""

JPEG_FACTOR = 5
"""A JPEG may have this many times more pixels, since its decoder can shrink the picture while decoding."""

_BYTES_A_PIXEL = 8
"""Maximum size of a file: three channels of 16 bits, and some overhead."""

SMALLEST_SIDE = 8
"""Minimum pixels of the shorter side."""

BACKGROUND = 128
"""Grey behind transparent pixels: as far from a dark face as from a light one."""

# Pillow's names. A multi-picture JPEG reports MPO though it was opened as JPEG. No other format is ever tried, so that
# no file, whatever its name or content, starts Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

# Formats whose orientation Pillow leaves to us; it turns a TIFF while loading it.
_TURNED_BY_EXIF = frozenset({"JPEG", "MPO", "PNG", "WEBP"})
_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = frozenset(_TURNS[orientation] for orientation in (5, 6, 7, 8))

_DAMAGED = "copy it again or delete it"
_CONVERT = "convert it to JPEG or PNG"

# What a file that isn't a supported picture may be, by its first bytes.
_OTHER_FILES = (
    (rb"version https://git-lfs", "a Git LFS pointer, not the picture: run `git lfs pull`"),
    (rb"\s*(<!doctype html|<html)", "not a picture but a web page: download the picture itself"),
    (rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!doctype svg[^>]*>\s*)?<svg", f"SVG is not supported: {_CONVERT}"),
    (
        rb"(\xef\xbb\xbf)?\s*<(\?xpacket|\?xml|x:xmpmeta)",
        "not a picture but a sidecar or other XML: name the photo itself",
    ),
    (rb"%PDF-", f"not a picture but a PDF: {_CONVERT}"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", f"PostScript is not supported: {_CONVERT}"),
    (rb"PK[\x01-\x08]|Rar!|7z\xbc\xaf|\x1f\x8b", "not a picture but an archive: unpack it first"),
    (rb"....ftyp(avif|avis)", f"AVIF is not supported: {_CONVERT}"),
    (rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1|heif)", "HEIC"),  # see _not_a_picture
    (rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ", "not a picture but a video: save a picture of it"),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", f"JPEG 2000 is not supported: {_CONVERT}"),
    (rb"\x00\x00\x00\x0cJXL |\xff\x0a", f"JPEG XL is not supported: {_CONVERT}"),
    (rb"8BPS", f"Photoshop's format is not supported: {_CONVERT}"),
    (rb"\x00\x00\x01\x00[^\x00]\x00", f"an icon is not supported: {_CONVERT}"),
    (rb"\x00\x05\x16\x07|\x00\x00\x00\x01Bud1|\xd0\xcf\x11\xe0", "not a picture but a system file: leave it out"),
    (
        rb"\x89PNG\r\r\n|\x89PNG\n\x1a|\xc2\x89PNG|\xc3\xbf\xc3\x98|[\r\n]+\xff\xd8\xff|\xef\xbf\xbd",
        f"not a picture any more, damaged by a copy in text mode: {_DAMAGED}",
    ),
    (rb"(\xff\xd8|\x89PNG|GIF8|II\*\x00|MM\x00\*|RIFF....WEBP)", f"the start of a picture, but damaged: {_DAMAGED}"),
    (rb"\x00{64}", f"nothing but zeros, not a picture: {_DAMAGED}"),
    (rb"[\t\n\r\x20-\x7e]+\Z", "not a picture but text: leave it out"),
)

# Without a handler, the errors that Pillow logs would go to stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())


NO_CONTENT = "no content: every pixel is the same"
"""Note on a readable photo that shows nothing."""


class UnusablePhoto(PhotoError):
    """A photo that can't be used. Its message is "FILE: reason: what to do"."""

    def __init__(self, path: str | os.PathLike[str], reason: str, *, in_content: bool) -> None:
        super().__init__(f"{shown(path)}: {reason}")
        self.reason = reason
        """The message without the file's name."""
        self.in_content = in_content
        """Whether the bytes are at fault, so that any file with them is refused, or the file couldn't be read now."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A photo in memory. Nothing of it is kept in the caches on disk."""

    image: Image.Image
    """Of any mode that ``decode`` takes. It isn't changed."""
    name: str
    """What messages call it."""


def content_hash(image: Image.Image) -> str:
    """SHA-256, hexadecimal, of a decoded picture."""
    digest = hashlib.sha256(f"{image.mode} {image.width}x{image.height}\n".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Decoded:
    """A decoded picture."""

    image: Image.Image
    """Mode L or RGB, upright, without transparency; a huge JPEG at 1/2, 1/4 or 1/8 of its sides."""
    size: tuple[int, int]
    """Width and height in pixels of the upright picture at full size."""
    reduction: int
    """1, 2, 4 or 8: side of a pixel of ``image`` in pixels of the full picture."""
    notes: tuple[str, ...]
    """Remarks for the user: frames that aren't used, a picture without content."""


def read(path: str | os.PathLike[str], largest: int | None = LARGEST_PICTURE) -> bytes:
    """Read a picture file.

    ``largest``: maximum number of pixels, which bounds the number of bytes; None: no bound. Raises UnusablePhoto where
    the file is missing, empty, too large, unreadable, or not a regular file.
    """
    path = Path(path)
    most_bytes = None if largest is None else largest * _BYTES_A_PIXEL
    try:
        status = path.stat()
        # Checked before opening, because opening a pipe would wait for a writer.
        if not stat.S_ISREG(status.st_mode):
            raise UnusablePhoto(path, f"not a regular file ({_kind(status.st_mode)})", in_content=False)
        if most_bytes is not None and status.st_size > most_bytes:
            raise _file_too_large(path, status.st_size, most_bytes)
        with path.open("rb") as file:
            data = file.read(-1 if most_bytes is None else most_bytes + 1)  # the file may have grown
    except OSError as error:
        raise UnusablePhoto(path, _access_reason(path, error), in_content=False) from error
    except ValueError as error:  # a NUL in the name
        raise UnusablePhoto(path, f"no such file ({error}): check the name", in_content=False) from error
    except MemoryError as error:
        raise UnusablePhoto(path, _OUT_OF_MEMORY, in_content=False) from error
    if not data:
        raise UnusablePhoto(path, f"empty file (0 bytes): {_DAMAGED}", in_content=False)
    if most_bytes is not None and len(data) > most_bytes:
        raise _file_too_large(path, len(data), most_bytes)
    return data


def decode(
    data: bytes,
    path: str | os.PathLike[str],
    largest: int = LARGEST_PICTURE,
    enough: int | None = None,
    enough_across: int | None = None,
) -> Decoded:
    """Decode a picture file, whatever its name.

    JPEG (also with several pictures), PNG, BMP, GIF, WebP, TIFF, PPM and PGM, and HEIC if the extra ``heic`` is
    installed. The first frame or page is used. EXIF orientation is applied, transparency shows ``BACKGROUND``, 16-bit
    grey is scaled to 8 bits, CMYK and LAB are converted. The decoder doesn't notice damage inside a JPEG that leaves it
    complete.

    Args:
        path: its name in messages.
        largest: maximum number of pixels. A JPEG may have ``JPEG_FACTOR`` times as many; it is then decoded at 1/2, 1/4
            or 1/8 of its sides, the first that fits.
        enough: a JPEG is reduced further, which is faster, while its longer side keeps this many pixels.
        enough_across: the same for its shorter side.

    Raises:
        UnusablePhoto: not a picture, damaged, too many pixels, a side shorter than ``SMALLEST_SIDE``, or an unsupported
            format or mode.
    """
    refuse = partial(UnusablePhoto, path, in_content=True)
    with _pillow_set_up(), _refusing(path, data):
        # verify() finds wrong checksums that load() ignores, but makes the image unusable: hence two handles.
        opened = Image.open(io.BytesIO(data), formats=_formats())
        _check_size(opened, largest, refuse)
        opened.verify()
        opened = Image.open(io.BytesIO(data), formats=_formats())
        notes = _frames(data, opened)
        full = opened.size
        reduction = _reduce(opened, largest, enough, enough_across)
        image, turn = _loaded(opened, refuse)
        size = full[::-1] if turn in _ON_ITS_SIDE else full
    notes += _content_notes(image)
    if full[0] * full[1] > largest:
        notes = (f"{full[0] * full[1] / 1e6:.0f} megapixels, read at 1/{reduction} of its sides", *notes)
    return Decoded(image, size, reduction, notes)


def upright(image: Image.Image, name: str, largest: int = LARGEST_PICTURE) -> Decoded:
    """A picture in memory as ``decode`` gives that of a file, at full size.

    Args:
        image: of any mode; with the orientation of its EXIF data, if it has any. It isn't changed.
        name: its name in messages.
        largest: maximum number of pixels, as for ``decode``.

    Raises:
        UnusablePhoto: damaged, too many pixels, a side shorter than ``SMALLEST_SIDE``, or an unsupported mode.
    """
    refuse = partial(UnusablePhoto, name, in_content=True)
    with _pillow_set_up(), _refusing(name):
        _check_size(image, largest, refuse)
        pixels, _ = _loaded(image, refuse)
    return Decoded(pixels, pixels.size, 1, _content_notes(pixels))


@cache
def heic_supported() -> bool:
    """Whether HEIC can be read, which needs the extra ``heic``."""
    if importlib.util.find_spec("pillow_heif") is None:
        return False
    import pillow_heif

    pillow_heif.register_heif_opener()
    return True


_OUT_OF_MEMORY = "not enough memory to decode it: make it smaller or close other programs"
_Refuse: TypeAlias = Callable[[str], UnusablePhoto]
"""Makes the exception for a file that is refused because of its content, from the reason."""


@contextlib.contextmanager
def _refusing(path: str | os.PathLike[str], data: bytes | None = None) -> Iterator[None]:
    """Turn what Pillow raises into UnusablePhoto; ``data``: the file's bytes."""
    try:
        yield
    except UnusablePhoto:
        raise
    except MemoryError as error:
        raise UnusablePhoto(path, _OUT_OF_MEMORY, in_content=False) from error
    except Exception as error:
        # Besides OSError, damaged files make Pillow raise SyntaxError, ValueError, NotImplementedError, IndexError,
        # struct.error and more, which change with each release.
        known = data if isinstance(error, UnidentifiedImageError) else None
        reason = _damage(error) if known is None else _not_a_picture(known)
        raise UnusablePhoto(path, reason, in_content=True) from error


def _loaded(opened: Image.Image, refuse: _Refuse) -> tuple[Image.Image, Image.Transpose | None]:
    """The pixels of an opened picture, upright and in 8 bits, and how it was turned for that."""
    with _silent_libtiff(opened):
        opened.load()
    turn = _turn(opened)
    return _eight_bits(opened if turn is None else opened.transpose(turn), refuse), turn


def _content_notes(image: Image.Image) -> tuple[str, ...]:
    """A note if a picture shows nothing."""
    low_high = image.getextrema()
    if all(low == high for low, high in (low_high if image.mode == "RGB" else (low_high,))):  # type: ignore[misc]
        return (NO_CONTENT,)
    return ()


def _formats() -> tuple[str, ...]:
    return (*_FORMATS, "HEIF") if heic_supported() else _FORMATS


def _file_too_large(path: Path, size: int, most_bytes: int) -> UnusablePhoto:
    reason = f"{size / 1e9:.1f} GB, larger than the {most_bytes / 1e9:.1f} GB that are read: make it smaller"
    return UnusablePhoto(path, reason, in_content=False)


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for matches, name in kinds if matches(mode)), "something special")


def _access_reason(path: Path, error: OSError) -> str:
    text = error.strerror or str(error)
    if isinstance(error, PermissionError):
        return "no permission to read it: chmod u+r, or run as its owner"
    if error.errno == errno.ELOOP:
        return "a link that leads back to itself: delete it"
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return f"a link to {shown(path.readlink())}, which does not exist: delete it or bring that back"
        return "no such file: check the name"
    return f"cannot be read ({text}): check its name and the disk"


def _check_size(image: Image.Image, largest: int, refuse: _Refuse) -> None:
    width, height = image.size
    is_jpeg = image.format in ("JPEG", "MPO")
    if width * height > largest * (JPEG_FACTOR if is_jpeg else 1):
        limit = f"{largest / 1e6:g} million"
        limit += f" ({JPEG_FACTOR * largest / 1e6:g} million for a JPEG)" if is_jpeg else ""
        raise refuse(f"{width}x{height} pixels, more than {limit}: make it smaller, or raise photos.largest_picture")
    if min(width, height) < SMALLEST_SIDE:
        raise refuse(f"{width}x{height} pixels, too small for a face (at least {SMALLEST_SIDE})")


def _not_a_picture(data: bytes) -> str:
    start = data[:1024]
    for pattern, reason in _OTHER_FILES:
        if re.match(pattern, start, re.IGNORECASE | re.DOTALL):
            if reason != "HEIC":
                return reason
            if heic_supported():
                return f"the start of a HEIC picture, but damaged: {_DAMAGED}"
            return f"HEIC is not supported here: pip install 'facecnn[heic]' or {_CONVERT}"
    return f"not a picture that can be read (JPEG, PNG, BMP, GIF, WebP, TIFF, PPM): {_CONVERT}, or leave it out"


def _damage(error: Exception) -> str:
    text = str(error)
    if re.search(r"truncat|unexpected end|not enough image data", text, re.IGNORECASE):
        return f"the picture is cut short (truncated): {_DAMAGED}"
    return f"the picture is damaged ({shown(text or type(error).__name__)[:80]}): {_DAMAGED}"


def _frames(data: bytes, image: Image.Image) -> tuple[str, ...]:
    """A note if there are more frames than the first, found without reading them.

    Only some formats state the number of frames. Counting them otherwise means reading the whole file, whose later
    frames may be broken.
    """
    several = ("several frames, the first used",)
    try:
        if image.format in ("PNG", "WEBP", "MPO"):
            count = getattr(image, "n_frames", 1)
            return (f"{count} frames, the first used",) if count > 1 else ()
        if image.format in ("GIF", "TIFF"):
            # A GIF seeks to find its second frame, hence another handle.
            with Image.open(io.BytesIO(data), formats=(image.format,)) as other:
                return several if getattr(other, "is_animated", False) else ()
    except Exception:  # broken after the first frame, which is all that we need
        return several
    return ()


def _reduce(image: ImageFile.ImageFile, largest: int, enough: int | None, enough_across: int | None) -> int:
    """Let the decoder shrink a JPEG that has too many pixels, or more than enough, by 1, 2, 4 or 8, which is
    returned."""
    width, height = image.size
    reduction = next(number for number in (1, 2, 4, 8) if width * height <= largest * number**2)
    if image.format in ("JPEG", "MPO"):
        for side, least in ((max(width, height), enough), (min(width, height), enough_across)):
            if least is not None:
                reduction = max([reduction, *(number for number in (2, 4, 8) if side >= least * number)])
    if reduction > 1:
        image.draft(None, (width // reduction, height // reduction))
    return reduction


def _turn(image: Image.Image) -> Image.Transpose | None:
    """The transformation that puts a picture upright."""
    if image.format not in _TURNED_BY_EXIF:
        return None
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF, which makes Pillow raise many types of errors; the picture itself is fine
        return None


def _eight_bits(image: Image.Image, refuse: _Refuse) -> Image.Image:
    """Convert any mode to L or RGB without transparency."""
    mode = image.mode
    if mode.startswith("I;16"):
        return _sixteen_to_eight(image)
    if mode in ("I", "F"):
        raise refuse("32-bit pixels are not supported: save it with 8 bits")
    if mode == "La":  # premultiplied alpha, which Pillow can only convert to LA
        image = image.convert("LA")
    if image.has_transparency_data:
        grey = mode in ("1", "L", "LA", "La")
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, (BACKGROUND, BACKGROUND, BACKGROUND, 255))
        image = Image.alpha_composite(background, image).convert("RGB")
        return image.convert("L") if grey else image
    if mode in ("L", "RGB"):
        return image
    try:
        return image.convert("L" if mode == "1" else "RGB")
    except ValueError as error:
        raise refuse(f"colour mode {mode} is not supported: {_CONVERT}") from error


def _sixteen_to_eight(image: Image.Image) -> Image.Image:
    """65535 becomes 255. Pillow's own conversion would clip everything above 255 to white."""
    values: npt.NDArray[np.uint16] = np.asarray(image).astype(np.uint16)
    scaled = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled[values == transparent] = BACKGROUND
    return Image.fromarray(scaled)


def _set_pillow_up(restore: contextlib.ExitStack) -> None:
    """Set Pillow's process-wide switches; decoding runs in several threads."""
    restore.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES)
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    # ``_check_size`` does this, with a message of its own.
    restore.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    Image.MAX_IMAGE_PIXELS = None
    # Whatever the program's filters are, even "error": a warning about a tag says nothing about the picture.
    restore.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")


_pillow_set_up = WhileInUse(_set_pillow_up)
_libtiff_lock = threading.Lock()


@contextlib.contextmanager
def _silent_libtiff(image: Image.Image) -> Iterator[None]:
    """Keep the C library's complaints about a damaged TIFF, which don't name the file, off stderr."""
    if image.format != "TIFF":
        yield
        return
    with _libtiff_lock, contextlib.ExitStack() as restore:
        try:
            sys.stderr.flush()
            saved = os.dup(2)
        except (OSError, ValueError, AttributeError):  # there is no stderr
            yield
            return
        restore.callback(os.close, saved)
        restore.callback(os.dup2, saved, 2)
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
