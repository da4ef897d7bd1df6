"""What the pages that are written for people share: one style, text as HTML, and pictures within the file."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable
from pathlib import Path
from string import Template
from urllib.parse import quote

import numpy as np

from facecnn.errors import shown

THUMBNAIL = 192
"""Pixels of a photo's longer side on a page; larger ones are made smaller."""

PRIVATE = (
    '<footer>\n<p class="soft">This file holds names and photos of people: share it only with those who may see them.'
    "</p>\n</footer>"
)
"""How such a page ends."""


def whole_page(title: str, parts: Iterable[str]) -> str:
    """A page of these parts, one file without scripts that needs no network; title and parts are HTML."""
    template = Template(Path(__file__).with_name("page_template.html").read_text(encoding="utf-8"))
    return template.substitute(title=title, body="\n".join(parts))


def escaped(value: object) -> str:
    """Text that may hold anything, as HTML."""
    return html.escape(shown(str(value)))


def escaped_name(value: str) -> str:
    """A name or path, as HTML; its writing direction stays its own, and a long one breaks where its parts end."""
    return f"<bdi>{escaped(value).replace('_', '_<wbr>').replace('/', '/<wbr>')}</bdi>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph, of a class of the style sheet if ``kind`` says one."""
    return f'<p class="{kind}">{escaped(text)}</p>' if kind else f"<p>{escaped(text)}</p>"


def warning(text: str) -> str:
    """A paragraph that stands out."""
    return f'<p class="warning"><strong>Note:</strong> {escaped(text)}</p>'


def embedded(data: bytes, kind: str, alt: str, style: str = "") -> str:
    """A picture, the bytes of a JPEG, PNG or GIF file, within the page."""
    style = f' class="{style}"' if style else ""
    return f'<img{style} alt="{escaped(alt)}" src="data:image/{kind};base64,{base64.b64encode(data).decode("ascii")}">'


def thumbnail(picture: np.ndarray) -> bytes:
    """A JPEG of (rows, columns, 1 or 3) uint8."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture[:, :, 0] if picture.shape[2] == 1 else picture))
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def link_to(file: Path, folder: Path) -> str | None:
    """The way from a folder to a file, as a link; None where it would tell the whole path of the file.

    Where the photos lie is nobody's business who gets the report: a link goes only through folders below one that holds
    both, the photos and the run.
    """
    file, folder = (Path(os.path.normpath(path.absolute())) for path in (file, folder))
    try:
        shared = Path(os.path.commonpath([file, folder]))
    except ValueError:  # on another drive
        return None
    if shared == Path(shared.anchor):
        return None
    return quote(os.fsencode(Path(os.path.relpath(file, folder)).as_posix()))
