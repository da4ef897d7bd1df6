"""MODEL_CARD.md: what a model is for, what it was made of and how good it is, for those who get to use it."""

from __future__ import annotations

import re

from facecnn.reports.facts import RunFacts
from facecnn.reports.page import rendered
from facecnn.runs.atomic import write_atomically
from facecnn.runs.folder import RunFolder


def write_model_card(run: RunFolder, facts: RunFacts) -> None:
    """Writes MODEL_CARD.md, without a photo and without where the photos lie.

    Raises:
        OutputError: it couldn't be written; an old card is intact.
    """
    write_atomically(run.card_path, model_card(facts).encode("utf-8"))


def model_card(facts: RunFacts) -> str:
    """The card as Markdown (CommonMark with tables); names in it can't be taken for markup."""
    settings = facts.network.settings
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", settings)), default=0))
    return rendered("model_card.md", facts=facts, fence=fence, settings=settings.rstrip())
