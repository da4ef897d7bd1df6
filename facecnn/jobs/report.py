"""Write report.html and MODEL_CARD.md of a run, when its training ends and whenever they are asked for."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from facecnn import __version__
from facecnn.arrays import Array
from facecnn.config import load, to_yaml
from facecnn.errors import CheckpointError, FacecnnError, PhotoError, UsageError, shown
from facecnn.jobs.background import judge_background, train_on_background
from facecnn.jobs.console import Console
from facecnn.jobs.devices import open_and_show
from facecnn.jobs.judgement import JudgedPhotos, judge_photos, verdicts
from facecnn.jobs.models import UNFINISHED, Model, open_model
from facecnn.jobs.plotting import Plotter
from facecnn.jobs.run_pictures import draw_pictures
from facecnn.jobs.shown_photos import show_photos
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.photos import TrainingPhotos, read_photos_again
from facecnn.jobs.training.setup import open_for_training
from facecnn.network.size import layer_rows
from facecnn.photos.dataset import Dataset, load_dataset
from facecnn.photos.folder import UNKNOWN, class_order
from facecnn.photos.roster import NO_CHANGES, Roster
from facecnn.recognition import Recogniser
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
from facecnn.reports.report import choose_answers, write_model_card, write_report
from facecnn.reports.summary import has_old_accuracy
from facecnn.runs.checkpoint import find_checkpoint
from facecnn.runs.folder import RunFolder, read_json, write_json
from facecnn.runs.metrics import read_metrics


def report_training(
    run: RunFolder,
    metrics: Sequence[Mapping[str, Any]],
    model: Model,
    data: TrainingPhotos,
    held_out: JudgedPhotos,
    result: Mapping[str, Any],
    plotter: Plotter | None,
) -> None:
    """Write figures.json, report.html and MODEL_CARD.md of a run whose training has ended.

    ``metrics`` has a record for each epoch, ``result`` is the ``train`` JSON. ``plotter`` draws pictures of the page;
    None: figures.json is all that is written. Raises OutputError.
    """
    dataset = data.dataset
    skipped = [[photo.path, photo.reason] for photo in dataset.skipped]
    if data.skipped > len(skipped):
        of_validation = f"{data.skipped - len(skipped)} photos, named when the training began"
        skipped.append(["in the folder of held-out photos", of_validation])
    figures = {
        "facecnn": __version__,
        "ended": time.strftime("%Y-%m-%d"),
        "training": {key: value for key, value in result.items() if key != "run"},
        **_recorded(model.recogniser, held_out),
        "skipped": skipped,
    }
    write_json(run.figures_path, figures)
    if plotter is None:
        return
    facts = _facts(run, metrics, model, figures)
    write_model_card(run, facts)
    photos = show_photos(held_out.dataset, choose_answers(facts.held_out.answers).all)
    plotter.finish()
    write_report(run, facts, photos)


def report(
    path: Path,
    console: Console,
    *,
    check_background: bool = False,
    device: str = "auto",
    threads: int | None = None,
) -> dict[str, Any]:
    """Write report.html and MODEL_CARD.md of a run again.

    A run that hasn't ended is judged as it stands, and the pictures that its end would draw are drawn. Where the photos
    can't be read, the report is made without them, and says so.

    ``check_background``: first train on the run's photos with the faces hidden, with ``threads`` on ``device``, and
    write background.json.

    Returns:
        The ``report`` JSON.

    Raises:
        CheckpointError: the run is missing or damaged; with ``check_background``, it hasn't ended.
        OutputError: the files can't be written, or a training run is writing to the folder.
        UsageError: ``check_background``, and the run's faces weren't found or are hidden anyway.
        FacecnnError: ``check_background``; as from ``train``.
    """
    run = RunFolder.open(path)
    with run:
        console.info(f"Run: {shown(run.path)}")
        if check_background:
            _check_background(run, TrainOptions(device=device, threads=threads), console)
        return _report(run, console)


def _check_background(run: RunFolder, options: TrainOptions, console: Console) -> None:
    """Measure how well training without faces does, on their surroundings alone, and write background.json."""
    device = open_for_training(options, console)
    model = open_model(find_checkpoint(run.path), device.backend, options.threads)
    if not model.calibrated:
        raise CheckpointError(f"{shown(run.path)}: --check-background needs a finished run. {UNFINISHED}")
    if model.settings.photos.hide_face:
        raise UsageError(f"{shown(run.path)}: --check-background hides the faces, and this run's are hidden anyway")
    if model.finder is None:
        raise UsageError(
            f"{shown(run.path)}: --check-background hides the faces, and this run's were cropped to the middle, not "
            "found: train with photos.faces required"
        )
    loaded = load(str(run.config_path))
    data = read_photos_again(run.read_split(), run.path, None, loaded, model.finder, False, console)
    likeliest = model.recogniser.answers(data.validation.pixels, data.validation.rows, threshold=None).likeliest
    measured = judge_background(model.recogniser, loaded.settings.photos, data, likeliest)
    if measured is None:
        raise PhotoError(f"{shown(run.path)}: --check-background needs held-out photos of the people, and has none")
    measured = replace(measured, trained_hidden=train_on_background(loaded, data, device, console))
    write_json(run.background_path, asdict(measured))
    if measured.nearly_as_well:
        console.warning(findings.only_surroundings(measured))


def _report(run: RunFolder, console: Console) -> dict[str, Any]:
    model = open_model(find_checkpoint(run.path), open_and_show("cpu", None, console).backend)
    figures = read_json(run.figures_path) if model.calibrated else None
    missing = []
    held_out: _HeldOut | None = None
    try:
        held_out = _read_held_out(run, model, console)
    except FacecnnError as error:
        missing.append(f"The photos couldn't be read, so the report shows none of them ({error}).")
    outdated = figures is not None and has_old_accuracy(figures)
    if outdated and held_out is None:
        figures = {**(figures or {}), "held_out": None, "answers": []}
        missing.append("Its figures were noted by an earlier version, which counted otherwise, so they are left out.")
    elif held_out is not None and (figures is None or outdated):
        judged = judge_photos(model.recogniser, held_out.dataset, held_out.chosen)
        skipped = [[photo.path, photo.reason] for photo in held_out.dataset.skipped]
        figures = {**(figures or {}), **_recorded(model.recogniser, judged), "skipped": skipped}
        if held_out.gone:
            missing.append(
                f"{findings.counted(held_out.gone, 'held-out photo')} gone, or with other contents than when the "
                "run was started: not in what follows."
            )
    metrics = read_metrics(run.metrics_path)
    facts = _facts(run, metrics, model, figures or {}, missing)
    for sentence in missing:
        console.warning(sentence)
    plotter = Plotter()
    draw_pictures(
        run,
        metrics,
        model,
        None if facts.held_out.judged is None else (facts.held_out.judged, "held-out"),
        None if held_out is None else held_out.dataset,
        # Missing ones, and in an unfinished run all; but not the animation of the kernels.
        [path for path in run.picture_paths if path != run.evolution_path and not (model.calibrated and path.exists())]
        + [run.confusion_path] * outdated,
        console,
        plotter,
    )
    plotter.finish()
    chosen = choose_answers(facts.held_out.answers).all
    pictures = {} if held_out is None else show_photos(held_out.dataset, chosen)
    write_report(run, facts, pictures)
    write_model_card(run, facts)
    return {
        "run": str(run.path),
        "finished": facts.training.finished,
        "report": str(run.report_path),
        "model_card": str(run.card_path),
        "photos": {"shown": len(pictures), "missing": len({answer.sha256 for answer in chosen}) - len(pictures)},
        "background": None if facts.background is None else asdict(facts.background),
        "missing": missing,
    }


@dataclass(frozen=True)
class _HeldOut:
    """The held-out photos of a run, as they are now."""

    dataset: Dataset
    chosen: Array
    """Their numbers in the data set."""
    gone: int
    """How many are missing, or have other contents."""


def _read_held_out(run: RunFolder, model: Model, console: Console) -> _HeldOut:
    split = run.read_split()
    folder = split.get("validation_folder") or load(str(run.config_path)).settings.photos.folder
    if folder is None:
        raise UsageError(f"{shown(run.config_path)}: photos.folder is empty")
    with console.counting("Reading photos") as progress:
        dataset = load_dataset(
            folder,
            model.settings.photos,
            progress,
            finder=model.finder,
            for_training=False,
            roster=Roster.from_record(split) if split.get("validation_folder") is None else NO_CHANGES,
        )
    wanted: Mapping[str, str] = split["validation"]
    there = zip(dataset.paths, dataset.sha256, strict=True)
    chosen = np.array([n for n, (path, digest) in enumerate(there) if wanted.get(path) == digest], np.int64)
    others = {dataset.classes[label] for label in dataset.labels[chosen]} - set(model.recogniser.classes)
    if others:
        raise PhotoError(f"{shown(folder)}: the model doesn't know {', '.join(sorted(map(shown, others)))}")
    return _HeldOut(dataset, chosen, len(wanted) - len(chosen))


def _recorded(recogniser: Recogniser, judged: JudgedPhotos) -> dict[str, Any]:
    """The part of figures.json about the held-out photos: figures, calibration, and every answer."""
    found = verdicts(recogniser, judged.answers, judged.labels)
    said, unknown_scores = recogniser.labels(judged.answers), judged.answers.unknown_scores.tolist()
    columns = (judged.numbers, judged.labels, found.face, found.first, found.faces)
    return {
        "calibration": asdict(recogniser.calibration),
        "held_out": judged.figures if len(judged.numbers) else None,
        "answers": [
            asdict(
                Answer(
                    path=shown(judged.dataset.paths[number]),
                    sha256=judged.dataset.sha256[number],
                    truth=recogniser.classes[label],
                    label=said[face][0],
                    confidence=said[face][1],
                    unknown_score=unknown_scores[face],
                    faces=faces,
                    face=face - first,
                )
            )
            for number, label, face, first, faces in zip(*(column.tolist() for column in columns), strict=True)
        ],
    }


def _facts(
    run: RunFolder,
    metrics: Sequence[Mapping[str, Any]],
    model: Model,
    figures: Mapping[str, Any],
    missing: Sequence[str] = (),
) -> RunFacts:
    """Gather the facts; ``figures`` are those of figures.json, fewer or none if the run is unfinished."""
    try:
        split, background = run.read_split(), read_json(run.background_path)
        return RunFacts(
            name=run.path.resolve().name,
            version=figures.get("facecnn", __version__),
            photos=PhotoFacts(
                counts=_counts(model.recogniser.classes, split),
                own_validation=split.get("validation_folder") is None,
                skipped=[(path, reason) for path, reason in figures.get("skipped", [])],
                spectators=sum(map(len, split.get("spectators", {}).values())),
            ),
            network=_network_facts(model),
            training=TrainingFacts(
                finished=model.calibrated,
                ended=figures.get("ended"),
                epochs=len(metrics),
                best_epoch=model.best_epoch,
                seconds=_of_epochs(metrics, "seconds", np.sum),
                seconds_an_epoch=_of_epochs(metrics, "seconds", np.median),
                photos_per_second=_of_epochs(metrics, "photos_per_second", np.median),
                result=figures.get("training", {}),
            ),
            held_out=_held_out_facts(figures, metrics, model.best_epoch),
            calibration=_calibration_facts(figures.get("calibration") or {}),
            background=None if background is None else Background(**background),
            missing=missing,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{shown(run.path)}: {run.split_path.name}, {run.figures_path.name} or {run.background_path.name} isn't as "
            f"facecnn wrote it ({error!r}): delete {run.figures_path.name}, which is then made again from the photos"
        ) from error


def _counts(classes: Sequence[str], split: Mapping[str, Any]) -> list[PhotoCount]:
    of = {side: Counter(path.partition("/")[0] for path in split[side]) for side in ("train", "validation")}
    counts = [PhotoCount(name, of["train"][name], of["validation"][name]) for name in sorted(classes, key=class_order)]
    # A model that knows strangers by their distance has an output for them without photos of any.
    return [count for count in counts if count.name != UNKNOWN or count.trained_on or count.held_out]


def _network_facts(model: Model) -> NetworkFacts:
    settings, photos = model.settings, model.settings.photos
    colour = "grey" if photos.colour == "grey" else "RGB"
    part = "the middle of each photo" if model.finder is None else "the face, found and aligned by eyes, nose and mouth"
    return NetworkFacts(
        settings=to_yaml(replace(settings, photos=replace(photos, folder=None)), comments=False),
        preparation=f"{photos.height}×{photos.width} {colour} pixels of {part} (normalise: {photos.normalise})",
        layers=layer_rows(model.recogniser.network.stages),
        optimizer=settings.optimizer.name,
    )


def _held_out_facts(figures: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], best_epoch: int) -> HeldOutFacts:
    judged = figures.get("held_out")
    if judged is not None:  # in natural order: s2 before s10
        judged = {**judged, "per_class": sorted(judged["per_class"], key=lambda row: class_order(row["name"]))}
    best = next((row for row in metrics if row["epoch"] == best_epoch), {})
    return HeldOutFacts(
        judged=judged,
        answers=[Answer(**answer) for answer in figures.get("answers", [])],
        logged_accuracy=best.get("validation_accuracy"),
        alike=[(one, other) for one, other in (judged or {}).get("alike", [])],
    )


def _calibration_facts(calibration: Mapping[str, Any]) -> CalibrationFacts:
    """``calibration``: as in figures.json; older versions recorded less."""
    known = {field.name for field in fields(CalibrationFacts)}
    return CalibrationFacts(**{key: value for key, value in calibration.items() if key in known})


def _of_epochs(metrics: Sequence[Mapping[str, Any]], key: str, gathered: Callable[[list[float]], Any]) -> float | None:
    values = [row[key] for row in metrics if row.get(key) is not None]
    return float(gathered(values)) if values else None
