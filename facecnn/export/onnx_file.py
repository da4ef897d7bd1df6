"""A model as an ONNX file: from crops to answers, all in the graph, as ``facecnn predict`` gives them for one face."""

import json
import math
from typing import Any

from onnx import checker

from facecnn import __version__
from facecnn.export.graph import FLOAT, INT64, UINT8, Graph
from facecnn.export.model import ExportedModel, describe
from facecnn.export.onnx_layers import add_stage
from facecnn.kernels.protocol import MIRROR, SHIFT_X, SHIFT_Y, local_contrast_weights
from facecnn.network.inference import views_at_test_time

INPUT = "crops"
OUTPUTS = ("label", "confidence", "probabilities", "unknown_score")


def onnx_bytes(model: ExportedModel) -> bytes:
    """The file's contents; equal models give equal bytes."""
    graph = Graph()
    x = _views(graph, model)
    x = _normalised(graph, model, x)
    views = len(views_at_test_time(model.mirror, model.shift))
    logs = _log_probabilities(graph, model, x, views)
    _answers(graph, model, logs)
    metadata = {key: json.dumps(value, allow_nan=False) for key, value in describe(model).items()}
    made = graph.model(
        "recogniser",
        __version__,
        {INPUT: (UINT8, ["faces", *model.input_shape])},
        {
            "label": (INT64, ["faces"]),
            "confidence": (FLOAT, ["faces"]),
            "probabilities": (FLOAT, ["faces", len(model.people)]),
            "unknown_score": (FLOAT, ["faces"]),
        },
        metadata,
    )
    checker.check_model(made, full_check=True)
    return bytes(made.SerializeToString(deterministic=True))


def signature(model: ExportedModel) -> dict[str, Any]:
    """Input and outputs of the graph, as in the ``export`` JSON; each shape begins with the number of faces."""
    people = len(model.people)
    return {
        "input": {"name": INPUT, "dtype": "uint8", "shape": ["faces", *model.input_shape]},
        "outputs": [
            {"name": "label", "dtype": "int64", "shape": ["faces"]},
            {"name": "confidence", "dtype": "float32", "shape": ["faces"]},
            {"name": "probabilities", "dtype": "float32", "shape": ["faces", people]},
            {"name": "unknown_score", "dtype": "float32", "shape": ["faces"]},
        ],
    }


def _views(graph: Graph, model: ExportedModel) -> str:
    """All test-time views of the crops, one after another: (views * N, C, H, W), from 0 to 1.

    A shift moves all pixels by the same fraction, so reading between them means a weighted mean of two windows that lie
    one pixel apart. The margin holds what comes into view.
    """
    graph.scope = "views/"
    planes = graph.add("Transpose", graph.add("Cast", INPUT, to=FLOAT), perm=[0, 3, 1, 2])
    planes = graph.add("Div", planes, graph.numbers(255))
    sides = (model.photos.height, model.photos.width)
    windows = []
    for view in views_at_test_time(model.mirror, model.shift):
        window = planes
        for axis, column in ((3, SHIFT_X), (2, SHIFT_Y)):
            side = sides[axis - 2]
            window = _moved(graph, window, axis, model.margin[axis - 2] - float(view[column]) * side, side)
        if view[MIRROR]:
            ends = graph.integers(-1), graph.integers(-sides[1] - 1)
            window = graph.add("Slice", window, *ends, graph.integers(3), graph.integers(-1))
        windows.append(window)
    return graph.add("Concat", *windows, axis=0) if len(windows) > 1 else windows[0]


def _moved(graph: Graph, x: str, axis: int, start: float, side: int) -> str:
    """``side`` rows or columns from ``start`` on, which may lie between two of them."""
    first = math.floor(start)
    after = start - first
    cuts = [
        graph.add("Slice", x, graph.integers(place), graph.integers(place + side), graph.integers(axis))
        for place in ((first, first + 1) if after else (first,))
    ]
    if not after:
        return cuts[0]
    weighted = [
        graph.add("Mul", cut, graph.numbers(share)) for cut, share in zip(cuts, (1 - after, after), strict=True)
    ]
    return graph.add("Add", *weighted)


