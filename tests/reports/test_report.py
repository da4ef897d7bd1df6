"""report.html and MODEL_CARD.md: right for any run and any names, readable, and sufficient to themselves."""

import re
import unicodedata
from dataclasses import fields, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecnn.errors import OutputError, shown
from facecnn.reports import findings
from facecnn.reports.facts import (
    Answer,
    Background,
    CalibrationFacts,
    HeldOutFacts,
    NetworkFacts,
    PhotoCount,
    PhotoFacts,
    RunFacts,
    TrainingFacts,
)
from facecnn.reports.report import ShownPhoto, choose_answers, model_card, report_html, write_model_card, write_report
from facecnn.runs.folder import RunFolder

ANN, BOB = "Ann", "Bob"
HOSTILE = "<script>alert(\"1\")</script> & 'x' | `a` [b](http://c.example) <img src=http://d.example>"
PNG = b"\x89PNG\r\n\x1a\nnot really"
FILES = dict.fromkeys(("curves.png", "confusion.png", "kernels.png", "patches.png", "watching.png"), PNG) | {
    "kernels.gif": b"GIF89a"
}


def judged(ann: str = ANN, bob: str = BOB) -> dict[str, Any]:
    """Of 50 photos of known people 47 named right, 2 wrong, 1 refused; 16 of 20 strangers refused."""
    return {
        "accuracy": 0.94,
        "interval": [0.838, 0.979],
        "closed_set_accuracy": 0.96,
        "closed_set_interval": [0.865, 0.989],
        "balanced_accuracy": 0.933,
        "log_loss": 0.123,
        "expected_calibration_error": 0.04,
        "classes": [ann, bob],
        "confusion": [[29, 1, 0], [1, 18, 1]],
        "per_class": [
            {"name": ann, "precision": 29 / 30, "recall": 29 / 30, "f1": 29 / 30, "support": 30}
            | {"named_right": 29, "named_wrong": 1, "refused": 0},
            {"name": bob, "precision": 18 / 19, "recall": 18 / 20, "f1": 36 / 39, "support": 20}
            | {"named_right": 18, "named_wrong": 1, "refused": 1},
        ],
        "known": {"photos": 50, "named_right": 47, "named_wrong": 2, "refused": 1},
        "unknown": {"photos": 20, "auroc": 0.9, "named": 4, "refused": 16, "named_as": [4, 0], "threshold": 0.4},
    }


def answers(ann: str = ANN, bob: str = BOB) -> list[Answer]:
    def answer(number: int, truth: str, label: str, confidence: float, score: float) -> Answer:
        return Answer(shown(f"{truth}/{number:02}.jpg"), f"{number:064x}", truth, label, confidence, score)

    return [
        *(answer(number, ann, ann, 0.99 - number / 100, 0.05) for number in range(29)),
        answer(29, ann, bob, 0.8, 0.3),
        *(answer(30 + number, bob, bob, 0.95, 0.1) for number in range(18)),
        answer(48, bob, ann, 0.55, 0.35),
        answer(49, bob, "unknown", 0.7, 0.7),
        *(answer(50 + number, "unknown", "unknown" if number < 16 else ann, 0.9, 0.9) for number in range(20)),
    ]


def facts(ann: str = ANN, bob: str = BOB, **changes: Any) -> RunFacts:
    """Facts of a run; ``changes`` are of its own fields, or of those of its parts."""
    layer = {"name": "conv1", "input": [24, 24, 1], "output": [12, 12, 4], "parameters": 40, "multiply_adds": 20736}
    known = RunFacts(
        name="20261125-default",
        version="0.1.0",
        photos=PhotoFacts(
            counts=[PhotoCount(ann, 120, 30), PhotoCount(bob, 80, 20), PhotoCount("unknown", 80, 20)],
            own_validation=True,
            skipped=[("Ann/broken.jpg", "cut short")],
        ),
        network=NetworkFacts(
            settings="version: 1\nphotos:\n  folder: null\n",
            preparation="24×24 grey pixels",
            layers=[layer, {**layer, "name": "dense1", "input": [12, 12, 4], "output": [3], "parameters": 1731}],
            optimizer="adamw",
        ),
        training=TrainingFacts(
            finished=True,
            ended="2026-11-25",
            epochs=60,
            best_epoch=55,
            seconds=12.78,
            seconds_an_epoch=0.213,
            photos_per_second=1234.5,
            result={
                "device": "cpu",
                "device_description": "AMD EPYC, 2 threads",
                "device_reason": "the best device here",
                "train": {"loss": 0.01, "accuracy": 1.0},
                "validation": {"loss": 0.1, "accuracy": 0.94},
                "milliseconds": {"batch": 0.1, "conv1 forward": 1.25, "conv1 backward_weight": 2.5, "update": 0.3},
            },
        ),
        held_out=HeldOutFacts(judged=judged(ann, bob), answers=answers(ann, bob), logged_accuracy=0.94),
        calibration=CalibrationFacts(temperature=0.8, threshold=0.4, photos=50),
        background=Background(0.96, 0.7, 0.72, 0.6, 50),
        missing=[],
    )
    for part in ("photos", "network", "training", "held_out", "calibration"):
        value = getattr(known, part)
        own = {field.name: changes.pop(field.name) for field in fields(value) if field.name in changes}
        known = replace(known, **{part: replace(value, **own)})
    return replace(known, **changes)


