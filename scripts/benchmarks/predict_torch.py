"""Says who is in a photo, with a model that facecnn has trained but by PyTorch alone. benchmark.py times it beside
``facecnn predict``, from the start of the process to the answer.

    predict_torch.py PHOTO MODEL.safetensors [--threads N] [--device cpu|cuda]

Written as a user of PyTorch would write it, for the layers of the default config. It looks at the photo once, at its
middle, where facecnn takes the mean over several views; so the label is the same, and the confidence nearly the same.
It imports nothing from facecnn, which would cost time and memory.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn
from torch.nn import functional

ACTIVATIONS = {
    "identity": lambda slope: nn.Identity(),
    "relu": lambda slope: nn.ReLU(inplace=True),
    "leaky_relu": lambda slope: nn.LeakyReLU(slope, inplace=True),
}


class Neurons(nn.Module):
    """Neurons that each see one whole map."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.permute(0, 3, 1, 2)), nn.Parameter(bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (torch.einsum("nchw,mchw->nmc", x, self.weight) + self.bias).flatten(1)


def build(layers: list[dict[str, Any]], arrays: dict[str, torch.Tensor]) -> nn.Sequential:
    """Build a config's ``network``, with its weights."""
    modules: list[nn.Module] = []
    numbers: dict[str, int] = {}
    for entry in layers:
        ((kind, settings),) = entry.items()
        numbers[kind] = numbers.get(kind, 0) + 1
        prefix = f"model.{kind}{numbers[kind]}."
        own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        modules += modules_of(kind, settings, own)
    return nn.Sequential(*modules).eval()


def modules_of(kind: str, settings: dict[str, Any], own: dict[str, torch.Tensor]) -> Iterator[nn.Module]:
    """The modules of one layer; facecnn stores weights as (kernel, row, column, map)."""
    match kind:
        case "conv":
            kernels, size, _, maps = own["weight"].shape
            conv = nn.Conv2d(maps, kernels, size, settings.get("stride", 1), settings["padding"])
            conv.load_state_dict({"weight": own["weight"].permute(0, 3, 1, 2), "bias": own["bias"]})
            yield conv
            yield ACTIVATIONS[settings["activation"]](settings["slope"])
            if settings["pool"] is not None:
                yield nn.MaxPool2d(settings["pool"])
        case "batch_norm":
            yield Norm(own, settings["epsilon"])
        case "neuron":
            yield Neurons(own["weight"], own["bias"])
            yield ACTIVATIONS[settings["activation"]](settings["slope"])
        case "activation":
            yield ACTIVATIONS[settings["name"]](settings["slope"])
        case "dense":
            dense = nn.Linear(own["weight"].shape[1], own["weight"].shape[0])
            dense.load_state_dict(own)
            yield dense
            yield ACTIVATIONS[settings["activation"]](settings["slope"])
        case "dropout":
            pass
        case _:
            raise NotImplementedError(f"this script has no {kind}")


class Norm(nn.Module):
    """Batch norm of maps or of units, with running statistics."""

    def __init__(self, own: dict[str, torch.Tensor], epsilon: float) -> None:
        super().__init__()
        self.own, self.epsilon = own, epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        own = self.own
        return functional.batch_norm(
            x, own["running_mean"], own["running_variance"], own["scale"], own["shift"], eps=self.epsilon
        )


def prepare(path: str, photos: dict[str, Any]) -> torch.Tensor:
    """Resize and normalise the photo's middle: (1, maps, rows, columns)."""
    image = Image.open(path).convert("L" if photos["colour"] == "grey" else "RGB")
    side, half = photos["size"], photos["crop"] * min(image.size) / 2
    x, y = image.width / 2, image.height / 2
    image = image.resize((side, side), Image.Resampling.LANCZOS, box=(x - half, y - half, x + half, y + half))
    pixels = torch.from_numpy(np.asarray(image, np.float32) / 255).reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if photos["normalise"] == "standardise":
        return (pixels - pixels.mean()) / pixels.std(correction=0)
    if photos["normalise"] == "local_contrast":
        difference = pixels - blurred(pixels)
        deviation = blurred(difference**2).sqrt()
        floor = deviation.mean((2, 3), keepdim=True) / 2
        return (difference / (torch.maximum(deviation, floor) + 4 / 255)).clip(-4, 4)
    return pixels


def blurred(x: torch.Tensor) -> torch.Tensor:
    """Blur with the Gaussian of local contrast: sigma is 0.06 of the side, and the border is repeated."""
    sigma = 0.06 * x.shape[-1]
    radius = max(1, round(3 * sigma))
    weights = torch.tensor([math.exp(-0.5 * (i / sigma) ** 2) for i in range(-radius, radius + 1)])
    weights = (weights / weights.sum()).expand(x.shape[1], 1, 1, -1)
    for kernel, padding in ((weights, (radius, radius, 0, 0)), (weights.transpose(2, 3), (0, 0, radius, radius))):
        x = functional.conv2d(functional.pad(x, padding, mode="replicate"), kernel, groups=x.shape[1])
    return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo")
    parser.add_argument("model")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    with safe_open(options.model, "pt") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys() if name.startswith("model.")}  # noqa: SIM118
    settings, classes = json.loads(metadata["settings"]), json.loads(metadata["classes"])
    arrays = {name: array.to(options.device) for name, array in arrays.items()}
    with torch.inference_mode():
        model = build(settings["network"], arrays).to(options.device)
        probabilities = torch.softmax(model(prepare(options.photo, settings["photos"]).to(options.device)), 1)[0].cpu()
    best = int(probabilities.argmax())
    print(json.dumps({"label": classes[best], "confidence": float(probabilities[best])}))


if __name__ == "__main__":
    main()