def _normalised(graph: Graph, model: ExportedModel, x: str) -> str:
    """The normalisation of ``prepare_photos`` in ``facecnn.kernels.reference``."""
    graph.scope = "normalise/"
    height, width, channels = model.photos.shape
    if model.normalise == "standardise":
        centred = graph.add("Sub", x, _mean(graph, x, (3, 2, 1)))
        deviation = graph.add("Sqrt", _mean(graph, graph.add("Mul", centred, centred), (3, 2, 1)))
        least = graph.numbers(1 / math.sqrt(height * width * channels))
        return graph.add("Div", centred, graph.add("Max", deviation, least))
    if model.normalise == "local_contrast":
        d = graph.add("Sub", x, _blurred(graph, x, model))
        r = graph.add("Sqrt", _blurred(graph, graph.add("Mul", d, d), model))
        half = graph.add("Mul", _mean(graph, r, (3, 2)), graph.numbers(0.5))
        scale = graph.add("Add", graph.add("Max", r, half), graph.numbers(4 / 255))
        return graph.add("Clip", graph.add("Div", d, scale), graph.numbers(-4), graph.numbers(4))
    return x


def _mean(graph: Graph, x: str, axes: tuple[int, ...]) -> str:
    """The mean over axes, one after another: ONNX Runtime adds up in float32, where a sum of 150,000 numbers is off by
    1 in 10,000."""
    for axis in axes:
        x = graph.add("ReduceMean", x, axes=[axis], keepdims=1)
    return x


def _blurred(graph: Graph, x: str, model: ExportedModel) -> str:
    """The Gaussian of local contrast, along rows and columns, the border repeated."""
    height, width, channels = model.photos.shape
    weights = local_contrast_weights(height, width)
    reach = len(weights) // 2
    for axis in (0, 1):
        edges = [reach * (axis == 0), reach * (axis == 1)]
        padded = graph.add("Pad", x, graph.integers(0, 0, *edges, 0, 0, *edges), mode="edge")
        shape = (len(weights), 1) if axis == 0 else (1, len(weights))
        kernel = weights.reshape(1, 1, *shape).repeat(channels, axis=0)
        x = graph.add("Conv", padded, graph.numbers(kernel), kernel_shape=shape, group=channels)
    return x


def _log_probabilities(graph: Graph, model: ExportedModel, x: str, views: int) -> str:
    """Log-probabilities (N, outputs), the mean over the views, not calibrated."""
    after_mean = 2 if model.by_embeddings else 0  # unit_length and dense
    stages = model.stages
    for stage in stages[: len(stages) - after_mean]:
        x = add_stage(graph, stage, x, model.arrays)
    graph.scope = "mean/"
    (units,) = stages[len(stages) - after_mean - 1].out_shape
    x = graph.add("Reshape", x, graph.integers(views, -1, units))
    if not model.by_embeddings:
        x = graph.add("LogSoftmax", x, axis=2)
    x = graph.add("ReduceMean", x, axes=[0], keepdims=0)
    for stage in stages[len(stages) - after_mean :]:
        x = add_stage(graph, stage, x, model.arrays)
    graph.scope = "answer/"
    return graph.add("LogSoftmax", x, axis=1)


def _answers(graph: Graph, model: ExportedModel, logs: str) -> None:
    """Calibrated answers, as ``Recogniser.answers_from`` and ``Recogniser.describe`` have them."""
    calibration, people, outputs = model.calibration, len(model.people), len(model.classes)
    scaled = graph.add("Div", logs, graph.numbers(calibration.temperature))
    scaled = graph.add("Sub", scaled, graph.numbers(calibration.biases(outputs, people)))
    of_people = scaled
    if outputs > people:
        of_people = graph.add("Slice", scaled, graph.integers(0), graph.integers(people), graph.integers(1))
    graph.add("Softmax", of_people, axis=1, output="probabilities")
    best = graph.add("ArgMax", of_people, axis=1, keepdims=1)
    is_best = graph.add("Equal", best, graph.integers(*range(outputs)))
    # Not 1 - p, which loses small differences if p is almost 1.
    rest = graph.add("Where", is_best, graph.numbers(0), graph.add("Softmax", scaled, axis=1))
    graph.add("ReduceSum", rest, graph.integers(1), keepdims=0, output="unknown_score")
    named = graph.add("Sub", graph.numbers(1), "unknown_score")
    if calibration.highest_confidence is not None:
        named = graph.add("Min", named, graph.numbers(calibration.highest_confidence))
    name = graph.add("Squeeze", best, graph.integers(1))
    threshold = 2.0 if calibration.threshold is None else calibration.threshold  # no score is above 1
    refused = graph.add("Greater", "unknown_score", graph.numbers(threshold))
    graph.add("Where", refused, graph.integers(people), name, output="label")
    graph.add("Where", refused, "unknown_score", named, output="confidence")
