"""A run's figures in plain words. Names in the sentences aren't escaped: that is up to the caller."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from facecnn.photos.folder import UNKNOWN, class_order
from facecnn.reports.facts import Background, PhotoFacts, RunFacts, confused_pairs

FEW_PHOTOS = 20
"""With fewer held-out photos, an accuracy says little."""
FEW_TRAINED_ON = 30
"""With fewer photos of a person, there are probably looks that the model hasn't seen."""
UNEQUAL = 2.0
"""Ratio of two people's numbers of photos that counts as unequal."""
MOST_PEOPLE = 200
"""People in the tables of a report and a model card."""
MOST_ALIKE = 10
"""Pairs of people who can't be told apart that are named one by one."""
WEAK_SEPARATION, STRONG_SEPARATION = 0.7, 0.95
"""Areas under the ROC curve below which a score hardly spots strangers, and above which it spots them well."""


_CAMERA = (
    "Hiding the faces can't show whether it goes by the camera or the compression, whose traces are on the faces, too: "
    "where a person's photos come from a camera of their own, try it on photos from another."
)


def percent(share: float) -> str:
    """``97.6 %``; only 0 and 1 become 0 % and 100 %."""
    text = f"{100 * share:.1f}"
    if text == "100.0" and share < 1:
        text = "99.9"
    if text == "0.0" and share > 0:
        text = "0.1"
    return f"{text.removesuffix('.0')}\N{NO-BREAK SPACE}%"


def confidence(share: float) -> str:
    """``99.5 %``; never 100 %, since no number of photos proves that a model is never wrong."""
    return f"{100 * min(share, 0.999):.1f} %"


def area_under_roc(area: float) -> str:
    """``0.973``; only a perfect score becomes 1."""
    return "1" if area == 1 else f"{min(area, 0.999):.3f}"


def listed(words: list[str], most: int = 6) -> str:
    """``a, b and c``; of more than ``most``, the first and the number of others."""
    if len(words) > most:
        return f"{', '.join(words[:most])} and {len(words) - most} more"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def isolated(text: str, names: Iterable[str], before: str, after: str) -> str:
    """``text`` with ``before`` and ``after`` around each right-to-left name.

    With Unicode's or HTML's isolation there, such a name doesn't reorder the text around it.
    """
    for name in names:
        if any(unicodedata.bidirectional(character) in ("R", "AL") for character in name):
            text = text.replace(name, f"{before}{name}{after}")
    return text


def counted(number: int, what: str, plural: str | None = None) -> str:
    """``1 photo``, ``2 photos``, ``1,234 photos``."""
    return f"{number:,} {what if number == 1 else plural or what + 's'}"


def trained_for(facts: RunFacts) -> str:
    """Whose photos the model was trained on, and how many."""
    photos, people = facts.photos, facts.photos.people
    tells = f"tells {len(people):,} people apart" if len(people) != 1 else "recognises 1 person"
    text = (
        f"This network {tells}: "
        f"{listed([f'{count.name} ({count.trained_on})' for count in people])}. It was "
        f"{'made from' if facts.network.by_distance else 'trained on'} "
        f"{counted(sum(count.trained_on for count in people), 'photo')} of them"
    )
    if photos.strangers is not None and not facts.network.by_distance:
        text += f", besides {counted(photos.strangers.trained_on, 'photo')} of strangers"
    if photos.spectators:
        text += f" and {counted(photos.spectators, 'face')} beside the people that are like none of them"
    return f"{text}."


def accuracy(facts: RunFacts) -> str:
    """How many held-out photos are named right, and what to expect of others."""
    judged, logged = facts.held_out.judged, facts.held_out.logged_accuracy
    if judged is None or judged["accuracy"] is None:
        if logged is not None:
            strangers = ", strangers counted as one more name" if facts.photos.strangers is not None else ""
            return (
                f"By the log of its training it named {percent(logged)} of "
                f"{counted(facts.photos.held_out, 'held-out photo')} right{strangers}."
            )
        if any(count.held_out for count in facts.photos.people):
            return "How good it is on new photos wasn't measured: its held-out photos couldn't be read."
        return "No photos of the people were held out, so how good it is on new photos isn't known."
    known = judged["known"]
    low, high = map(percent, judged["interval"])
    seen = "seen" if facts.network.by_distance else "been trained on"
    text = (
        f"Of {counted(known['photos'], 'photo')} of these people that it had not {seen}, it names "
        f"{known['named_right']} right ({percent(judged['accuracy'])}), refuses {known['refused']} as a stranger's, "
        f"and names {known['named_wrong']} wrong. "
    )
    if (several := several_faces(judged)) is not None:
        text += f"{several}. "
    if known["photos"] < FEW_PHOTOS:
        return f"{text}So few photos say little: the true share named right may be anything from {low} to {high}."
    return f"{text}On other photos like these, expect {low} to {high} to be named right."


