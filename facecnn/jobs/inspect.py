"""What a model consists of."""

from pathlib import Path
from typing import Any

from facecnn.jobs.models import open_model
from facecnn.jobs.run_pictures import conv_kernels
from facecnn.kernels import open_device
from facecnn.network.size import layer_rows, measure
from facecnn.reports.kernel_pictures import DrawnKernels, draw_kernels


def inspect(path: Path, picture: Path | None) -> dict[str, Any]:
    """Describe a checkpoint file, and draw its kernels to ``picture`` (the ``inspect`` JSON).

    Raises CheckpointError, OutputError.
    """
    model = open_model(path, open_device("cpu", None).backend)
    recogniser, photos = model.recogniser, model.settings.photos
    stages = recogniser.network.stages
    size = measure(stages, model.settings.train.batch_size)
    convolutions = [DrawnKernels(name, kernels) for name, kernels in conv_kernels(recogniser).items()]
    if picture is not None and convolutions:
        draw_kernels(picture, convolutions)
    return {
        "model": str(path),
        "classes": list(recogniser.classes),
        "input": {
            "height": photos.height,
            "width": photos.width,
            "colour": photos.colour,
            "normalise": photos.normalise,
        },
        "best_epoch": model.best_epoch,
        "trained_on": len(model.trained_on),
        "temperature": recogniser.calibration.temperature,
        "stranger_bias": recogniser.calibration.stranger_bias,
        "threshold": recogniser.calibration.threshold,
        "calibrated_on": recogniser.calibration.photos,
        "strangers_calibrated_on": recogniser.calibration.strangers,
        "false_accept_rate": recogniser.calibration.false_accept_rate,
        "by_embeddings": recogniser.answers_by_embeddings,
        "highest_confidence": recogniser.calibration.highest_confidence,
        "layers": layer_rows(stages),
        "parameters": size.parameters,
        "parameter_bytes": 4 * size.parameters,
        "multiply_adds": size.multiply_adds,
        "training_bytes": size.training_bytes,
        "batch_size": model.settings.train.batch_size,
        "kernels": str(picture) if picture is not None and convolutions else None,
    }
