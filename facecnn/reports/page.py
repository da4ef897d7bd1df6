"""Render Jinja2 templates: self-contained HTML pages, and Markdown.

Every value in a template is escaped, so a name is never taken for markup.
"""

from __future__ import annotations

import base64
import html
import io
import os
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from facecnn.errors import shown
from facecnn.reports import findings

if TYPE_CHECKING:
    from jinja2 import Environment

THUMBNAIL = 192
"""Pixels of a photo's longer side on a page, at most."""


def rendered(template: str, **values: Any) -> str:
    """Render one of the files in ``templates``."""
    return _environment(is_html=template.endswith(".html")).get_template(template).render(values)


@cache
def _environment(*, is_html: bool) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    escape = html_text if is_html else markdown_text
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=StrictUndefined,
        autoescape=True,
        # Escapes before Jinja2 does, which only knows HTML and leaves control characters.
        finalize=lambda value: value if isinstance(value, Markup) else Markup(escape(value)),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["findings"] = findings
    environment.filters |= {
        "counted": findings.counted,
        "percent": lambda share: "-" if share is None else findings.percent(share),
        "digits": lambda value, digits=3: "-" if value is None else f"{value:.{digits}f}",
        "thousands": "{:,}".format,
        "name": lambda name: Markup(html_name(name)),
        "told": lambda text, names: Markup(_told(escape, is_html, text, names)),
        "data_url": lambda data, kind: Markup(f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"),
    }
    return environment


def html_text(text: object) -> str:
    """Escape any text for HTML."""
    return html.escape(shown(str(text)))


def html_name(name: str) -> str:
    """A name or path as HTML, with its own writing direction, and with breaks allowed between its parts."""
    return f"<bdi>{html_text(name).replace('_', '_<wbr>').replace('/', '/<wbr>')}</bdi>"


def markdown_text(text: object) -> str:
    """Escape any text for Markdown, in one line.

    Punctuation is escaped with a backslash, except that of HTML, which becomes entities.
    """
    visible = unicodedata.normalize("NFC", shown(str(text)))
    entities = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
    return "".join(
        entities.get(character) or (f"\\{character}" if character in "\\`*_[]|~#$!" else character)
        for character in visible
    )


def _told(escape: Callable[[object], str], is_html: bool, text: str, names: Iterable[str]) -> str:
    """Escape sentences with names in them, and isolate right-to-left names."""
    before, after = ("<bdi>", "</bdi>") if is_html else ("\N{FIRST STRONG ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}")
    return findings.isolated(escape(text), map(escape, names), before, after)


def thumbnail(picture: np.ndarray) -> bytes:
    """A JPEG of (rows, columns, 1 or 3) uint8."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture[:, :, 0] if picture.shape[2] == 1 else picture))
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def link_to(file: Path, folder: Path) -> str | None:
    """A relative link from a folder to a file; None if it would reveal the whole path of the file.

    Readers of a report needn't know where the photos are: a link only leads through folders below a common one.
    """
    file, folder = (Path(os.path.normpath(path.absolute())) for path in (file, folder))
    try:
        shared = Path(os.path.commonpath([file, folder]))
    except ValueError:  # on another drive
        return None
    if shared == Path(shared.anchor):
        return None
    return quote(os.fsencode(Path(os.path.relpath(file, folder)).as_posix()))
