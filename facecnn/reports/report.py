"""report.html: a run as one page that needs nothing else, neither a network nor the files beside it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facecnn.reports import findings
from facecnn.reports.facts import Answer, RunFacts
from facecnn.reports.findings import counted, percent
from facecnn.reports.page import (
    PRIVATE,
    embedded,
    escaped,
    escaped_name,
    link_to,
    paragraph,
    thumbnail,
    warning,
    whole_page,
)
from facecnn.runs.atomic import write_atomically
from facecnn.runs.folder import RunFolder

_MOST_WRONG, _MOST_UNSURE = 24, 12
_MOST_CONFUSIONS = 15
_MOST_SKIPPED = 500
_BINS = 20

_WAYS = {"": "once", "forward": "forward", "backward_weight": "to weights", "backward": "to input"}
"""Of ``train --profile``: how a layer is passed, by the second word of its time's name."""


_NO_LINKS: Mapping[str, str] = {}


@dataclass(frozen=True)
class ShownAnswers:
    """The answers that a report shows with their photos."""

    wrong: list[Answer]
    """Photos that were given a wrong name first, then those refused, the most confident mistakes first."""
    unsure: list[Answer]
    """Right, the least certain first."""
    all_wrong: int

    @property
    def all(self) -> list[Answer]:
        """Both."""
        return [*self.wrong, *self.unsure]


@dataclass(frozen=True)
class ShownPhoto:
    """A photo as the report shows it."""

    pixels: np.ndarray
    """What the network was shown of it, (rows, columns, 1 or 3) uint8; as sharp as can be had."""
    file: Path | None = None
    """The photo itself."""


def choose_answers(answers: Sequence[Answer]) -> ShownAnswers:
    """The answers worth looking at."""
    mistakes = (answer for answer in answers if not answer.right)
    wrong = sorted(mistakes, key=lambda answer: (findings.is_stranger(answer.label), -answer.confidence))
    right = (answer for answer in answers if answer.right and not findings.is_stranger(answer.truth))
    unsure = sorted(right, key=lambda answer: answer.confidence)
    return ShownAnswers(wrong[:_MOST_WRONG], unsure[:_MOST_UNSURE], len(wrong))


def write_report(run: RunFolder, facts: RunFacts, photos: Mapping[str, ShownPhoto]) -> None:
    """Writes report.html from the facts, the run's pictures (those that are there), and ``photos``.

    Args:
        run: the run's folder.
        facts: what is told.
        photos: by SHA-256; of photos that aren't in it the answer is told without.

    Raises:
        OutputError: it couldn't be written; an old report is intact.
    """
    files = {path.name: path.read_bytes() for path in _picture_paths(run) if path.is_file()}
    thumbnails = {digest: thumbnail(photo.pixels) for digest, photo in photos.items()}
    links = {digest: link_to(photo.file, run.path) for digest, photo in photos.items() if photo.file is not None}
    page = report_html(facts, files, thumbnails, {digest: link for digest, link in links.items() if link is not None})
    write_atomically(run.report_path, page.encode("utf-8"))


def _picture_paths(run: RunFolder) -> tuple[Path, ...]:
    return (
        run.curves_path,
        run.confusion_path,
        run.kernels_path,
        run.patches_path,
        run.evolution_path,
        run.watching_path,
    )


def report_html(
    facts: RunFacts, files: Mapping[str, bytes], thumbnails: Mapping[str, bytes], links: Mapping[str, str] = _NO_LINKS
) -> str:
    """The page. ``files``: the run's pictures by name; ``thumbnails``: JPEG files by their photo's SHA-256; ``links``:
    where the photo itself is, by the same."""
    sections = [
        ("curves", "How training went", _curves(facts, files)),
        ("people", "Who is taken for whom", _people(facts, files)),
        ("photos", "Photos it got wrong, or nearly", _photos(facts, thumbnails, links)),
        ("strangers", "Strangers", _strangers(facts)),
        ("surroundings", "How much is the face?", _surroundings(facts)),
        ("kernels", "What the kernels became", _kernels(files)),
        ("time", "Time and device", _time(facts)),
        ("skipped", "Photos that were not used", _skipped(facts)),
        ("settings", "Network and settings", _settings(facts)),
    ]
    there = [(name, title, body) for name, title, body in sections if body]
    contents = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title, _ in there)
    parts = [
        "<header>",
        f"<h1>Report of the training {escaped_name(facts.name)}</h1>",
        f'<p class="soft">{_origin(facts)}</p>',
        "</header>",
        "<main>",
        _summary(facts),
        f'<nav aria-label="Parts of this report"><ul>{contents}</ul></nav>',
        *(
            f'<section aria-labelledby="{name}">\n<h2 id="{name}">{title}</h2>\n{body}\n</section>'
            for name, title, body in there
        ),
        "</main>",
        PRIVATE,
    ]
    return whole_page(f"{escaped(facts.name)}: facecnn report", parts)