def several_faces(judged: Mapping[str, Any], which: str = "of these") -> str | None:
    """How the people's photos with several faces were judged (the ``eval`` JSON); None if there are none, or the
    figures are of an older version."""
    several = judged.get("several")
    if not several or not several["photos"]:
        return None
    show = "shows" if several["photos"] == 1 else "show"
    return (
        f"{several['photos']} {which} {show} several faces: {several['named_right']} named right, "
        f"{several['named_wrong']} wrong, {several['refused']} refused"
    )


def with_one_face(judged: Mapping[str, Any]) -> tuple[int, int]:
    """How many photos of people, and of strangers, show one face: log loss, calibration error and ROC are theirs."""
    several, unknown = judged.get("several") or {"photos": 0}, judged["unknown"] or {"photos": 0}
    return judged["known"]["photos"] - several["photos"], unknown["photos"] - unknown.get("several", 0)


def closed_set(facts: RunFacts) -> str | None:
    """The closed-set accuracy; None if it wasn't measured."""
    judged = facts.held_out.judged
    if judged is None or judged["closed_set_accuracy"] is None:
        return None
    return (
        f"If nobody were refused, {percent(judged['closed_set_accuracy'])} would be named right: the likeliest person, "
        "whatever the threshold for strangers says (closed_set_accuracy)."
    )


def against_largest(facts: RunFacts) -> str | None:
    """A warning if always naming one person would do about as well."""
    judged = facts.held_out.judged
    if judged is None or judged["accuracy"] is None or len(facts.photos.people) < 2:
        return None
    largest = max(judged["per_class"], key=lambda row: row["support"])
    share = largest["support"] / judged["known"]["photos"]
    if judged["closed_set_interval"][0] > share:
        return None
    return (
        f"Even if it refused nobody, it wouldn't be clearly better than always naming {largest['name']}, which would "
        f"be right in {percent(share)} of these photos."
    )


def strangers(facts: RunFacts) -> str:
    """How the model treats strangers."""
    unknown = None if facts.held_out.judged is None else facts.held_out.judged["unknown"]
    calibration = facts.calibration
    has_threshold = calibration.threshold is not None
    if facts.network.by_distance and unknown is None:
        return (
            "It knows strangers by how far they are from its people, and needs no photos of any: its threshold was "
            f"chosen on other people's faces so that about {percent(calibration.false_accept_rate or 0)} of strangers "
            "are named. On your photos, that was never measured."
        )
    if facts.photos.strangers is None and not facts.network.by_distance:
        what = "it has no threshold, so it names every stranger as one of its people."
        if has_threshold:
            what = (
                "its threshold only makes sure that its own people are kept, so expect it to name most strangers as "
                "one of its people."
            )
        text = f"It was never shown strangers, and how it treats them was never measured: {what}"
        return " ".join([text, *highest_confidence(calibration.highest_confidence, calibration.photos)])
    if unknown is None:
        text = (
            "It was trained with strangers, but no photos of strangers were judged, so how well it spots them was "
            "never measured"
        )
        return f"{text}." if has_threshold else f"{text}; it has no threshold and refuses nobody."
    count, area = counted(unknown["photos"], "held-out photo"), unknown["auroc"]
    if not has_threshold:
        return f"It has no threshold, so it names every stranger as one of its people ({count} of strangers tried)."
    if unknown["photos"] == 1:
        text = f"Of 1 held-out photo of a stranger it refused {unknown['refused']}. "
    else:
        share = percent(unknown["refused"] / unknown["photos"])
        text = f"Of {count} of strangers it refused {unknown['refused']} ({share}). "
    if area is None:
        return f"{text}There were no photos of its people to compare with."
    if unknown["photos"] < FEW_PHOTOS:
        return f"{text}So few photos of strangers say little."
    curve = f"area under the ROC curve {area_under_roc(area)}"
    if tells_strangers_badly(facts):
        return (
            f"{text}Its score hardly tells strangers from its people ({curve}; 0.5 is a coin): don't rely on it to "
            "notice that somebody is unknown."
        )
    if area < STRONG_SEPARATION:
        return f"{text}Its score tells many strangers, but not reliably ({curve})."
    return (
        f"{text}Its score tells strangers like these well ({curve}); others may look less like those that it was "
        "trained with."
    )


def tells_strangers_badly(facts: RunFacts) -> bool:
    """Whether the scores of strangers are hardly above the people's."""
    unknown = None if facts.held_out.judged is None else facts.held_out.judged["unknown"]
    return unknown is not None and unknown["auroc"] is not None and unknown["auroc"] < WEAK_SEPARATION


