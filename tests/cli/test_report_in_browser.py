"""A real run's report, and an album's contact sheet, as a reader sees them: in Debian's chromium, on a desk and on a
phone, light, dark and printed.

``pytest -m browser`` needs chromium (Debian: apt-get install chromium) and the extra browser, and fails without them.
"""

import io
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
from PIL import Image

from .running import Facecnn
from .squares import find_squares, write_album

pytestmark = pytest.mark.browser

LONG = 'Maximiliane <b>"&"</b> von_und_zu_' + "W" * 60
PEOPLE = {LONG: 10, "李小龙": 10, "שרה_לוי": 10, "unknown": 12}
WIDTHS = {"desk": 1280, "phone": 420}


@pytest.fixture(scope="module")
def reports(
    write_people: Callable[..., Path], facecnn: Facecnn, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The reports of two runs: one that has ended, and one that stopped on the way; and an album's contact sheet."""
    folder = tmp_path_factory.mktemp("reports")
    photos = write_people(PEOPLE, folder=folder / "people")
    (photos / LONG / f"{'9' * 120} cut short.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more than this")
    options = ["-c", "smoke", "--epochs", "8", "--profile", "--out", folder / "runs"]
    assert facecnn("train", photos, *options, "--name", "ended").exit_code == 0
    stopped = Path(shutil.copytree(folder / "runs" / "ended", folder / "runs" / "stopped"))
    for name in ("best.safetensors", "figures.json"):
        (stopped / name).unlink()
    assert facecnn("report", stopped).exit_code == 0
    album = write_album(folder / "album", people=2, photos=8, strangers=6, groups=0.5)
    (album / "person1").rename(album / LONG.replace("/", "%"))
    with pytest.MonkeyPatch.context() as patch:
        find_squares(patch)
        assert facecnn("data", "check", album, "--faces", "--quick", "--out", folder / "sheet").exit_code == 0
    pages = {name: folder / "runs" / name / "report.html" for name in ("ended", "stopped")}
    return pages | {"sheet": folder / "sheet" / "index.html"}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail("the browser tests need the extra browser: pip install -e '.[browser]'")
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("the browser tests need chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        is_root = hasattr(os, "getuid") and os.getuid() == 0
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if is_root else [])
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page in the browser, and what it complained of."""

    page: Any
    complaints: list[str] = field(default_factory=list)

    def pixels(self, element: Any) -> np.ndarray:
        """(rows, columns, 3): what is seen of an element."""
        with Image.open(io.BytesIO(element.screenshot())) as picture:
            return np.asarray(picture.convert("RGB"), int)

    @property
    def paper(self) -> np.ndarray:
        """The page's ground: red, green, blue."""
        colour = self.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return np.array([int(part) for part in colour[4:-1].split(",")])


Open = Callable[..., Opened]


@pytest.fixture
def open_page(chromium: Any, reports: dict[str, Path]) -> Iterator[Open]:
    contexts = []

    def opened(report: str, width: int, scheme: str = "light") -> Opened:
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        result = Opened(context.new_page())
        result.page.on("console", lambda message: result.complaints.append(message.text))
        result.page.on("pageerror", lambda error: result.complaints.append(str(error)))
        result.page.on("requestfailed", lambda request: result.complaints.append(f"{request.url[:80]} failed"))
        result.page.goto(reports[report].as_uri())
        return result

    yield opened
    for context in contexts:
        context.close()


def violations(page: Any) -> str:
    """What axe-core objects to, with the places. It comes in through the DevTools protocol, past the page's policy."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    return found.generate_report() if found.violations_count else ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=list(WIDTHS))
@pytest.mark.parametrize("report", ["ended", "stopped", "sheet"])
def test_it_is_whole_and_accessible(report: str, width: int, scheme: str, open_page: Open) -> None:
    opened = open_page(report, width, scheme)
    page = opened.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert violations(page) == ""
    # axe can't judge letters on the shadows that say where a table scrolls: judge them without.
    page.add_style_tag(content=".scroll { background: none !important; }")
    assert violations(page) == ""
    images = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(images) > 5
    assert min(images) > 0
    text = "[...document.querySelectorAll('p, li, td, th, figcaption, a')]"
    assert min(page.evaluate(f"{text}.map(part => parseFloat(getComputedStyle(part).fontSize))")) >= 12
    assert opened.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_fit_the_page(scheme: str, open_page: Open) -> None:
    """A picture's ground is the page's own, on a dark one, too; a photo is never turned into its negative."""
    opened = open_page("ended", 1280, scheme)
    assert (opened.paper.mean() < 60) == (scheme == "dark")
    opened.page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    figures = opened.page.query_selector_all("figure img")
    assert len(figures) == 6  # curves, confusion, kernels, what excites them, what was watched, the film
    for figure in figures:
        seen = opened.pixels(figure)
        corners = seen[[6, -7], -7]  # at the right, where no text begins
        assert np.abs(corners - opened.paper).max() <= 3, figure.get_attribute("alt")
        assert np.abs(seen - opened.paper).max() > 90, "there is something to be seen"
    light = open_page("ended", 1280, "light")
    photos = [page.pixels(page.page.query_selector(".cards img")) for page in (opened, light)]
    middle = [photo[30:-30, 30:-30] for photo in photos]  # corners are round
    assert (middle[0] == middle[1]).all()


SCROLL_TO_THE_END = """part => new Promise(done => {
  part.scrollLeft = 10000;
  requestAnimationFrame(() => requestAnimationFrame(done));  // until it is drawn so
})"""


def test_a_phone_is_told_where_there_is_more(open_page: Open) -> None:
    opened = open_page("ended", 420)
    scrolling = [
        part
        for part in opened.page.query_selector_all(".scroll")
        if part.evaluate("part => part.scrollWidth > part.clientWidth && !part.closest('details:not([open])')")
    ]
    tables = [part for part in scrolling if part.query_selector("table")]
    pictures = [part for part in scrolling if part.query_selector("img")]
    assert tables
    assert pictures
    for part in tables:
        edge = opened.pixels(part)[:, -6]
        assert (np.abs(edge - opened.paper).min(axis=1) > 30).mean() > 0.8, "a shadow at the edge"
        part.evaluate(SCROLL_TO_THE_END)
        for column in (-2, -4, -6):
            end = opened.pixels(part)[:, column]
            assert (np.abs(end - opened.paper).max(axis=1) < 3).mean() > 0.5, "none where it ends"
    for part in pictures:
        assert part.evaluate("part => part.nextElementSibling.checkVisibility()")
    desk = open_page("ended", 1280)
    assert not any(hint.is_visible() for hint in desk.page.query_selector_all(".hint"))


@pytest.mark.parametrize("width", WIDTHS.values(), ids=list(WIDTHS))
def test_a_sheet_shows_crops_twice_as_large(width: int, open_page: Open) -> None:
    """Twice the 48 pixels a side that the network sees, and as sharp as that."""
    page = open_page("sheet", width).page
    crops = page.evaluate("[...document.querySelectorAll('img.crop')].map(i => [i.width, i.height, i.naturalWidth])")
    assert len(crops) == 2 * 8 + 6
    assert {(wide, tall) for wide, tall, _ in crops} == {(96, 96)}
    assert min(pixels for *_, pixels in crops) >= 96


def test_its_policy_keeps_scripts_out(open_page: Open) -> None:
    opened = open_page("ended", 1280)
    opened.page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
    }""")
    assert opened.page.evaluate("window.ran") is None
    assert any("Content Security Policy" in complaint for complaint in opened.complaints)