# Sections


def _origin(facts: RunFacts) -> str:
    ended = f"Ended {facts.ended}; made" if facts.ended else "Made"
    return f"{ended} by facecnn {escaped(facts.version)}."


def _summary(facts: RunFacts) -> str:
    parts = []
    if not facts.finished:
        parts.append(
            warning(
                f"This training isn't finished: what follows is how it stands after {counted(facts.epochs, 'epoch')}. "
                "facecnn train --resume goes on with it."
            )
        )
    names = [escaped(count.name) for count in facts.photos]

    def sentences(text: str) -> str:
        return findings.isolated(escaped(text), names, "<bdi>", "</bdi>")

    parts += [
        f'<p class="lead">{sentences(text)}</p>' for text in (findings.trained_for(facts), findings.accuracy(facts))
    ]
    if (closed_set := findings.closed_set(facts)) is not None:
        parts.append(paragraph(closed_set))
    parts += [warning(text) for text in facts.missing]
    limits = _items(map(sentences, findings.limits(facts)))
    return "\n".join([*parts, "<h2>What it isn't good for, and what nobody knows</h2>", limits])


def _curves(facts: RunFacts, files: Mapping[str, bytes]) -> str:
    epochs = counted(facts.epochs, "epoch")
    if not facts.epochs:
        return paragraph("No epoch has ended yet.")
    text = f"It was trained for {epochs}; the model that is kept is that of epoch {facts.best_epoch}"
    text += ", where the loss on the held-out photos was lowest." if _held_out(facts) else "."
    parts = [paragraph(text)]
    alt = f"Curves of loss, accuracy and learning rate over {epochs}"
    accuracies = [
        f"{what} {percent(figures['accuracy'])}"
        for key, what in (("train", "photos trained on"), ("validation", "held-out photos"))
        if (figures := facts.training.get(key)) and figures["accuracy"] is not None
    ]
    if accuracies:
        alt += f"; named right at the end: {', '.join(accuracies)}"
    caption = (
        "Loss falls as answers get better and surer. Where the held-out photos' loss rises while that of the photos "
        "trained on still falls, the network learns photos by heart. Photos trained on are changed at random each "
        "time, so they can be harder than held-out ones. Right is here whose likeliest answer is right, strangers "
        "being one more name: no threshold refuses anybody, and photos are looked at in fewer ways than later."
    )
    parts.append(_figure(files.get("curves.png"), "png", alt, caption, drawn=True))
    return _joined(parts)