def threshold(facts: RunFacts) -> str:
    """The threshold for strangers, and what it rests on."""
    calibration = facts.calibration
    if calibration.threshold is None:
        return "none is set"
    value = f"{calibration.threshold:.4f}"
    if facts.network.by_distance:
        rate = percent(calibration.false_accept_rate or 0)
        return f"{value}, by the distances between other people's faces, so that about {rate} of strangers are named"
    if facts.photos.strangers is None:
        photos = counted(calibration.photos, "held-out photo")
        return f"{value}, which names nearly all of {photos} of its people; strangers played no part in it"
    if calibration.false_accept_rate is None:
        return f"{value}, an even chance: too few photos of strangers were held out to measure it"
    strangers = counted(calibration.strangers, "held-out photo")
    rate = percent(calibration.false_accept_rate)
    return f"{value}, by {strangers} of strangers, so that about {rate} of strangers are named"


def highest_confidence(highest: float | None, photos: int) -> list[str]:
    """The limit of an answer's confidence, set by ``photos`` held-out photos of known people, if there is one."""
    if highest is None:
        return []
    return [
        f"No answer claims more than {confidence(highest)} confidence, even about a stranger: "
        f"{counted(photos, 'held-out photo')} of its people can't carry more."
    ]


def surroundings(background: Background) -> str:
    """How much of the accuracy is due to the faces."""
    parts = [f"with the faces hidden this model is right in {percent(background.hidden)}"]
    if background.trained_hidden is not None:
        parts.append(f"a training that never saw a face is right in {percent(background.trained_hidden)}")
    text = (
        f"If nobody is refused, it names {percent(background.plain)} of {counted(background.photos, 'held-out photo')} "
        f"right; {', and '.join(parts)}; always naming the person with the most photos is right in "
        f"{percent(background.largest_class)}. "
    )
    if background.plain <= background.largest_class:
        return text + "So it has learned nothing useful from these photos."
    if background.nearly_as_well:
        return text + (
            "The surroundings do nearly as well as the faces: walls, clothes and light differ from person to person in "
            "these photos. On photos of other occasions, expect it to do worse, and train on photos from many places. "
            f"{_CAMERA}"
        )
    return f"{text}So most of what it goes by lies where the face is. {_CAMERA}"


def only_surroundings(background: Background) -> str:
    """A warning that the surroundings do nearly as well as the faces."""
    hidden, plain, largest = (
        f"{100 * share:.0f} %" for share in (background.best_hidden, background.plain, background.largest_class)
    )
    return (
        f"with the faces blanked the likeliest person is still the right one in {hidden} of {background.photos} "
        f"held-out photos ({plain} as they are, {largest} by always naming the most frequent person): this model goes "
        "by hair, clothes and walls, too; take photos of everybody in many places, and with the same cameras: it "
        "may also go by camera and compression, which this can't see"
    )