@pytest.mark.parametrize("report", ["ended", "sheet"])
def test_a_photo_opens(report: str, open_page: Open) -> None:
    page = open_page(report, 1280).page
    links = page.evaluate("[...document.querySelectorAll('.cards a')].map(link => link.href)")
    assert links
    assert all(Path(unquote(urlparse(link).path)).is_file() for link in links)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_prints_on_full_white_pages_with_the_settings_unfolded(scheme: str, open_page: Open) -> None:
    import pypdfium2

    printed = pypdfium2.PdfDocument(open_page("ended", 1280, scheme).page.pdf(format="A4", prefer_css_page_size=True))
    pages = [np.asarray(page.render(scale=0.5).to_numpy(), int)[..., :3] for page in printed]
    assert 3 < len(pages) < 20
    for number, pixels in enumerate(pages, 1):
        assert pixels[0].min() == 255, "white at the edge"
        assert np.median(pixels) == 255
        inked = np.flatnonzero((pixels < 200).any(axis=(1, 2)))
        if number < len(pages):
            assert inked[-1] > 0.55 * len(pixels), f"page {number} is half empty"
    text = "\n".join(page.get_textpage().get_text_bounded() for page in printed)
    assert "least_steps" in text, "the settings"
    assert "goes on to the right" not in text
