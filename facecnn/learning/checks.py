"""Checks that the settings of training fit each other, the photos and the network."""

import math
from collections.abc import Collection

from facecnn.errors import UsageError
from facecnn.learning.data import TrainingData, TrainingSettings
from facecnn.learning.step import Step
from facecnn.network.loss import CrossEntropy
from facecnn.network.network import Network
from facecnn.network.stages import all_layers


def check_settings(
    settings: TrainingSettings, data: TrainingData, step: Step, initial_arrays: Collection[str] = ()
) -> None:
    """Raise UsageError for settings with which training is impossible, or could never meet its stopping rule.

    ``initial_arrays``: names of arrays that are taken from another model.
    """
    train, network = settings.train, step.arrays.network
    if train.stop_after_epochs_without_gain is not None and not len(data.validation):
        raise UsageError(
            "train.stop_after_epochs_without_gain: there are no held-out photos whose loss could fall: raise "
            "photos.validation, or leave it out"
        )
    if train.stop_when_worst_loss_below is not None and not isinstance(settings.loss, CrossEntropy):
        raise UsageError(
            "train.stop_when_worst_loss_below: the cross-entropy is meant, which mean_squared_error does not bring "
            "down: leave it out, or take the loss cross_entropy"
        )
    if train.restarts > 1 and train.restart_epochs > step.epochs:
        raise UsageError(
            f"train.restart_epochs {train.restart_epochs}: longer than the training itself, which has {step.epochs} "
            "epochs: take fewer"
        )
    if len(data.train_indices) // step.steps_per_epoch <= 1:
        _check_single_photos(network, train.batch_size, len(data.train_indices))
    if train.restarts > 1 and _drawn(network) <= set(initial_arrays):
        raise UsageError(
            f"train.restarts {train.restarts}: all initial weights are taken from another model, so there are no "
            "others to try: leave it at 1"
        )
    if not network.trained_ranges():
        raise UsageError(f"train.freeze {train.freeze}: no layer is left to train: freeze fewer")


def _check_single_photos(network: Network, batch_size: int, photos: int) -> None:
    """Batch norm over units needs at least two photos: the standard deviation of a single number is 0."""
    for stage in all_layers(network.stages[network.first_trained :]):
        if stage.layer.uses_batch_statistics and math.prod(stage.shape[:-1]) == 1:
            raise UsageError(
                f"train.batch_size {batch_size}: with {photos} photos to train on there are batches of one photo, of "
                f"which {stage.name} can learn nothing: take a larger batch_size, or leave batch_norm of units out"
            )


def _drawn(network: Network) -> set[str]:
    """Names of the arrays whose initial values are random."""
    return {
        f"{stage.name}.{name}"
        for stage in all_layers(network.stages)
        for name, parameter in stage.parameters.items()
        if parameter.start == "random"
    }