def people_alike(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """A warning for each pair of people whom the model can't tell apart, up to ``MOST_ALIKE``."""
    found = [
        f"It can't tell {one} from {other}: their held-out photos get either name, whoever it is. If they are one "
        "person, move all the photos into one folder and train again; if not, add photos of both in which they differ."
        for one, other in pairs[:MOST_ALIKE]
    ]
    if len(pairs) > MOST_ALIKE:
        found.append(f"There are {counted(len(pairs) - MOST_ALIKE, 'more pair')} of people whom it can't tell apart.")
    return found


def never_judged(facts: RunFacts) -> list[str]:
    """Which people have no held-out photo, while others do."""
    none = [count.name for count in facts.photos.people if not count.held_out]
    if not none or len(none) == len(facts.photos.people):
        return []
    return [f"No photo of {listed(none)} was held out, so nobody knows how well it knows them."]


def limits(facts: RunFacts) -> list[str]:
    """The model's limits, and what wasn't tested, the most serious first."""
    found = []
    if not facts.training.finished:
        found.append(
            "Its training hasn't ended: its figures are those so far, its confidence isn't calibrated, and it has no "
            "threshold for strangers yet."
        )
    if (weak := against_largest(facts)) is not None:
        found.append(weak)
    if facts.background is not None and facts.background.nearly_as_well:
        found.append("What is around the faces tells these people apart nearly as well as the faces do.")
    found += people_alike(facts.held_out.alike)
    found.append(strangers(facts))
    found += never_judged(facts)
    found += _few_photos(facts.photos)
    found += _flattering(facts)
    photos = facts.calibration.photos
    if facts.training.finished and photos < FEW_PHOTOS and not facts.network.by_distance:
        by = f"rests on {counted(photos, 'held-out photo')}" if photos else "isn't calibrated"
        found.append(f"Its confidence {by}: {percent(0.9)} need not mean right nine times in ten.")
    if facts.background is None:
        found.append("How much it goes by the surroundings instead of the faces wasn't measured.")
    return found


def _few_photos(photos: PhotoFacts) -> list[str]:
    """Warnings of too few photos of a person, or of unequal numbers."""
    found = []
    fewest = min(photos.people, key=lambda count: count.trained_on)
    most = max(photos.people, key=lambda count: count.trained_on)
    if fewest.trained_on < FEW_TRAINED_ON:
        found.append(
            f"It has seen few photos of some people ({counted(fewest.trained_on, 'photo')} of {fewest.name}): other "
            "light, other ages, glasses, beards and turned heads may be named wrong."
        )
    if most.trained_on >= UNEQUAL * max(fewest.trained_on, 1):
        found.append(
            f"It has seen {most.name} more often than {fewest.name} ({most.trained_on} and {fewest.trained_on} "
            "photos), and leans to whom it has seen more."
        )
    return found


def _flattering(facts: RunFacts) -> list[str]:
    """Why the accuracy may be too optimistic."""
    judged = facts.held_out.judged
    if judged is None or judged["accuracy"] is None:
        return []
    found = []
    rows = [row for row in judged["per_class"] if row["recall"] is not None]
    weakest = min(rows, key=lambda row: row["recall"])
    if weakest["recall"] < judged["accuracy"] - 0.1:
        found.append(
            f"It is worst at {weakest['name']}: {percent(weakest['recall'])} of {counted(weakest['support'], 'photo')} "
            "named right."
        )
    own = "come from the same folder, perhaps from the same occasions, and " if facts.photos.own_validation else ""
    refuses = "" if facts.calibration.threshold is None else " and whom it refuses"
    if facts.network.by_distance:
        if own:
            found.append(
                "The held-out photos come from the same folder, perhaps from the same occasions, so these figures "
                "are optimistic. Photos of other days and places are the real test."
            )
        return found
    tuned = f" and set how sure it is{refuses}" if facts.calibration.photos else ""
    found.append(
        f"The held-out photos {own}also decided which epoch was kept{tuned}, so these figures are optimistic. Photos "
        "of other days and places are the real test."
    )
    return found


def confusions(facts: RunFacts) -> list[tuple[str, str, int]]:
    """Pairs (truth, answer, photos) of people who were confused, the most frequent first, without refusals."""
    if facts.held_out.judged is None:
        return []
    names = facts.held_out.judged["classes"]
    pairs = [
        (names[truth], names[answer], photos)
        for truth, answer, photos in confused_pairs(facts.held_out.judged)
        if truth != answer and answer < len(names)
    ]
    return sorted(pairs, key=lambda pair: -pair[2])


def listed_people(per_class: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """The people of a table: all in natural order of their names; of more than ``most`` those known worst, the one with
    the lowest F1 first, and of equal ones that with most photos. People without photos that nobody is taken for come
    last."""
    by_name = sorted(per_class, key=lambda row: class_order(row["name"]))
    if len(by_name) <= most:
        return by_name
    return sorted(by_name, key=lambda row: (2.0 if row["f1"] is None else row["f1"], -row["support"]))[:most]


def is_stranger(name: str) -> bool:
    """Whether a class is that of strangers."""
    return name == UNKNOWN


def profile_rows(milliseconds: Mapping[str, float]) -> list[tuple[str, list[str]]]:
    """The table of ``train --profile``.

    ``milliseconds``: per step, by layer and pass: ``conv1 forward``; what runs once a step has no pass. Returns a name
    and five texts for each layer, and for all of them: once, forward, backward to weights, backward to input, in all.
    """
    passes = ("", "forward", "backward_weight", "backward")
    layers: dict[str, dict[str, float]] = {}
    for name, value in milliseconds.items():
        layer, _, which = name.partition(" ")
        layers.setdefault(layer, {})[which] = value
    if not layers:
        return []
    sums = {which: sum(times.get(which, 0.0) for times in layers.values()) for which in passes}
    return [
        (layer, [*(f"{times[which]:.3f}" if which in times else "" for which in passes), f"{sum(times.values()):.3f}"])
        for layer, times in [*layers.items(), ("in all", sums)]
    ]


def device(training: Mapping[str, Any]) -> str:
    """The device of a training run, from the ``train`` JSON: ``cpu (AMD EPYC, 2 threads)``."""
    description = training.get("device_description")
    return f"{training['device']} ({description})" if description else str(training["device"])
