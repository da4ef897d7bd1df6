"""Find a learning rate: a range test from fresh weights, and the largest stable rate by the loss's curvature."""

from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from facecnn.config import Loaded, load, shipped, to_yaml
from facecnn.config.source import read
from facecnn.config.tree import Location, Tree
from facecnn.errors import OutputError, UsageError, shown
from facecnn.jobs.console import Console
from facecnn.jobs.models import Model, open_model
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.photos import TrainingPhotos, read_photos
from facecnn.jobs.training.setup import make_trainer, open_for_training
from facecnn.kernels import Device
from facecnn.learning.curvature import Curvature, curvature_product, largest_curvature, largest_stable_rate
from facecnn.learning.full_batch import FullBatchStep
from facecnn.learning.full_batch_optimizers import FullBatchOptimizer, LineSearch
from facecnn.learning.lr_find import HIGHEST, LOWEST, Ramp, RangeTest, gather, range_test, suggested_rate
from facecnn.learning.optimizers import AnyOptimizer, ClassMeans
from facecnn.reports.plots import draw_range_test
from facecnn.runs.atomic import write_atomically

TESTS = 3
"""Range tests, each with different weights and another order of the photos; their mean is used."""
CURVATURE_PHOTOS = 128
"""Photos, at most, whose loss the curvature is measured for."""


def lr_find(
    loaded: Loaded,
    options: TrainOptions,
    *,
    steps: int,
    model: Path | None,
    plot: Path,
    config: str,
    write: Path | None,
    console: Console,
) -> dict[str, Any]:
    """Suggest a learning rate, and draw the range test. Returns the ``lr-find`` JSON.

    Args:
        steps: of each range test.
        model: a checkpoint file: use its settings, not ``loaded``, and measure the curvature at its weights.
        config: the name or path that ``loaded`` was read from.
        write: the file for a copy of the config with the suggested rate.

    Raises:
        UsageError: the optimizer has no learning rate, the photos are of other people than the model's, or a config
            can't be written to ``write``.
        FacecnnError: as from ``train``.
    """
    device = open_for_training(options, console)
    trained = None if model is None else open_model(model, device.backend, options.threads)
    if trained is not None:
        loaded = Loaded(trained.settings, Tree.at_one_location({}, Location(0, 0, 0, shown(trained.path))))
    optimizer = _optimizer_with_rate(loaded)
    if write is not None:
        refuse_to_write(write, config)
    data = read_photos(loaded, options, console)
    if trained is not None:
        _refuse_other_people(trained, data)
    test = _range_test(loaded, optimizer, data, device, steps, console)
    curvature, photos = _curvature(loaded, data, device, trained, console)
    plain, own = (largest_stable_rate(curvature.largest, rule) for rule in (None, optimizer))
    suggestion = suggested_rate(test, None if own is None or model is not None else curvature.largest)
    draw_range_test(plot, test.rates, test.single, test.smooth, test.diverged, _marks(suggestion, plain, own))
    if write is not None:
        if suggestion is None:
            raise OutputError(f"{shown(write)}: not written, as no rate made the loss fall: see {shown(plot)}")
        found = replace(optimizer, learning_rate=suggestion)
        write_atomically(write, with_rate(loaded, config if model is None else None, found).encode())
    return {
        "device": device.name,
        "device_reason": device.reason,
        "photos": len(data.train_indices),
        "optimizer": optimizer.name,
        "learning_rate": optimizer.learning_rate,
        "suggestion": suggestion,
        "range_test": _figures(test, steps),
        "curvature": {**asdict(curvature), "photos": photos, "weights": None if model is None else str(model)},
        "largest_stable_rate": {"gradient_descent": plain, "optimizer": own},
        "plot": str(plot),
        "written": None if write is None else str(write),
    }


def _refuse_other_people(trained: Model, data: TrainingPhotos) -> None:
    if list(trained.recogniser.classes) != data.classes:
        raise UsageError(
            f"{shown(trained.path)} knows other people than {shown(data.dataset.folder)}: give the photos it was "
            "trained on"
        )


def _optimizer_with_rate(loaded: Loaded) -> AnyOptimizer:
    """The optimizer of the settings. Raises UsageError if it has no learning rate."""
    optimizer = loaded.settings.optimizer
    if isinstance(optimizer, ClassMeans):
        raise UsageError(
            f"{loaded.where(('optimizer', 'name'))}: the optimizer class_means makes no steps: there is no learning "
            "rate to look for"
        )
    if isinstance(optimizer, FullBatchOptimizer):
        raise UsageError(
            f"{loaded.where(('optimizer', 'name'))}: the optimizer {optimizer.name} finds the length of each step "
            "itself: there is no learning rate to look for"
        )
    return optimizer


