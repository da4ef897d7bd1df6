"""MODEL_CARD.md: what a model is for, what it was trained on and how good it is, for its users."""

from __future__ import annotations

import re

from facecnn.reports import findings
from facecnn.reports.facts import RunFacts
from facecnn.reports.page import rendered
from facecnn.runs.atomic import write_atomically
from facecnn.runs.folder import RunFolder


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
