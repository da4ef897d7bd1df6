"""report.html: a run as a self-contained page.

Its text is in ``templates/report.html``. This module computes what the template shows.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facecnn.reports import findings
from facecnn.reports.facts import Answer, RunFacts
from facecnn.reports.page import link_to, rendered, thumbnail
from facecnn.runs.atomic import write_atomically
from facecnn.runs.folder import RunFolder

_MOST_WRONG, _MOST_UNSURE = 24, 12
_MOST_CONFUSIONS = 15
_MOST_SKIPPED = 500
_BINS = 20

_NO_LINKS: Mapping[str, str] = {}


@dataclass(frozen=True)
class ShownAnswers:
    """The answers that a report shows with their photos."""

    wrong: list[Answer]
    """First photos with a wrong name, then refused ones, the most confident mistakes first."""
    unsure: list[Answer]
    """Right answers, the least certain first."""
    all_wrong: int
    """Number of all wrong answers."""
    refused: int
    """Number of people refused as strangers, among all wrong answers."""
    strangers_named: int
    """Number of strangers named, among all wrong answers."""

    @property
    def all(self) -> list[Answer]:
        """Wrong and unsure ones."""
        return [*self.wrong, *self.unsure]


@dataclass(frozen=True)
class ShownPhoto:
    """A photo in the report."""

    pixels: np.ndarray
    """(rows, columns, 1 or 3) uint8: the network's crop, in a higher resolution if possible."""
    file: Path | None = None
    """The photo's file."""


def choose_answers(answers: Sequence[Answer]) -> ShownAnswers:
    """The answers worth looking at."""
    mistakes = (answer for answer in answers if not answer.right)
    wrong = sorted(mistakes, key=lambda answer: (findings.is_stranger(answer.label), -answer.confidence))
    right = (answer for answer in answers if answer.right and not findings.is_stranger(answer.truth))
    unsure = sorted(right, key=lambda answer: answer.confidence)
    return ShownAnswers(
        wrong[:_MOST_WRONG],
        unsure[:_MOST_UNSURE],
        all_wrong=len(wrong),
        refused=sum(findings.is_stranger(answer.label) for answer in wrong),
        strangers_named=sum(findings.is_stranger(answer.truth) for answer in wrong),
    )


def write_report(run: RunFolder, facts: RunFacts, photos: Mapping[str, ShownPhoto]) -> None:
    """Write report.html.

    ``photos``: by SHA-256. Answers for other photos are listed without their photo. Raises OutputError if it
    couldn't be written; an old report is intact.
    """
    pictures = {path.name: path.read_bytes() for path in run.picture_paths if path.is_file()}
    thumbnails = {digest: thumbnail(photo.pixels) for digest, photo in photos.items()}
    links = {
        digest: link
        for digest, photo in photos.items()
        if photo.file is not None and (link := link_to(photo.file, run.path)) is not None
    }
    write_atomically(run.report_path, report_html(facts, pictures, thumbnails, links).encode("utf-8"))


def report_html(
    facts: RunFacts,
    pictures: Mapping[str, bytes],
    thumbnails: Mapping[str, bytes],
    links: Mapping[str, str] = _NO_LINKS,
) -> str:
    """The page as HTML.

    ``pictures`` are the run's PNG and GIF files by name; ``thumbnails`` JPEG files, and ``links`` leads to photos, by
    SHA-256.
    """
    result = facts.training.result
    accuracies = [
        f"{what} {findings.percent(figures['accuracy'])}"
        for key, what in (("train", "photos trained on"), ("validation", "held-out photos"))
        if (figures := result.get(key)) and figures["accuracy"] is not None
    ]
    return rendered(
        "report.html",
        facts=facts,
        pictures=pictures,
        thumbnails=thumbnails,
        links=links,
        accuracies=accuracies,
        trained_on={count.name: count.trained_on for count in facts.photos.counts},
        chosen=choose_answers(facts.held_out.answers),
        scores=_score_histogram(facts.held_out.answers, facts.calibration.threshold),
        profile=findings.profile_rows(result.get("milliseconds") or {}),
        most_people=findings.MOST_PEOPLE,
        most_confusions=_MOST_CONFUSIONS,
        most_skipped=_MOST_SKIPPED,
    )


def write_model_card(run: RunFolder, facts: RunFacts) -> None:
    """Write MODEL_CARD.md, which has neither photos nor their path. Raises OutputError; an old card is then intact."""
    write_atomically(run.card_path, model_card(facts).encode("utf-8"))


def model_card(facts: RunFacts) -> str:
    """The card as Markdown (CommonMark with tables), with names escaped."""
    settings = facts.network.settings
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", settings)), default=0))
    return rendered(
        "model_card.md", facts=facts, fence=fence, settings=settings.rstrip(), most_people=findings.MOST_PEOPLE
    )


def _score_histogram(answers: Sequence[Answer], threshold: float | None) -> dict[str, Any] | None:
    """A histogram of the unknown-scores of photos with one face, for an SVG of 360 by 232.

    Known people are above the axis, strangers below, as shares of each. None if either has no photos.
    """
    alone = [answer for answer in answers if answer.faces == 1]
    known, strange = (
        [answer.unknown_score for answer in alone if findings.is_stranger(answer.truth) is of_stranger]
        for of_stranger in (False, True)
    )
    if not known or not strange:
        return None
    left, right, middle, tall = 8, 352, 104, 78
    width = (right - left) / _BINS
    shares = [np.histogram(scores, _BINS, (0, 1))[0] / len(scores) for scores in (known, strange)]
    highest = max(float(share.max()) for share in shares)
    bars = []
    for group, share in zip(("known", "strange"), shares, strict=True):
        for number in np.flatnonzero(share).tolist():
            height = tall * float(share[number]) / highest
            y = middle - height if group == "known" else middle
            x = left + number * width + 0.7
            bars.append({"group": group, "x": x, "y": y, "width": width - 1.4, "height": height})
    line = None
    if threshold is not None:
        line = left + (right - left) * min(max(threshold, 0.0), 1.0)
    ticks = ((0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1, "end"))
    return {
        "left": left,
        "right": right,
        "middle": middle,
        "bars": bars,
        "threshold": line,
        "ticks": [(f"{tick:g}", left + (right - left) * tick, anchor) for tick, anchor in ticks],
        "description": f"Unknown-scores of {findings.counted(len(known), 'photo')} of known people, median "
        f"{np.median(known):.2f}, and of {findings.counted(len(strange), 'photo')} of strangers, median "
        f"{np.median(strange):.2f}",
    }