NOTHING = {"judged": None, "answers": [], "result": {}, "logged_accuracy": None, "background": None, "skipped": []}
"""What is known of a run whose photos are gone and whose end wasn't noted."""
FEW = {
    "accuracy": 1.0,
    "interval": [0.51, 1.0],
    "closed_set_accuracy": 1.0,
    "closed_set_interval": [0.51, 1.0],
    "known": {"photos": 4, "named_right": 4, "named_wrong": 0, "refused": 0},
    "per_class": [
        {"name": name, "precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 2}
        | {"named_right": 2, "named_wrong": 0, "refused": 0}
        for name in (ANN, BOB)
    ],
    "confusion": [[2, 0, 0], [0, 2, 0]],
    "unknown": None,
}
CASES = {
    "all": facts(),
    "nothing": facts(**NOTHING),
    "unfinished": facts(finished=False, ended=None, calibration=CalibrationFacts(0.8), missing=["Photos are gone."]),
    "before the first epoch": facts(**NOTHING, finished=False, epochs=0, best_epoch=0, seconds=None),
    "no strangers": facts(
        counts=[PhotoCount(ANN, 8, 2), PhotoCount(BOB, 8, 2)],
        judged={**judged(), **FEW},
        threshold=None,
        background=None,
    ),
    "refuses everybody": facts(
        judged={
            **judged(),
            "accuracy": 0.0,
            "interval": [0.0, 0.07],
            "balanced_accuracy": 0.0,
            "expected_calibration_error": None,  # nobody is named with any confidence
            "confusion": [[0, 0, 30], [0, 0, 20]],
            "per_class": [
                {"name": name, "precision": None, "recall": 0.0, "f1": 0.0, "support": support}
                | {"named_right": 0, "named_wrong": 0, "refused": support}
                for name, support in ((ANN, 30), (BOB, 20))
            ],
            "known": {"photos": 50, "named_right": 0, "named_wrong": 0, "refused": 50},
        }
    ),
    "nothing held out": facts(**NOTHING, counts=[PhotoCount(ANN, 10, 0), PhotoCount(BOB, 10, 0)]),
    "hostile": facts(HOSTILE, "b_b/‮c\x1b", name=HOSTILE, skipped=[(HOSTILE, HOSTILE)]),
}

_VOID = {"meta", "link", "img", "br", "wbr", "rect", "line"}


class Page(HTMLParser):
    """A page whose elements must be nested as they should be."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> repeats an attribute"
        self.elements.append((tag, dict(attrs)))
        if tag == "p":
            assert "p" not in self._open, "a paragraph within one"
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"
        if tag in ("td", "th"):
            self.text += " "  # as a reader sees a gap between cells

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "title"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_page_is_whole_and_accessible(case: str) -> None:
    source = report_html(CASES[case], FILES, {f"{29:064x}": b"jpeg"})
    page = Page(source)
    assert source.startswith("<!DOCTYPE html>")
    assert page.all("html") == [{"lang": "en"}]
    assert all((image["alt"] or "").strip() for image in page.all("img"))
    assert all(drawing["aria-label"] and drawing["role"] == "img" for drawing in page.all("svg"))
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    tags = [tag for tag, _ in page.elements]
    assert tags.count("table") == tags.count("caption") == tags.count("thead")
    assert all(cell["scope"] in ("row", "col") for cell in page.all("th"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = [link["href"] or "" for link in page.all("a")]
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert {section["aria-labelledby"] for section in page.all("section")} <= set(ids)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_page_needs_nothing_else(case: str) -> None:
    source = report_html(CASES[case], FILES, {f"{29:064x}": b"jpeg"})
    page = Page(source)
    for tag, attributes in page.elements:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#")), attributes
    assert "url(" not in source
    assert "@import" not in source
    policies = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_names_are_told_as_they_are_and_never_as_markup() -> None:
    source = report_html(CASES["hostile"], FILES, {})
    page = Page(source)
    assert "<script" not in source
    assert words(HOSTILE) in words(page.text)
    assert "b_b/\\u202ec\\x1b" in page.text
    assert "\x1b" not in source


NAMES = st.text(min_size=1, max_size=30)


@given(NAMES, NAMES, st.sampled_from(["", "/", "_"]))
@settings(max_examples=40, deadline=None)
def test_any_names_can_be_told(ann: str, bob: str, between: str) -> None:
    ann, bob = f"1{ann}{between}", f"2{bob}{between}"
    page = Page(report_html(facts(ann, bob), {}, {}))
    assert words(shown(ann)) in words(page.text)
    assert words(shown(bob)) in words(page.text)
    same = Page(report_html(facts(), {}, {}))
    ignored = ("wbr", "bdi")
    assert [tag for tag, _ in page.elements if tag not in ignored] == [
        tag for tag, _ in same.elements if tag not in ignored
    ]


def test_names_from_right_to_left_keep_to_their_place() -> None:
    run = facts("שרה", "Bob")
    page = report_html(run, {}, {})
    assert "apart: <bdi>שרה</bdi> (120) and Bob (80)." in page
    assert "apart: \u2068שרה\u2069 (120) and Bob (80)." in model_card(run)
    assert "<bdi><bdi>" not in page


def test_the_summary_says_how_good_and_how_sure() -> None:
    text = words(Page(report_html(facts(), {}, {})).text)
    assert (
        "tells 2 people apart: Ann (120) and Bob (80). It was trained on 200 photos of them, besides 80 photos" in text
    )
    assert (
        "Of 50 photos of these people that it had not been trained on, it names 47 right (94 %), refuses 1 as a "
        "stranger's, and names 2 wrong. On other photos like these, expect 83.8 % to 97.9 % to be named right." in text
    )
    assert text.index("it names 47 right") < text.index("If nobody were refused, 96 % would be named right")
    assert "Ann 120 30 29 0 1 96.7 % 96.7 % 96.7 %" in text
    assert "Bob 80 20 18 1 1 90 % 94.7 % 92.3 %" in text
    assert "so few photos say little" in words(Page(report_html(CASES["no strangers"], {}, {})).text).lower()


def test_mistakes_come_first_and_unsure_answers_after_them() -> None:
    chosen = choose_answers(answers())
    assert [(answer.truth, answer.label) for answer in chosen.wrong] == [
        *[("unknown", ANN)] * 4, (ANN, BOB), (BOB, ANN), (BOB, "unknown")
    ]  # fmt: skip
    assert chosen.all_wrong == 7
    sure = [answer.confidence for answer in chosen.unsure]
    assert sure == sorted(sure)
    assert sure[0] == pytest.approx(0.99 - 0.28)
    assert all(answer.right and answer.truth != "unknown" for answer in chosen.unsure)
    text = words(Page(report_html(facts(), {}, {})).text)
    assert "Not answered right: 7 of 70 held-out photos" in text
    assert "People named wrong: 2; people refused as strangers: 1; strangers named as one of the people: 4." in text


def test_the_most_frequent_confusion_comes_first() -> None:
    confused = facts(judged={**judged(), "confusion": [[29, 1, 0], [3, 16, 1]]})
    assert findings.confusions(confused) == [(BOB, ANN, 3), (ANN, BOB, 1)]
    page = Page(report_html(confused, FILES, {}))
    assert any("most often Bob named Ann: 3 photos" in (image["alt"] or "") for image in page.all("img"))


def test_the_threshold_stands_where_the_scale_has_it() -> None:
    source = report_html(facts(threshold=0.25), {}, {})
    (line,) = [line for line in Page(source).all("line") if line["class"] == "threshold"]
    tick = re.search(r'<text x="(\d+)"[^>]*>0\.25</text>', source)
    assert tick is not None
    assert float(line["x1"] or "") == float(line["x2"] or "") == float(tick[1])


def test_photos_with_several_faces_are_told_apart() -> None:
    several = {"photos": 12, "named_right": 9, "named_wrong": 1, "refused": 2}
    figures = {**judged(), "several": several, "unknown": {**judged()["unknown"], "several": 5}}
    mistaken = [replace(answer, faces=3, face=1) if answer.label == BOB else answer for answer in answers()]
    told = facts(judged=figures, answers=mistaken)
    page = words(Page(report_html(told, {}, {})).text)
    card = words(rendered(model_card(told)).text)
    for text in (page, card):
        assert "and names 2 wrong. 12 of these show several faces: 9 named right, 1 wrong, 2 refused. On other" in text
        assert "of photos with one face" in text
    assert "log loss 0.1230 38" in card
    assert "calibration error 4 % 38" in card
    assert "strangers: area under the ROC curve 0.900 15" in card
    assert "named right (accuracy) 94 % (83.8 % to 97.9 %) 47 of 50" in card
    assert "Those with one face also chose the epoch that was kept." in card
    assert "this one of 3 faces" in page
    alone = 50 - sum(answer.faces > 1 for answer in mistaken)
    assert f"Unknown-scores of {alone} photos of known people" in page
    for nothing in (judged(), {**judged(), "several": dict.fromkeys(several, 0)}):
        plain = facts(judged=nothing)
        assert "several faces" not in report_html(plain, {}, {}) + model_card(plain)
        assert "one face" not in report_html(plain, {}, {}) + model_card(plain)


def test_photos_are_shown_where_they_are_there() -> None:
    digest = f"{29:064x}"
    page = Page(report_html(facts(), {}, {digest: b"jpeg"}, {digest: "../../people/Ann/29.jpg"}))
    (picture,) = page.all("img")
    assert {"href": "../../people/Ann/29.jpg"} in page.all("a")
    assert picture["alt"] == "What the network was shown of Ann/29.jpg"
    assert picture["src"] == "data:image/jpeg;base64,anBlZw=="
    assert page.text.count("photo not there") == len({answer.sha256 for answer in choose_answers(answers()).all}) - 1


def test_the_device_is_named() -> None:
    assert "device cpu (AMD EPYC, 2 threads)" in words(Page(report_html(facts(), {}, {})).text)
    assert "trained on this device: cpu (AMD EPYC, 2 threads)." in model_card(facts())
    old = {key: value for key, value in facts().training.result.items() if key != "device_description"}
    assert "device cpu why" in words(Page(report_html(facts(result=old), {}, {})).text)


def test_layers_are_timed_in_a_table() -> None:
    text = words(Page(report_html(facts(), {}, {})).text)
    assert "conv1 1.250 2.500 3.750" in text
    assert "in all 0.400 1.250 2.500 0.000 4.150" in text


def test_the_film_moves_only_when_asked_for() -> None:
    source = report_html(facts(), FILES, {})
    assert re.search(r'<details class="screen"><summary>[^<]+</summary><figure><div[^>]+><img[^>]+image/gif', source)
    assert "kernels.gif" not in source


def test_writing_makes_small_jpegs_and_keeps_an_old_report_on_failure(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    big = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    grey = np.full((24, 24, 1), 77, np.uint8)
    write_report(run, facts(), {f"{29:064x}": ShownPhoto(big), f"{48:064x}": ShownPhoto(grey)})
    page = Page(run.report_path.read_text(encoding="utf-8"))
    assert len(page.all("img")) == 2
    assert all(len(image["src"] or "") < 60_000 for image in page.all("img"))
    before = run.report_path.read_bytes()
    gone = RunFolder(tmp_path / "gone")
    with pytest.raises(OutputError, match="its folder does not exist"):
        write_report(gone, facts(), {})
    with pytest.raises(OutputError, match="its folder does not exist"):
        write_model_card(gone, facts())
    assert run.report_path.read_bytes() == before


@pytest.mark.parametrize(
    ("photo", "link"),
    [
        ("people/Ann/29.jpg", "../../people/Ann/29.jpg"),
        ("runs/run/29.jpg", "29.jpg"),
        ('people/a b/%20#?"<>&.jpg', "../../people/a%20b/%2520%23%3F%22%3C%3E%26.jpg"),
        ("people/李/\udcff.jpg", "../../people/%E6%9D%8E/%FF.jpg"),
        ("runs/../people/1.jpg", "../../people/1.jpg"),
    ],
)
def test_a_link_leads_from_the_report_to_the_photo(photo: str, link: str, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "run")
    run.path.mkdir(parents=True)
    picture = np.zeros((8, 8, 3), np.uint8)
    write_report(run, facts(), {f"{29:064x}": ShownPhoto(picture, tmp_path / photo)})
    page = Page(run.report_path.read_text(encoding="utf-8"))
    assert [a["href"] for a in page.all("a") if not (a["href"] or "").startswith("#")] == [link]
    assert "A picture opens its photo" in page.text
    assert str(tmp_path) not in run.report_path.read_text(encoding="utf-8")


def test_no_link_tells_where_else_the_photos_lie(tmp_path: Path) -> None:
    """The way to photos that have nothing but the root in common with the run is their whole path."""
    run, picture = RunFolder(tmp_path), np.zeros((8, 8, 3), np.uint8)
    write_report(run, facts(), {f"{29:064x}": ShownPhoto(picture, Path("/nowhere else/people/Ann/29.jpg"))})
    source = run.report_path.read_text(encoding="utf-8")
    assert "nowhere" not in source
    assert "opens its photo" not in source


# In words


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100 %"), (0.9999, "99.9 %"), (0.0, "0 %"), (0.0001, "0.1 %"), (0.976, "97.6 %"), (0.5, "50 %")],
)
def test_nothing_is_rounded_to_all_or_none(share: float, text: str) -> None:
    assert findings.percent(share) == text.replace(" ", "\N{NO-BREAK SPACE}")


@pytest.mark.parametrize(("area", "text"), [(1.0, "1"), (0.99999, "0.999"), (0.9, "0.900"), (0.5, "0.500")])
def test_a_score_that_errs_is_not_called_perfect(area: float, text: str) -> None:
    assert findings.area_under_roc(area) == text


def unknown(auroc: float | None, photos: int = 40, refused: int = 30) -> dict[str, Any]:
    return {**judged(), "unknown": {"photos": photos, "auroc": auroc, "named": photos - refused, "refused": refused}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"counts": CASES["no strangers"].photos.counts, "threshold": None}, "never shown strangers"),
        ({"counts": CASES["no strangers"].photos.counts, "threshold": None}, "names every stranger"),
        ({"counts": CASES["no strangers"].photos.counts, "threshold": 0.4}, "expect it to name most strangers"),
        ({"judged": {**judged(), "unknown": None}}, "was never measured."),
        ({"judged": unknown(0.9), "threshold": None}, "It has no threshold"),
        ({"judged": unknown(0.55)}, "hardly tells strangers from its people"),
        ({"judged": unknown(0.8)}, "tells many strangers, but not reliably"),
        ({"judged": unknown(0.99)}, "tells strangers like these well"),
        ({"judged": unknown(0.99)}, "it refused 30 (75 %)"),
        ({"judged": unknown(0.99, 5, 4)}, "So few photos of strangers say little"),
        ({"judged": unknown(None)}, "no photos of its people to compare with"),
    ],
)
def test_strangers_in_words(changes: dict[str, Any], told: str) -> None:
    run = facts(**changes)
    assert told in words(findings.strangers(run))
    assert any(told in words(limit) for limit in findings.limits(run))
    assert told in words(Page(report_html(run, {}, {})).text)


def test_surroundings_that_do_as_well_are_warned_of() -> None:
    warned = facts(background=Background(0.96, 0.9, None, 0.6, 50))
    assert any("nearly as well as the faces" in limit for limit in findings.limits(warned))
    assert "The surroundings do nearly as well" in model_card(warned)
    page = report_html(warned, {}, {})
    assert re.search(
        r'class="warning"><strong>Note:</strong> If nobody is refused, it names 96\s% of 50 held-out photos right', page
    )
    assert "The surroundings do nearly as well" not in report_html(facts(), {}, {})
    assert "most of what it goes by lies where the face is" in findings.surroundings(
        Background(0.96, 0.65, 0.7, 0.6, 50)
    )
    assert "learned nothing" in findings.surroundings(Background(0.5, 0.5, None, 0.6, 50))
    assert "never saw a face is right in 70" in findings.surroundings(Background(0.96, 0.65, 0.7, 0.6, 50))
    assert "never saw a face" not in findings.surroundings(Background(0.96, 0.65, None, 0.6, 50))


def test_the_limit_of_what_answers_claim_is_told() -> None:
    limited = facts(counts=CASES["no strangers"].photos.counts, highest_confidence=51 / 52)
    for text in (Page(report_html(limited, {}, {})).text, rendered(model_card(limited)).text):
        assert "No answer claims more than 98.1 % confidence" in words(text)
        assert "50 held-out photos of its people can't carry more" in words(text)
    assert "claims more" not in report_html(facts(), {}, {}) + model_card(facts())


@pytest.mark.parametrize(("share", "text"), [(0.5, "50.0 %"), (0.9949, "99.5 %"), (0.9999, "99.9 %"), (1.0, "99.9 %")])
def test_no_confidence_is_written_as_certain(share: float, text: str) -> None:
    assert findings.confidence(share) == text


@pytest.mark.parametrize("hidden", [0.62, 0.9])
def test_it_is_said_that_the_surroundings_check_is_blind_to_the_camera(hidden: float) -> None:
    checked = facts(background=Background(0.96, hidden, None, 0.6, 50))
    blind = "can't show whether it goes by the camera or the compression"
    assert blind in words(Page(report_html(checked, {}, {})).text)
    assert blind in words(rendered(model_card(checked)).text)
    assert "camera and compression, which this can't see" in findings.only_surroundings(
        Background(0.9, 0.9, 0.9, 0.5, 9)
    )


def test_people_who_may_be_one_and_people_who_were_not_judged_are_told() -> None:
    twice = facts(alike=[(ANN, HOSTILE)], counts=[PhotoCount(ANN, 30, 5), PhotoCount(HOSTILE, 30, 5)])
    told = f"It can't tell {ANN} from {HOSTILE}: "
    assert any(limit.startswith(told) for limit in findings.limits(twice))
    assert words(told) in words(Page(report_html(twice, {}, {})).text)
    assert words(told) in words(rendered(model_card(twice)).text)
    assert not any("It can't tell" in limit for limit in findings.limits(facts()))
    single = facts(counts=[PhotoCount(ANN, 30, 5), PhotoCount(BOB, 1, 0)])
    assert "No photo of Bob was held out, so nobody knows how well it knows them." in findings.limits(single)
    assert not any("No photo of" in limit for limit in findings.limits(facts()))


def test_the_limit_is_not_written_as_certain_either() -> None:
    (text,) = findings.highest_confidence(2501 / 2502, 2500)
    assert text.startswith("No answer claims more than 99.9 % confidence")
    assert "2,500 held-out photos" in text
    assert findings.highest_confidence(None, 2500) == []


def test_what_a_model_is_not_good_for() -> None:
    few = " ".join(findings.limits(CASES["no strangers"]))
    assert "clearly better than always naming Ann" not in few, "all of 4 right, the largest are half: 0.51 > 0.5"
    assert "few photos of some people (8 photos of Ann)" in few
    assert "How much it goes by the surroundings instead of the faces wasn't measured." in few
    weak = facts(judged={**judged(), "closed_set_accuracy": 0.64, "closed_set_interval": [0.5, 0.76]})
    assert any("always naming Ann, which would be right in 60" in words(limit) for limit in findings.limits(weak))
    uneven = facts(counts=[PhotoCount(ANN, 200, 30), PhotoCount(BOB, 40, 20)])
    assert any("leans to whom it has seen more" in limit for limit in findings.limits(uneven))
    ann, bob = judged()["per_class"]
    unequal = facts(judged={**judged(), "per_class": [ann, {**bob, "recall": 0.8, "named_right": 16}]})
    assert "It is worst at Bob: 80 % of 20 photos named right." in map(words, findings.limits(unequal))
    assert "training hasn't ended" in findings.limits(CASES["unfinished"])[0]
    for threshold, told in ((0.4, "set how sure it is and whom it refuses, so"), (None, "set how sure it is, so")):
        assert any(told in limit for limit in findings.limits(facts(threshold=threshold)))
    assert "isn't known" in findings.accuracy(CASES["nothing held out"])
    assert "By the log of its training it named 94" in findings.accuracy(facts(**{**NOTHING, "logged_accuracy": 0.94}))


# The model card

HEADINGS = [
    "Model details",
    "Intended use",
    "Factors",
    "Metrics",
    "Evaluation data",
    "Training data",
    "Quantitative analyses",
    "Ethical considerations",
    "Caveats and recommendations",
]
"""Of Mitchell et al. 2019, figure 1, in its order."""


def rendered(card: str) -> Page:
    markdown_it = pytest.importorskip("markdown_it", reason="Markdown is read by what rich, which Typer needs, brings")
    return Page(markdown_it.MarkdownIt("commonmark").enable("table").render(card))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_card_has_the_headings_of_its_paper(case: str) -> None:
    card = model_card(CASES[case])
    found = re.findall(r"^## (.+)$", card, re.MULTILINE)
    assert found[: len(HEADINGS)] == HEADINGS
    assert found[len(HEADINGS) :] == ["How to reproduce"]
    assert len(re.findall(r"^# ", card, re.MULTILINE)) == 1
    assert "```yaml\nversion: 1\n" in card


def test_the_card_tells_counts_figures_and_consent_and_shows_no_photo() -> None:
    card = model_card(facts())
    text = words(rendered(card).text)
    assert "Ann 120 30" in text
    assert "in all 280 70" in text
    assert "named right (accuracy) 94 % (83.8 % to 97.9 %) 47 of 50" in text
    assert "refused as strangers 2 % 1 of 50" in text
    assert "named wrong 4 % 2 of 50" in text
    assert text.index("named right (accuracy)") < text.index("closed_set_accuracy 96 % 50")
    assert "strangers named 20 % 4 of 20" in text
    assert "Bob 20 18 1 1 90 % 94.7 %" in text
    assert "log loss 0.1230 50" in text
    assert "calibration error 4 % 50" in text
    assert "strangers: area under the ROC curve 0.900 20" in text
    assert "Everybody named above has agreed" in text
    assert "To take a person out" in text
    assert not any(answer.path in card for answer in answers())
    assert not rendered(card).all("img")


@given(NAMES, NAMES)
@settings(max_examples=60, deadline=None)
def test_names_in_a_card_are_never_markup(ann: str, bob: str) -> None:
    names = [f"1{ann}2", f"3{bob}4"]
    page, same = rendered(model_card(facts(*names))), rendered(model_card(facts()))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in same.elements]
    for name in names:
        assert words(unicodedata.normalize("NFC", shown(name))) in words(page.text)


def test_a_hostile_name_in_a_card() -> None:
    page = rendered(model_card(CASES["hostile"]))
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in rendered(model_card(facts())).elements}
    assert f"{words(HOSTILE)} 120 30" in words(page.text), "in one cell of its table"


def crowd(people: int) -> RunFacts:
    """Facts of a run with so many people, of whom number n has n of 100 photos named right."""
    names = [f"p{number}" for number in range(people)]
    rows = [
        {"name": name, "precision": 1.0, "recall": number / 100, "f1": 2 * number / (100 + number), "support": 100}
        | {"named_right": number, "named_wrong": 100 - number, "refused": 0}
        for number, name in enumerate(names)
    ]
    confusion = {"row": [*range(people), 0], "column": [*range(people), 1], "photos": [*range(1, people + 1), 100]}
    figures = judged() | {"classes": names, "confusion": confusion, "per_class": rows, "unknown": None}
    return facts(judged=figures, counts=[PhotoCount(name, 400, 100) for name in names])


def test_a_report_of_many_people_shows_those_known_worst_and_says_where_the_others_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(findings, "MOST_PEOPLE", 3)
    for page in (report_html(crowd(12), {}, {}), model_card(crowd(12))):
        text = re.sub(r"<[^>]*>", " ", page)
        assert "the 3 of 12" in text
        assert "who are known worst" in text
        assert "figures.json" in text
        assert not re.search(r"\bp(?:[6-9]|1[01])\b", text), "of the others only the first are in the list at the top"
    whole = report_html(crowd(3), {}, {})
    assert "known worst" not in whole
    assert whole.count('<th scope="row"><bdi>p') == 3 + 1, "everybody, and the one pair that was confused"


def test_pairs_of_people_who_are_alike_are_named_up_to_ten() -> None:
    pairs = [(f"a{number}", f"b{number}") for number in range(12)]
    assert len(findings.people_alike(pairs[:10])) == 10
    told = findings.people_alike(pairs)
    assert len(told) == 11
    assert "a9 from b9" in told[9]
    assert told[10] == "There are 2 more pairs of people whom it can't tell apart."