def _people(facts: RunFacts, files: Mapping[str, bytes]) -> str:
    judged = facts.judged
    counts = _table(
        "Photos of each",
        ["name", "trained on", "held out"],
        [[escaped_name(count.name), f"{count.trained_on:,}", f"{count.held_out:,}"] for count in facts.photos],
    )
    if judged is None:
        return counts
    trained_on = {count.name: f"{count.trained_on:,}" for count in facts.photos}
    rows = [
        [
            escaped_name(row["name"]),
            trained_on.get(row["name"], ""),
            *(f"{row[key]:,}" for key in ("support", "named_right", "refused", "named_wrong")),
            *(_share(row[key]) for key in ("recall", "precision", "f1")),
        ]
        for row in judged["per_class"]
    ]
    several = findings.several_faces(judged)
    parts = [
        paragraph(
            "Named right, refused as a stranger's, or named wrong: what predict answers. Recall: share of the person's "
            "held-out photos that got the name. Precision: share of the people's photos with that name that are the "
            "person's. F1: their harmonic mean."
        ),
        ""
        if several is None
        else paragraph(
            f"{several}. Right is where the person's name is among those given in the photo, wrong where it isn't and "
            "another one is, of which the best match counts. Log loss and calibration error are of photos with one "
            "face."
        ),
        _table(
            "Each person",
            ["name", "trained on", "held out", "named right", "refused", "named wrong", "recall", "precision", "F1"],
            rows,
        ),
    ]
    pairs = findings.confusions(facts)
    if pairs:
        cut = f" (the {_MOST_CONFUSIONS} most frequent of {len(pairs)} pairs)" if len(pairs) > _MOST_CONFUSIONS else ""
        parts.append(
            _table(
                f"People named as another, of the held-out photos{cut}",
                ["is", "was named", "photos"],
                [
                    [escaped_name(who), escaped_name(named), f"{count}"]
                    for who, named, count in pairs[:_MOST_CONFUSIONS]
                ],
            )
        )
        most = f"most often {pairs[0][0]} named {pairs[0][1]}: {counted(pairs[0][2], 'photo')}"
    else:
        most = "no person is named as another"
    alt = f"Confusion matrix of the held-out photos: a row for who it is, a column for who was named; {most}"
    caption = "Held-out photos. Rows: who it is. Columns: whom predict names, or that it refuses."
    parts.append(_figure(files.get("confusion.png"), "png", alt, caption, drawn=True))
    parts.append(
        _table(
            "How far its confidence can be trusted",
            ["figure", "value", "what it means"],
            [
                [
                    "log loss",
                    _number(judged["log_loss"]),
                    "of the probabilities over the people; 0 is best, a confident mistake costs most",
                ],
                [
                    "calibration error",
                    _share(judged["expected_calibration_error"]),
                    "of the photos that are named: mean distance between confidence and the share that is right, "
                    "over 15 bins",
                ],
                ["balanced accuracy", _share(judged["balanced_accuracy"]), "mean recall: every person counts alike"],
                [
                    "temperature",
                    _number(facts.temperature),
                    f"set on {counted(facts.temperature_set_on, 'held-out photo')}; above 1 makes answers less sure"
                    if facts.temperature_set_on
                    else "not set: no held-out photos",
                ],
                *_highest_confidence(facts),
            ],
        )
    )
    return _joined(parts)


def _highest_confidence(facts: RunFacts) -> list[list[str]]:
    if facts.highest_confidence is None:
        return []
    by = f"{counted(facts.calibrated_on, 'held-out photo')} of its people, and no stranger, can't carry more"
    return [["highest confidence", findings.confidence(facts.highest_confidence), by]]


def _photos(facts: RunFacts, thumbnails: Mapping[str, bytes], links: Mapping[str, str]) -> str:
    if not facts.answers:
        return ""
    chosen = choose_answers(facts.answers)
    parts = [
        paragraph(
            f"The pictures are what was cut out of each photo. The network sees less: {facts.preparation}."
            + (" A picture opens its photo, as long as photos and report stay where they are." if links else "")
        )
        if thumbnails
        else ""
    ]
    if chosen.wrong:
        cut = f" (the {len(chosen.wrong)} most confident)" if chosen.all_wrong > len(chosen.wrong) else ""
        all_photos = counted(len(facts.answers), "held-out photo")
        parts.append(f"<h3>Not answered right: {chosen.all_wrong} of {all_photos}{cut}</h3>")
        parts += [paragraph(_kinds_of_mistakes(facts.answers)), _cards(chosen.wrong, thumbnails, links)]
    else:
        parts.append(paragraph(f"Each of {counted(len(facts.answers), 'held-out photo')} was answered right."))
    if chosen.unsure:
        parts.append("<h3>Right, but least certain</h3>")
        parts.append(_cards(chosen.unsure, thumbnails, links))
    return _joined(parts)


def _kinds_of_mistakes(answers: Sequence[Answer]) -> str:
    wrong = [answer for answer in answers if not answer.right]
    refused = sum(findings.is_stranger(answer.label) for answer in wrong)
    named = sum(findings.is_stranger(answer.truth) for answer in wrong)
    return (
        f"People named wrong: {len(wrong) - refused - named}; people refused as strangers: {refused}; strangers named "
        f"as one of the people: {named}."
    )


