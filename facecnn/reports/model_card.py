"""MODEL_CARD.md: what a model is for, what it was made of and how good it is, for those who get to use it.

The headings are those of Mitchell et al. 2019, "Model Cards for Model Reporting" (arXiv:1810.03993).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from facecnn.errors import shown
from facecnn.photos.folder import UNKNOWN
from facecnn.reports import findings
from facecnn.reports.facts import RunFacts
from facecnn.reports.findings import counted, percent
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
    sections = [
        (f"Model card: {_text(facts.name)}", _summary(facts), 1),
        ("Model details", _details(facts), 2),
        ("Intended use", _use(facts), 2),
        ("Factors", _factors(facts), 2),
        ("Metrics", _metrics(facts), 2),
        ("Evaluation data", _evaluation_data(facts), 2),
        ("Training data", _training_data(facts), 2),
        ("Quantitative analyses", _analyses(facts), 2),
        ("Ethical considerations", _ethics(), 2),
        ("Caveats and recommendations", _caveats(facts), 2),
        ("How to reproduce", _reproduce(facts), 2),
    ]
    return "\n\n".join(f"{'#' * level} {title}\n\n{body}" for title, body, level in sections) + "\n"


def _summary(facts: RunFacts) -> str:
    unfinished = [] if facts.finished else ["**Its training isn't finished; the figures below are those so far.**"]
    sentences = (findings.trained_for(facts), findings.accuracy(facts), findings.closed_set(facts))
    return "\n\n".join([*unfinished, *(_sentences(facts, text) for text in sentences if text is not None)])


def _details(facts: RunFacts) -> str:
    lines = [
        f"Made with facecnn {_text(facts.version)}" + (f" on {facts.ended}" if facts.ended else ""),
        f"A convolutional network of {facts.parameters:,} weights in {counted(len(facts.layers), 'layer')}, trained "
        f"from photos of the people below",
        f"Input: {_text(facts.preparation)}",
        f"Output: a probability for each of {counted(len(facts.people), 'person', 'people')}"
        + (", and a score of how strange a face is" if facts.strangers is not None else ""),
        f"Training: {_text(facts.optimizer)}, {counted(facts.epochs, 'epoch')}; the weights kept are those of epoch "
        f"{facts.best_epoch}",
    ]
    origin = facts.training.get("init_from")
    if origin:
        lines[1] = lines[1].replace("trained from", "begun with the weights of another model, and trained further on")
    return _items(lines)


def _use(facts: RunFacts) -> str:
    return "\n\n".join(
        [
            "**Primary use:** to sort private photos by who is in them, to learn how such networks work, and for "
            "research, by people who know those shown.",
            "**Out of scope:**",
            _items(
                [
                    "Anything that decides about a person: entry, payment, work, police, borders, insurance, school",
                    "Unlocking: a photo held before the camera passes for the person",
                    "Surveillance, and finding people who didn't agree to it",
                    "Anybody but the people named below"
                    + ("" if facts.strangers is not None else ": it knows nobody else and was never shown a stranger"),
                    "Guessing age, sex, origin, mood or health: it was never trained for it",
                ]
            ),
        ]
    )


def _factors(facts: RunFacts) -> str:
    return "\n\n".join(
        [
            "Who is in the photo, the light, the pose and age of the face, glasses, beards and masks, the camera, and "
            "how alike people look (relatives, twins) all matter to an answer.",
            "Only the person was looked at, below. How answers differ by age, sex, skin colour or camera wasn't "
            "measured, and with so few people it can't be.",
        ]
    )


def _metrics(facts: RunFacts) -> str:
    photos = facts.temperature_set_on
    calibrated = f"set on {counted(photos, 'held-out photo')}" if photos else "not set: no held-out photos"
    return _items(
        [
            "Accuracy: share of the people's held-out photos that get the right name from predict, so that a refused "
            "one isn't right; in brackets Wilson's 95 % interval, which takes photos as independent of each other",
            "closed\\_set\\_accuracy: share whose likeliest person is the right one, whatever the threshold says",
            "Log loss: mean of -ln p(right person), of the probabilities over the people",
            "Calibration error: of the people's photos that are named, mean distance between confidence and the share "
            "that is right, in 15 equal bins",
            "Strangers: area under the ROC curve of the unknown-score, held-out people against held-out strangers",
            f"Threshold of the unknown-score beyond which a face is refused: {_text(findings.threshold(facts))}",
            f"Temperature: {facts.temperature:.4f} ({calibrated})",
            *map(_text, findings.highest_confidence(facts.highest_confidence, facts.calibrated_on)),
        ]
    )


def _evaluation_data(facts: RunFacts) -> str:
    held_out = sum(count.held_out for count in facts.photos)
    if not held_out:
        return "No photos were held out."
    if facts.own_validation:
        text = (
            f"{counted(held_out, 'photo')} of the same folders as the training photos, chosen at random person by "
            "person and kept out of training; photos that look alike stay on one side. They may be of the same "
            "occasions as photos trained on."
        )
    else:
        text = f"{counted(held_out, 'photo')} of a folder of their own, which was not trained on."
    several = facts.judged is not None and findings.several_faces(facts.judged) is not None
    return f"{text} {'Those with one face' if several else 'They'} also chose the epoch that was kept."


def _training_data(facts: RunFacts) -> str:
    rows = [[_text(count.name), f"{count.trained_on:,}", f"{count.held_out:,}"] for count in facts.photos]
    trained_on, held_out = zip(*((count.trained_on, count.held_out) for count in facts.photos), strict=True)
    total = [f"{sum(trained_on):,}", f"{sum(held_out):,}"]
    skipped = (
        f"{counted(len(facts.skipped), 'photo')} couldn't be used and {'was' if len(facts.skipped) == 1 else 'were'} "
        "left out."
    )
    strangers = (
        [f"The photos of {UNKNOWN} show other people; the network learned to tell them from the others."]
        if facts.strangers is not None
        else []
    )
    return "\n\n".join(
        [
            _table(["person", "trained on", "held out"], [*rows, ["in all", *total]]),
            *strangers,
            *([skipped] if facts.skipped else []),
            "The photos are not part of the model. Whoever made it gave the names.",
        ]
    )


def _analyses(facts: RunFacts) -> str:
    judged = facts.judged
    parts = []
    if judged is None or judged["accuracy"] is None:
        parts.append(_text(findings.accuracy(facts)))
    else:
        known = judged["known"]
        unknown = judged["unknown"]
        several = findings.several_faces(judged)
        alone, strangers_alone = findings.with_one_face(judged)
        rows = [
            _part("named right (accuracy)", known["named_right"], known["photos"], judged["interval"]),
            _part("refused as strangers", known["refused"], known["photos"]),
            _part("named wrong", known["named_wrong"], known["photos"]),
            ["closed\\_set\\_accuracy", percent(judged["closed_set_accuracy"]), f"{known['photos']}"],
            ["balanced accuracy", percent(judged["balanced_accuracy"]), f"{known['photos']}"],
            ["log loss", "-" if judged["log_loss"] is None else f"{judged['log_loss']:.4f}", f"{alone}"],
            ["calibration error", _share(judged["expected_calibration_error"]), f"{alone}"],
        ]
        if unknown is not None:
            area = "-" if unknown["auroc"] is None else findings.area_under_roc(unknown["auroc"])
            rows += [
                _part("strangers refused", unknown["refused"], unknown["photos"]),
                _part("strangers named", unknown["named"], unknown["photos"]),
                ["strangers: area under the ROC curve", area, f"{strangers_alone}"],
            ]
        parts.append("Held-out photos:\n\n" + _table(["figure", "value", "photos"], rows))
        if several is not None:
            parts.append(
                f"{several}. Right is where the person's name is among those given in the photo, wrong where it isn't "
                "and another one is. Log loss, calibration error and the area under the curve are of photos with one "
                "face."
            )
        people = [
            [
                _text(row["name"]),
                *(f"{row[key]}" for key in ("support", "named_right", "refused", "named_wrong")),
                *(_share(row[key]) for key in ("recall", "precision")),
            ]
            for row in judged["per_class"]
        ]
        titles = ["person", "held out", "named right", "refused", "named wrong", "recall", "precision"]
        table = _table(titles, people)
        parts.append("Unitary results, by person:\n\n" + table)
    parts.append("Intersectional results: not measured.")
    parts.append(f"Strangers: {_text(findings.strangers(facts))}")
    if facts.background is not None:
        parts.append(f"Surroundings: {_text(findings.surroundings(facts.background))}")
    return "\n\n".join(parts)


def _ethics() -> str:
    return "\n\n".join(
        [
            "Faces are biometric data: in many countries they may be processed only with the consent of those shown "
            "(in the European Union by article 9 of the GDPR), and who consented may take it back.",
            "facecnn can't know whether these people agreed. **To be filled in by whoever passes the model on:**",
            _items(
                [
                    "[ ] Everybody named above has agreed to being recognised by this model, and knows who uses it.",
                    "[ ] The photos of strangers, if any, may be used so.",
                    "Contact for questions and deletion: …",
                ]
            ),
            "**Deletion.** The weights hold traces of everybody's photos, and the model's file lists the photos' "
            "SHA-256 sums. To take a person out: delete the person's photos, this run's folder with all copies of the "
            "model, and facecnn's cache folder (it holds cropped photos), then train anew.",
        ]
    )


def _caveats(facts: RunFacts) -> str:
    recommendations = [
        "Try it on photos of other days and places before relying on it: facecnn eval PHOTOS",
        "Let a person look at every answer that matters, first of all where confidence is low",
    ]
    if facts.strangers is None:
        recommendations.append("For photos in which others may appear: add a folder unknown/ of strangers, train anew")
    return _items([*(_sentences(facts, limit) for limit in findings.limits(facts)), *recommendations])


def _reproduce(facts: RunFacts) -> str:
    device = ""
    if "device" in facts.training:
        device = f" It was trained on this device: {_text(findings.device(facts.training))}."
    start = ""
    if facts.training.get("init_from"):
        start = " It also takes the model that this one was begun with (--init-from)."
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", facts.settings)), default=0))
    return (
        f"With facecnn {_text(facts.version)}, the same photos, and these settings as config.yaml:\n\n"
        f"{fence}sh\nfacecnn train PHOTOS --config config.yaml\n{fence}\n\n"
        f"The same seed, photos and kind of device give the same bits.{device}{start}\n\n"
        f"{fence}yaml\n{facts.settings.rstrip()}\n{fence}"
    )


# Elements


def _text(text: object) -> str:
    """Text that may hold anything, as Markdown that shows just that, in one line.

    Every ASCII punctuation mark that Markdown knows may be escaped; those that HTML or a link is made of become
    entities, which no reader takes for markup.
    """
    visible = unicodedata.normalize("NFC", shown(str(text)))
    entities = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
    return "".join(
        entities.get(character) or (f"\\{character}" if character in "\\`*_[]|~#$!" else character)
        for character in visible
    )


def _sentences(facts: RunFacts, text: str) -> str:
    """Sentences with names in them, as Markdown."""
    names = (_text(count.name) for count in facts.photos)
    return findings.isolated(_text(text), names, "\N{FIRST STRONG ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}")


def _items(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _part(title: str, number: int, whole: int, interval: Sequence[float] | None = None) -> list[str]:
    """A row: so many of all, and as a share."""
    share = percent(number / whole)
    if interval is not None:
        low, high = interval
        share += f" ({percent(low)} to {percent(high)})"
    return [title, share, f"{number} of {whole}"]


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)
