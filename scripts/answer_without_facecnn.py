"""Who is in a photo? Answers with a model that ``facecnn export`` wrote, and imports nothing of facecnn.

This is an example to copy from: NumPy and Pillow are all that a .npz file needs, an .onnx file also needs ONNX Runtime.
The answer is that of ``facecnn predict`` for a photo with one face; docs/EXPORT.md explains the file.

A model that was trained without finding faces takes the middle of the photo. Any other needs to know where the eyes,
the nose and the corners of the mouth are, from any detector of five landmarks (--landmarks), or a finished crop
(--crop). For models with photos.align: dlib only crops will do, such as those of dlib's get_face_chip(…, 150, 0.25).
"""

# mypy: disable-error-code=no-any-return

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageOps

Array = np.ndarray[Any, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a .npz or .onnx file")
    parser.add_argument("photo")
    parser.add_argument("--crop", action="store_true", help="the photo is a crop of the model's size")
    what = "of the left eye in the picture, the right one, the nose, the left and the right corner of the mouth"
    parser.add_argument("--landmarks", type=float, nargs=10, metavar="N", help=f"x and y, in pixels, {what}")
    arguments = parser.parse_args()
    model: dict[str, Any] = {}
    if arguments.model.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(arguments.model)
        described = {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}
    else:
        model = dict(np.load(arguments.model))
        described = json.loads(model.pop("description").tobytes())
    photo = ImageOps.exif_transpose(Image.open(arguments.photo))
    photo = photo.convert("L" if described["preparation"]["colour"] == "grey" else "RGB")
    crop = photo if arguments.crop else cut_out(photo, described["preparation"], arguments.landmarks)
    pixels = np.atleast_3d(np.asarray(crop, np.uint8))
    names = [*described["people"], "unknown"]
    if model:
        answer = answer_by(described, model, pixels)
    else:
        outputs = ("label", "confidence", "probabilities", "unknown_score")
        answer = {
            key: value[0] for key, value in zip(outputs, session.run(outputs, {"crops": pixels[None]}), strict=True)
        }
    probabilities = dict(zip(names, answer["probabilities"].tolist(), strict=False))
    scores = {key: float(answer[key]) for key in ("confidence", "unknown_score")}
    print(json.dumps({"label": names[int(answer["label"])], "probabilities": probabilities, **scores}))


def cut_out(photo: Image.Image, preparation: dict[str, Any], landmarks: Sequence[float] | None) -> Image.Image:
    """The crop with its margin, from the middle of the photo or aligned on a face."""
    crop, margin = preparation["crop"], preparation["margin"]
    rows, columns = (preparation[side] + 2 * more for side, more in zip(("height", "width"), margin, strict=True))
    if crop["kind"] == "centre":
        scale = crop["share"] * min(photo.size) / max(preparation["height"], preparation["width"])
        sides = np.array([columns, rows]) * scale
        start = (np.array(photo.size) - sides) / 2
        part, first = part_of(photo, start, start + sides, math.ceil(3 * max(scale, 1)) + 1)
        box = (*(start - first).tolist(), *(start + sides - first).tolist())
        return part.resize((columns, rows), Image.Resampling.LANCZOS, box)
    if landmarks is None or crop["kind"] == "dlib":
        raise SystemExit(f"this model knows aligned faces ({crop['kind']}): give --landmarks (not for dlib) or --crop")
    template, found = np.array(crop["landmarks"]), np.reshape(landmarks, (5, 2))
    # In complex numbers a factor turns and scales: the least squares of (factor * template + shift - found).
    a, b = (points @ (1, 1j) for points in (template - template.mean(axis=0), found - found.mean(axis=0)))
    factor = np.vdot(a, b) / np.vdot(a, a).real
    turn = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    origin = found.mean(axis=0) - turn @ template.mean(axis=0)
    reduction = max(1, int(abs(factor) / 8))  # of a huge photo
    samples = max(1, math.ceil(abs(factor) / reduction))  # along a side of each pixel
    corners = origin + np.array([(0, 0), (columns, 0), (0, rows), (columns, rows)]) @ turn.T
    part, first = part_of(photo, corners.min(axis=0), corners.max(axis=0), 3 * reduction)
    if reduction > 1:
        part = part.reduce(reduction)
    step, shift = turn / (samples * reduction), (origin - first) / reduction
    data = (step[0, 0], step[0, 1], shift[0], step[1, 0], step[1, 1], shift[1])
    size = (columns * samples, rows * samples)
    return part.transform(size, Image.Transform.AFFINE, data, Image.Resampling.BICUBIC).reduce(samples)


def part_of(photo: Image.Image, low: Array, high: Array, reach: int) -> tuple[Image.Image, Array]:
    """The part between two corners and ``reach`` pixels more, the photo's border repeated beyond it; and its corner."""
    first, end = np.floor(low).astype(int) - reach, np.ceil(high).astype(int) + reach
    pixels = np.asarray(photo)
    columns, rows = (np.clip(np.arange(first[i], end[i]), 0, photo.size[i] - 1) for i in (0, 1))
    return Image.fromarray(pixels[np.ix_(rows, columns)]), first


def answer_by(described: dict[str, Any], weights: Mapping[str, Array], pixels: Array) -> dict[str, Any]:
    """The answer for a crop with its margin, (H, W, C) uint8."""
    preparation, views, calibration = described["preparation"], described["views"], described["calibration"]
    x = normalised(seen(pixels / np.float32(255), preparation, views), preparation["normalise"])
    layers = described["layers"]
    last = len(layers) - (2 if views["averaged"] == "embeddings" else 0)
    x = run(layers[:last], weights, x)
    if views["averaged"] == "embeddings":
        logs = run(layers[last:], weights, x.mean(axis=0, keepdims=True))[0].astype(float)
    else:
        logs = log_softmax(x.astype(float)).mean(axis=0)
    people = len(described["people"])
    scaled = log_softmax(logs) / calibration["temperature"]
    scaled[people:] -= calibration["stranger_bias"]
    odds, of_people = np.exp(log_softmax(scaled)), np.exp(log_softmax(scaled[:people]))
    best = int(of_people.argmax())
    score = np.delete(odds, best).sum()
    refused = calibration["threshold"] is not None and score > calibration["threshold"]
    most = 1.0 if calibration["highest_confidence"] is None else calibration["highest_confidence"]
    confidence = score if refused else min(1 - score, most)
    label = people if refused else best
    return {"label": label, "confidence": confidence, "probabilities": of_people, "unknown_score": score}


def seen(crop: Array, preparation: dict[str, Any], views: dict[str, Any]) -> Array:
    """The window, moved in four directions and mirrored: (views, height, width, C)."""
    height, width = preparation["height"], preparation["width"]
    shift = views["shift"]
    moves = [(0, 0), (shift, 0), (-shift, 0), (0, shift), (0, -shift)] if shift else [(0, 0)]
    windows = []
    for down, along in moves:
        window = crop
        for axis, move, side in ((0, down, height), (1, along, width)):
            start = preparation["margin"][axis] - move * side
            first = math.floor(start)
            near, far = (
                np.take(window, np.arange(side) + min(first + i, window.shape[axis] - side), axis) for i in (0, 1)
            )
            window = near + np.float32(start - first) * (far - near)
        windows.append(window)
    if views["mirror"]:
        windows += [window[:, ::-1] for window in windows]
    return np.stack(windows)


def normalised(x: Array, how: str) -> Array:
    """Photos (N, H, W, C) from 0 to 1, normalised one by one."""
    if how == "standardise":
        x = x - x.mean(axis=(1, 2, 3), keepdims=True)
        return x / np.maximum(x.std(axis=(1, 2, 3), keepdims=True), 1 / math.sqrt(x[0].size))
    if how == "local_contrast":
        sigma = 0.06 * min(x.shape[1:3])
        distances = np.arange(-max(1, round(3 * sigma)), max(1, round(3 * sigma)) + 1)
        gaussian = np.exp(-0.5 * (distances / sigma) ** 2).astype(x.dtype)
        gaussian /= gaussian.sum()
        x = x - blurred(x, gaussian)
        deviation = np.sqrt(blurred(x * x, gaussian))
        least = deviation.mean(axis=(1, 2), keepdims=True) / 2
        return np.clip(x / (np.maximum(deviation, least) + np.float32(4 / 255)), -4, 4)
    return x


def blurred(x: Array, weights: Array) -> Array:
    """Rows and columns of (N, H, W, C) convolved with symmetric weights, the border repeated."""
    for axis in (1, 2):
        ends = [(len(weights) // 2,) * 2 if a == axis else (0, 0) for a in range(4)]
        x = sliding_window_view(np.pad(x, ends, mode="edge"), len(weights), axis) @ weights
    return x


def run(layers: list[dict[str, Any]], weights: Mapping[str, Array], x: Array) -> Array:
    """The outputs of layers for x: maps (N, H, W, C) or units (N, U)."""
    for layer in layers:
        name = f"{layer['name']}."
        own = {key.removeprefix(name): array for key, array in weights.items() if key.startswith(name)}
        x = outputs_of(layer, layer["settings"], own, x)
    return x


def outputs_of(layer: dict[str, Any], own: dict[str, Any], w: dict[str, Array], x: Array) -> Array:
    """The outputs of one layer, with its settings and weights."""
    match layer["layer"]:
        case "conv":
            rows, columns = w["weight"].shape[1:3]
            if own["padding"] == "same":
                before, after = ((rows - 1) // 2, (columns - 1) // 2), (rows // 2, columns // 2)
                x = np.pad(x, ((0, 0), (before[0], after[0]), (before[1], after[1]), (0, 0)))
            down, along = np.broadcast_to(own["stride"], 2)
            windows = sliding_window_view(x, (rows, columns), (1, 2))[:, ::down, ::along]
            x = activated(
                np.tensordot(windows, w["weight"], ((4, 5, 3), (1, 2, 3))) + w["bias"], own["activation"], own
            )
            return pooled(x, "max", (own["pool"],) * 2, (own["pool"],) * 2, layer["output"]) if own["pool"] else x
        case "pool":
            return pooled(x, own["kind"], own["size"], own["stride"], layer["output"])
        case "activation":
            return activated(x, own["name"], own)
        case "prelu":
            return np.where(x > 0, x, w["slope"] * x)
        case "batch_norm":
            deviation = np.sqrt(w["running_variance"] + np.float32(own["epsilon"]))
            return (x - w["running_mean"]) / deviation * w["scale"] + w["shift"]
        case "neuron":
            return (np.einsum("nhwk,mhwk->nmk", x, w["weight"], optimize=True) + w["bias"]).reshape(len(x), -1)
        case "dense":
            return x.reshape(len(x), -1) @ w["weight"].T + w["bias"]
        case "unit_length":
            return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        case "dropout":
            return x
        case "residual":
            shortcuts = [inner for inner in own["layers"] if inner["name"] == "shortcut"]
            branch = [inner for inner in own["layers"] if inner["name"] != "shortcut"]
            total = np.zeros((len(x), *layer["output"]), x.dtype)
            for part in (run(branch, w, x), run(shortcuts, w, x)):
                total[tuple(map(slice, part.shape))] += part
            return activated(total, own["activation"], own)
    raise SystemExit(f"{layer['layer']}: a layer that this script doesn't know")


def activated(x: Array, kind: str, settings: dict[str, Any]) -> Array:
    match kind:
        case "identity":
            return x
        case "relu" | "leaky_relu":
            return np.where(x > 0, x, np.float32(settings["slope"] if kind == "leaky_relu" else 0) * x)
        case "tanh":
            return np.tanh(x)
        case "sigmoid":
            return 0.5 * (1 + np.tanh(0.5 * x))
        case "gelu":
            return 0.5 * x * (1 + np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2)))
    raise SystemExit(f"{kind}: an activation that this script doesn't know")


def pooled(x: Array, kind: str, size: Sequence[int], stride: Sequence[int], output: Sequence[int]) -> Array:
    """The largest or the mean element of each window; what is beyond the edge doesn't count."""
    over = [max(0, (output[i] - 1) * stride[i] + size[i] - x.shape[1 + i]) for i in (0, 1)]
    x = np.pad(x, ((0, 0), (0, over[0]), (0, over[1]), (0, 0)), constant_values=np.nan)
    windows = sliding_window_view(x, tuple(size), (1, 2))[:, :: stride[0], :: stride[1]]
    return (np.nanmax if kind == "max" else np.nanmean)(windows, axis=(4, 5))


def log_softmax(x: Array) -> Array:
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


if __name__ == "__main__":
    main()
