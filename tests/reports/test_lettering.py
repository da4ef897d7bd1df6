"""Names in pictures: in their own letters where a font has them, else in Latin ones, and never two alike."""

import pytest

from facecnn.reports import lettering
from facecnn.reports.lettering import FONT, Lettering


@pytest.fixture(autouse=True)
def _only_matplotlibs_own_font(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with no other font, which most servers are."""
    from matplotlib import font_manager

    own = [entry for entry in font_manager.fontManager.ttflist if entry.name == FONT]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    lettering._fallback_fonts.cache_clear()


@pytest.mark.parametrize("name", ["Zoë", "Дмитрий", "Ελένη", "שרה לוי", "محمد"])
def test_what_the_font_has_stays(name: str) -> None:
    assert Lettering([name])(name) == name
    assert not Lettering([name]).changes(name)


@pytest.mark.parametrize(
    ("name", "latin"), [("李小龙", "LiXiaoLong"), ("김철수", "GimCheolSu"), ("สมชาย", "smchay"), ("李 Ann", "Li Ann")]
)
def test_other_letters_become_latin_ones(name: str, latin: str) -> None:
    assert Lettering([name])(name) == latin
    assert Lettering([name]).changes(name)


def test_who_can_not_be_spelled_is_numbered() -> None:
    nobody = "\U000202ce\U00021564"  # Chinese letters so rare that nobody says how they sound
    spell = Lettering(["Ann", nobody], nobody + "!")
    assert spell(nobody) == "person 2"
    assert spell(nobody + "!") == "!"


def test_no_two_labels_are_alike() -> None:
    names = ["东京", "東京", "Ann", "x" * 200 + "1", "x" * 200 + "1"]
    labels = Lettering(names).labels(names)
    assert labels[:3] == ["DongJing (1)", "DongJing (2)", "Ann"]
    assert len(set(labels)) == 5