def _cards(answers: Sequence[Answer], thumbnails: Mapping[str, bytes], links: Mapping[str, str]) -> str:
    cards = []
    for answer in answers:
        picture = thumbnails.get(answer.sha256)
        if picture is None:
            image = '<span class="none">photo not there</span>'
        else:
            image = embedded(picture, "jpeg", f"What the network was shown of {answer.path}")
            if answer.sha256 in links:
                image = f'<a href="{html.escape(links[answer.sha256])}">{image}</a>'
        sure = "unknown-score" if findings.is_stranger(answer.label) else "confidence"
        named = "" if answer.right else f"<span><b>named</b> {_answer_name(answer.label)}</span>"
        if answer.faces > 1:
            named += f"<span>this one of {answer.faces} faces</span>"
        cards.append(
            f"<li>{image}<div><span><b>is</b> {_answer_name(answer.truth)}</span>{named}"
            f"<span>{sure} {findings.confidence(answer.confidence)}</span>"
            f'<span class="soft">{escaped_name(answer.path)}</span></div></li>'
        )
    return f'<ul class="cards">{"".join(cards)}</ul>'


def _answer_name(name: str) -> str:
    return "a stranger" if findings.is_stranger(name) else escaped_name(name)


def _strangers(facts: RunFacts) -> str:
    unknown = None if facts.judged is None else facts.judged["unknown"]
    weak = unknown is not None and unknown["auroc"] is not None and unknown["auroc"] < findings.WEAK_SEPARATION
    text = findings.strangers(facts)
    parts = [warning(text) if weak or facts.strangers is None else paragraph(text)]
    if facts.judged is None:
        return _joined(parts)
    known = facts.judged["known"]
    named = known["named_right"] + known["named_wrong"]
    rows = [["its people", f"{known['photos']}", f"{named}", f"{known['refused']}"]]
    if unknown is not None:
        rows.append(["strangers", f"{unknown['photos']}", f"{unknown['named']}", f"{unknown['refused']}"])
    limit = "no threshold" if facts.threshold is None else f"threshold {facts.threshold:.3f}"
    parts.append(
        _table(
            f"Held-out photos that are named, right or wrong, and refused as a stranger's ({limit})",
            ["of", "photos", "named", "refused"],
            rows,
        )
    )
    if unknown is not None:
        alone = [answer for answer in facts.answers if answer.faces == 1]
        scores = [
            [answer.unknown_score for answer in alone if findings.is_stranger(answer.truth) is strange]
            for strange in (False, True)
        ]
        if all(scores):
            parts.append(_distribution(scores[0], scores[1], facts.threshold))
    return _joined(parts)


def _distribution(known: Sequence[float], strange: Sequence[float], threshold: float | None) -> str:
    """A histogram of unknown-scores: known people's photos above the axis, strangers' below, in shares of each."""
    left, right, middle, tall = 8, 352, 104, 78
    width = (right - left) / _BINS
    shares = [np.histogram(scores, _BINS, (0, 1))[0] / len(scores) for scores in (known, strange)]
    highest = max(float(share.max()) for share in shares)
    bars = []
    for share, kind, sign in zip(shares, ("known", "strange"), (-1, 1), strict=True):
        for number, value in enumerate(share.tolist()):
            if value:
                height = tall * value / highest
                top = middle - height if sign < 0 else middle
                bars.append(
                    f'<rect class="{kind}" x="{left + number * width + 0.7:.1f}" y="{top:.1f}" '
                    f'width="{width - 1.4:.1f}" height="{height:.1f}"/>'
                )
    ticks = "".join(
        f'<text x="{left + (right - left) * tick:.0f}" y="208" text-anchor="{anchor}">{tick:g}</text>'
        for tick, anchor in ((0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1, "end"))
    )
    line = ""
    if threshold is not None:
        x = left + (right - left) * min(max(threshold, 0.0), 1.0)
        anchor, shift = ("end", -4) if threshold > 0.5 else ("start", 4)
        line = (
            f'<line class="threshold" x1="{x:.1f}" x2="{x:.1f}" y1="14" y2="194"/>'
            f'<text x="{x + shift:.1f}" y="24" text-anchor="{anchor}">threshold {threshold:.2f}</text>'
        )
    description = (
        f"Unknown-scores of {counted(len(known), 'photo')} of known people, median {np.median(known):.2f}, and of "
        f"{counted(len(strange), 'photo')} of strangers, median {np.median(strange):.2f}"
    )
    return (
        f'<figure><svg class="scores" viewBox="0 0 360 232" role="img" aria-label="{description}">'
        f'{"".join(bars)}<line class="axis" x1="{left}" x2="{right}" y1="{middle}" y2="{middle}"/>{line}{ticks}'
        f'<text class="known" x="{left}" y="226">▲ known people</text>'
        '<text x="190" y="226" text-anchor="middle">unknown-score</text>'
        f'<text class="strange" x="{right}" y="226" text-anchor="end">strangers ▼</text></svg>'
        f"<figcaption>{description}. Bars show shares of each group; beyond the threshold a face is refused. The less "
        "the two overlap, the better strangers are told.</figcaption></figure>"
    )