def _marks(suggestion: float | None, plain: float | None, own: float | None) -> list[tuple[float, str]]:
    """The rates to mark in the picture: the suggestion, and the largest stable ones of gradient descent and of the
    optimizer."""
    marks = [] if suggestion is None else [(suggestion, f"suggested: {suggestion:g}")]
    if plain is not None:
        marks.append((plain, f"2 / largest curvature: {plain:.2g}"))
    if own is not None and own != plain:
        marks.append((own, f"with momentum: {own:.2g}"))
    return marks


def _figures(test: RangeTest, steps: int) -> dict[str, Any]:
    return {
        "tests": TESTS,
        "steps": steps,
        "rates": test.rates[: len(test.smooth)].tolist(),
        "losses": test.smooth.tolist(),
        "low": None if test.low is None else list(test.low),
        "middle": test.middle,
        "diverged_at": float(test.rates[len(test.smooth) - 1]) if test.diverged else None,
    }


def _range_test(
    loaded: Loaded, optimizer: AnyOptimizer, data: TrainingPhotos, device: Device, steps: int, console: Console
) -> RangeTest:
    settings = loaded.settings
    console.info(f"Range test: {TESTS} times {steps} steps from fresh weights, rates from {LOWEST:g} to {HIGHEST:g}")
    results = []
    with console.counting("Range test") as progress:
        for number in range(TESTS):
            rising = replace(
                settings,
                optimizer=replace(optimizer, learning_rate=HIGHEST),
                schedule=Ramp(length=steps),
                train=replace(settings.train.for_epochs(steps), seed=(settings.train.seed + number) % 2**32),
            )
            trainer = make_trainer(replace(loaded, settings=rising), data.dataset, data.training, device)
            size, before = trainer.batch_size, number * steps
            results.append(
                range_test(trainer, steps, lambda done: progress((before + done) * size, TESTS * steps * size))  # noqa: B023
            )
    return gather(results, steps)


def _curvature(
    loaded: Loaded, data: TrainingPhotos, device: Device, trained: Model | None, console: Console
) -> tuple[Curvature, int]:
    """The curvature at fresh weights or those of a model, and the number of photos it was measured with."""
    settings, training = loaded.settings, data.training
    if len(training.photos) > CURVATURE_PHOTOS:
        generator = np.random.Generator(np.random.Philox(key=[settings.train.seed, 2**33]))
        training = training.part(np.sort(generator.choice(len(training.photos), CURVATURE_PHOTOS, replace=False)))
    # Training with a full-batch optimizer provides the deterministic loss as a function of the weights.
    deterministic = replace(settings, optimizer=LineSearch(), train=replace(settings.train, restarts=1))
    trainer = make_trainer(replace(loaded, settings=deterministic), data.dataset, training, device)
    if trained is not None:
        trainer.network.weights.from_host(trained.recogniser.network.weights.to_host())
    assert isinstance(trainer.step, FullBatchStep)
    loss = trainer.step.loss
    w = loss.here().w
    count = len(training.photos)
    console.info(f"Curvature: of the loss of {count} photos, not augmented, without dropout")
    with console.counting("Curvature") as progress:
        curvature = largest_curvature(
            curvature_product(loss, w),
            len(w),
            settings.train.seed,
            progress=lambda done, most: progress(done * count, most * count),
        )
    if not curvature.converged:
        console.warning(
            f"the curvature hasn't converged after {curvature.products} products: take it, and the "
            "largest stable rate, as an order of magnitude"
        )
    return curvature, count


def refuse_to_write(path: Path, config: str) -> None:
    """Raise UsageError where ``path`` is a shipped config, or a file other than ``config``."""
    known = shipped()
    if str(path) in known or any(path.exists() and path.samefile(file) for file in known.values()):
        raise UsageError(
            f"--write {shown(path)}: a config that comes with facecnn, which stays as it is: give a file name, "
            f"such as {shown(path.stem)}-rate.yaml"
        )
    if path.exists() and not (config not in known and Path(config).exists() and path.samefile(config)):
        raise UsageError(f"--write {shown(path)}: there is such a file: give the name of a new one, or of the config")


def with_rate(loaded: Loaded, config: str | None, optimizer: AnyOptimizer) -> str:
    """The text of a settings file with another learning rate.

    Args:
        config: the file they were read from. Its text and comments are kept where its settings are those of ``loaded``;
            otherwise the text has every option.
        optimizer: that of ``loaded``, with the new rate.
    """
    settings = loaded.settings
    if config is None or load(config).settings != settings:
        return to_yaml(replace(settings, optimizer=optimizer))
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 4096, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(type(None), lambda to, _: to.represent_scalar("tag:yaml.org,2002:null", "null"))
    tree = yaml.load(read(shipped().get(config, config), []))
    tree.setdefault("optimizer", {})["learning_rate"] = optimizer.learning_rate
    text = StringIO()
    yaml.dump(tree, text)
    return text.getvalue()