def _surroundings(facts: RunFacts) -> str:
    background = facts.background
    if background is None:
        when = "takes held-out photos, and faces that were found (photos.faces)."
        if not facts.finished:
            when = "is measured when a training ends."
        return paragraph(
            "Not measured for this run: whether walls, clothes and light beside the faces tell these people apart, "
            f"too. It {when}"
        )
    text = findings.surroundings(background)
    rows = [
        [what, percent(share)]
        for what, share in (
            ("this model", background.plain),
            ("this model, faces hidden", background.hidden),
            ("a training with hidden faces", background.trained_hidden),
            ("always the person with the most photos", background.largest_class),
        )
        if share is not None
    ]
    return _joined(
        [
            warning(text) if background.nearly_as_well else paragraph(text),
            _table(
                f"Right of {counted(background.photos, 'held-out photo')}, nobody being refused",
                ["who answers", "right"],
                rows,
            ),
            ""
            if background.trained_hidden is not None
            else paragraph(
                "facecnn report --check-background trains with hidden faces, too, which tells more.", "soft"
            ),
        ]
    )


def _kernels(files: Mapping[str, bytes]) -> str:
    weights_and_patches = [
        _figure(
            files.get("kernels.png"),
            "png",
            "The kernels of each convolution, and what training changed of them",
            "The kernels of the model that is kept, and by how much they differ from those it began with; each picture "
            "has a scale of its own. Red weights are above zero, blue ones below; kernels that see a colour photo have "
            "its colours, and grey is zero. A kernel gives large numbers where the photo looks like it.",
            wide=True,
        ),
        _figure(
            files.get("patches.png"),
            "png",
            "For each kernel the parts of photos that excite it most",
            "What each kernel answers to: the parts of the run's photos where its output is largest, the strongest "
            "first, one of each photo. A part is all that the output depends on, so it grows from layer to layer; what "
            "lies beyond the photo's edge is left empty. Light and contrast of grey parts are evened out.",
            wide=True,
        ),
    ]
    parts = [
        f'<div class="pair">{_joined(weights_and_patches)}</div>' if any(weights_and_patches) else "",
        _figure(
            files.get("watching.png"),
            "png",
            "Each kernel's gradient norm, update ratio, share of active outputs and distance from the start, by epoch",
            "What reached each kernel as it learned. Gradient norm: how large the loss's derivative by its weights is. "
            "Update / weight: by what share of its size a step changes it. Active outputs: the share of its outputs "
            "that aren't on the flat side of the activation. Distance from start: how far it has moved, as a share of "
            "its size at the start. A kernel in red got no error to learn from (dead), or hardly moved (asleep).",
            wide=True,
            drawn=True,
        ),
    ]
    film = files.get("kernels.gif")
    if film is not None:  # folded, so that nothing moves unless it is asked for
        figure = _figure(
            film, "gif", "The kernels epoch by epoch", "The kernels from before the first step to the last."
        )
        parts.append(
            f'<details class="screen"><summary>Film of the kernels as they learned</summary>{figure}</details>'
        )
    return _joined(parts)


def _time(facts: RunFacts) -> str:
    training = facts.training
    rows = []
    if "device" in training:
        rows.append(["device", escaped(findings.device(training))])
        rows.append(["why that one", escaped(training["device_reason"])])
    rows.append(["epochs", f"{facts.epochs:,}"])
    for title, value, of in (
        ("seconds of training", facts.seconds, ""),
        ("seconds an epoch", facts.seconds_an_epoch, " (median of the epochs)"),
        ("photos a second", facts.photos_per_second, " (median of the epochs)"),
    ):
        if value is not None:
            rows.append([title, f"{float(f'{value:.3g}'):,g}{of}"])
    parts = [_table("How long it took, and where", ["what", "value"], rows, numbers=False)]
    milliseconds = training.get("milliseconds")
    if milliseconds:
        parts.append(_profile(milliseconds))
    return _joined(parts)


def _profile(milliseconds: Mapping[str, float]) -> str:
    layers: dict[str, dict[str, float]] = {}
    for place, value in milliseconds.items():
        layer, _, way = place.partition(" ")
        layers.setdefault(layer, {})[way] = value
    rows = [
        [escaped(layer), *(f"{ways[way]:.3f}" if way in ways else "" for way in _WAYS), f"{sum(ways.values()):.3f}"]
        for layer, ways in layers.items()
    ]
    sums = [sum(ways.get(way, 0.0) for ways in layers.values()) for way in _WAYS]
    rows.append(["in all", *(f"{value:.3f}" for value in (*sums, sum(sums)))])
    return _table("Milliseconds a step, medians of the epochs", ["layer", *_WAYS.values(), "in all"], rows)


def _skipped(facts: RunFacts) -> str:
    if not facts.skipped:
        return ""
    cut = f" (the first {_MOST_SKIPPED})" if len(facts.skipped) > _MOST_SKIPPED else ""
    rows = [[escaped_name(path), escaped(reason)] for path, reason in facts.skipped[:_MOST_SKIPPED]]
    return _table(f"{counted(len(facts.skipped), 'photo')}{cut}", ["photo", "why"], rows, numbers=False)


def _settings(facts: RunFacts) -> str:
    rows = [
        [
            escaped(layer["name"]),
            *("×".join(map(str, layer[key])) for key in ("input", "output")),
            f"{layer['parameters']:,}",
            f"{layer['multiply_adds']:,}",
        ]
        for layer in facts.layers
    ]
    work = sum(int(layer["multiply_adds"]) for layer in facts.layers)
    rows.append(["in all", "", "", f"{facts.parameters:,}", f"{work:,}"])
    return _joined(
        [
            paragraph(f"The network sees {facts.preparation}; it was trained by {facts.optimizer}."),
            _table(
                "Layers: rows×columns×maps in and out",
                ["layer", "input", "output", "weights", "multiply-adds"],
                rows,
            ),
            "<details><summary>All settings (config.yaml, without the folder of photos)</summary>"
            f"<pre>{html.escape(facts.settings)}</pre></details>",
        ]
    )


# Elements


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _held_out(facts: RunFacts) -> bool:
    return any(count.held_out for count in facts.photos)


def _joined(parts: Iterable[str]) -> str:
    return "\n".join(part for part in parts if part)


def _items(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _table(caption: str, titles: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True) -> str:
    """A table whose first column names the rows. Cells are HTML; a column of numbers stands to the right."""

    def kind(column: int) -> str:
        cells = [row[column] for row in rows if row[column]]
        is_number = numbers and column > 0 and all(cell[0].isdigit() or cell == "-" for cell in cells)
        return ' class="number"' if is_number and cells else ""

    kinds = [kind(column) for column in range(len(titles))]
    head = "".join(f'<th scope="col"{kinds[n]}>{title}</th>' for n, title in enumerate(titles))
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td{kinds[n]}>{cell}</td>" for n, cell in enumerate(row[1:], start=1))
        + "</tr>\n"
        for row in rows
    )
    label = html.escape(caption)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table>\n'
        f"<caption>{label}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n"
        "</table></div>"
    )


def _figure(data: bytes | None, kind: str, alt: str, caption: str, *, wide: bool = False, drawn: bool = False) -> str:
    """A picture with its caption; nothing where there is no picture. It scrolls by itself on a narrow screen, a wide
    one on one that isn't so narrow, too. One that is ``drawn`` on white is turned over on a dark page."""
    if data is None:
        return ""
    label = re.split("[.;:]", caption)[0]
    scrolling = f'<div class="scroll" role="region" tabindex="0" aria-label="{escaped(label)}">'
    size = "wide" if wide else "plain"
    image = embedded(data, kind, alt, f"{size} drawn" if drawn else size)
    hint = f'<p class="hint {size}" aria-hidden="true">The picture goes on to the right →</p>'
    return f"<figure>{scrolling}{image}</div>{hint}<figcaption>{escaped(caption)}</figcaption></figure>"
