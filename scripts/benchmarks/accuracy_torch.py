"""The program that benchmark.py times for PyTorch's way from photos to a model: facecnn's crops, and the network of a
config, trained as its recipe says.

    accuracy_torch.py train|judge PHOTOS FOLDER OPTIONS

``train`` writes the model to the folder, ``judge`` prints its accuracy on the photos. Options are JSON: config,
threads, seed, steps, batch, learning_rate and average.

The augmentation is facecnn's, on whole batches, without the blur, which would only cost time. Eager and channels_last,
since 400 training steps of 32 photos took 8.9 s with them, 10.8 s with NCHW, and 16.6 s with torch.compile, more of it
for compiling than for training (medians of three, in turns, on two AVX-512 processors).
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.torch_worker import in_order, parameter_groups
from benchmarks.work import known
from facecnn.config import load
from facecnn.config.model import Settings
from facecnn.kernels import reference
from facecnn.kernels.protocol import local_contrast_weights
from facecnn.network.layers import with_outputs
from facecnn.network.loss import CrossEntropy
from facecnn.network.network import Network
from facecnn.photos.dataset import Dataset
from facecnn.photos.preparation import AugmentSettings, PhotoSettings
from studies.album import read_album

WARM_UP = 0.05
"""Share of the steps in which the rate rises; then it falls, as half a cosine."""


class Pictures:
    """From photos with their margins to the network's input."""

    def __init__(self, settings: PhotoSettings, generator: torch.Generator) -> None:
        assert settings.normalise == "local_contrast"
        assert isinstance(settings.augment, AugmentSettings)
        self._settings, self._augment, self._generator = settings, settings.augment, generator
        weights = torch.from_numpy(np.asarray(local_contrast_weights(settings.height, settings.width), np.float32))
        self._kernels = weights.reshape(1, 1, -1, 1), weights.reshape(1, 1, 1, -1)

    def augmented(self, stored: torch.Tensor) -> torch.Tensor:
        """Vary photos at random: (N, 1, rows, columns) uint8 to (N, 1, height, width)."""
        count, ranges = len(stored), self._augment
        exponent = torch.exp(self._either_way(count, ranges.gamma)).reshape(-1, 1, 1, 1)
        contrast = 1 + self._either_way(count, ranges.contrast).reshape(-1, 1, 1, 1)
        brightness = self._either_way(count, ranges.brightness).reshape(-1, 1, 1, 1)
        tones = ((stored.float() / 255) ** exponent - 0.5) * contrast + 0.5 + brightness
        zoom = 1 + self._either_way(count, ranges.zoom)
        angle = torch.deg2rad(self._either_way(count, ranges.rotate))
        mirror = 1 - 2 * (self._random(count) < 0.5 * ranges.mirror).float()
        shift = self._either_way(2 * count, ranges.shift).reshape(2, count)
        pictures = self._normalised(self._warped(tones.clamp(0, 1), zoom, angle, mirror, shift))
        return self._erased(pictures, ranges.erase)

    def plain(self, stored: torch.Tensor, *, mirrored: bool) -> torch.Tensor:
        """As they are, or mirrored."""
        rows, columns = self._settings.margin
        inside = stored[:, :, rows : stored.shape[2] - rows, columns : stored.shape[3] - columns].float() / 255
        return self._normalised(inside.flip(3) if mirrored else inside)

    def _random(self, count: int) -> torch.Tensor:
        return torch.rand(count, generator=self._generator)

    def _either_way(self, count: int, most: float) -> torch.Tensor:
        return most * (2 * self._random(count) - 1)

    def _warped(
        self, tones: torch.Tensor, zoom: torch.Tensor, angle: torch.Tensor, mirror: torch.Tensor, shift: torch.Tensor
    ) -> torch.Tensor:
        height, width = self._settings.height, self._settings.width
        inside = width / tones.shape[3]  # the window's share of the side
        cosine, sine = inside * torch.cos(angle) / zoom, inside * torch.sin(angle) / zoom
        across = torch.stack([mirror * cosine, sine, -2 * inside * shift[0]], 1)
        down = torch.stack([-mirror * sine, cosine, -2 * inside * shift[1]], 1)
        size = [len(tones), 1, height, width]
        grid = functional.affine_grid(torch.stack([across, down], 1), size, align_corners=False)
        return functional.grid_sample(tones, grid, padding_mode="border", align_corners=False)

    def _smoothed(self, pictures: torch.Tensor) -> torch.Tensor:
        down, across = self._kernels
        radius = down.shape[2] // 2
        pictures = functional.conv2d(functional.pad(pictures, (0, 0, radius, radius), mode="replicate"), down)
        return functional.conv2d(functional.pad(pictures, (radius, radius, 0, 0), mode="replicate"), across)

    def _normalised(self, pictures: torch.Tensor) -> torch.Tensor:
        """Local contrast, as ``prepare_photos`` of facecnn's reference."""
        d = pictures - self._smoothed(pictures)
        r = self._smoothed(d * d).sqrt()
        return (d / (torch.maximum(r, r.mean((2, 3), keepdim=True) / 2) + 4 / 255)).clamp(-4, 4)

    def _erased(self, pictures: torch.Tensor, share: float) -> torch.Tensor:
        """A box of 15 to 45 % of each side becomes 0, in a share of the pictures."""
        count, _, height, width = pictures.shape
        masks = (self._random(count) < share).reshape(-1, 1, 1)
        for side, axis in ((height, 1), (width, 2)):
            length = side * (0.15 + 0.3 * self._random(count))
            start = (side - length) * self._random(count)
            place = torch.arange(side).reshape(1, -1) + 0.5
            within = (place >= start[:, None]) & (place < (start + length)[:, None])
            masks = masks & within.unsqueeze(3 - axis)
        return pictures.masked_fill(masks.unsqueeze(1), 0)


def model_of(settings: Settings, people: int, seed: int) -> nn.Sequential:
    """The config's network, with facecnn's initial weights."""
    photos = settings.photos
    shape = (photos.height, photos.width, photos.channels)
    network = Network(with_outputs(settings.network, people), shape, reference, 1, keep="outputs")
    network.initialise(seed)
    weights = {name: torch.from_numpy(array) for name, array in network.weights.to_host().items()}
    model = in_order(network.stages, weights, channels_last=True)
    return model.to(memory_format=torch.channels_last)


def stored_photos(album: Dataset) -> torch.Tensor:
    """(N, maps, rows, columns)"""
    return torch.from_numpy(np.ascontiguousarray(album.pixels[album.rows].transpose(0, 3, 1, 2)))


def train(album: Dataset, settings: Settings, options: dict[str, Any]) -> nn.Sequential:
    """Train for the recipe's steps. Returns the model with its averaged weights."""
    generator = torch.Generator().manual_seed(options["seed"])
    torch.manual_seed(options["seed"])  # for dropout
    pictures = Pictures(settings.photos, generator)
    stored, labels = stored_photos(album), torch.from_numpy(np.asarray(album.labels, np.int64))
    model = model_of(settings, len(album.classes), options["seed"]).train()
    rule = known(settings.optimizer)
    assert isinstance(settings.loss, CrossEntropy)
    optimizer = torch.optim.AdamW(parameter_groups(model, rule.weight_decay), lr=options["learning_rate"], fused=True)
    averaged = [*model.parameters(), *(buffer for buffer in model.buffers() if buffer.is_floating_point())]
    averages = [tensor.detach().clone() for tensor in averaged]
    order = torch.zeros(0, dtype=torch.int64)
    for step in range(options["steps"]):
        while len(order) < options["batch"]:
            order = torch.cat([order, torch.randperm(len(stored), generator=generator)])
        batch, order = order[: options["batch"]], order[options["batch"] :]
        for group in optimizer.param_groups:
            group["lr"] = options["learning_rate"] * factor(step, options["steps"])
        optimizer.zero_grad(set_to_none=True)
        x = pictures.augmented(stored[batch]).contiguous(memory_format=torch.channels_last)
        functional.cross_entropy(model(x), labels[batch], label_smoothing=settings.loss.label_smoothing).backward()
        optimizer.step()
        get_ema_multi_avg_fn(min(options["average"], (1 + step) / (10 + step)))(averages, averaged, 0)
    with torch.no_grad():
        for tensor, average in zip(averaged, averages, strict=True):
            tensor.copy_(average)
    return model


def factor(step: int, steps: int) -> float:
    """Factor of the learning rate in a step, from 0 up: the schedule ``cosine`` of facecnn."""
    rising = round(WARM_UP * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


def judge(model: nn.Sequential, album: Dataset, settings: Settings) -> float:
    """The share of photos whose likeliest person is right, by the mean of a photo and its mirror image."""
    pictures, stored = Pictures(settings.photos, torch.Generator()), stored_photos(album)
    with torch.inference_mode():
        both = [model.eval()(pictures.plain(stored, mirrored=mirrored)).log_softmax(1) for mirrored in (False, True)]
    return float((sum(both).argmax(1).numpy() == album.labels).mean())


def main() -> None:
    job, photos, folder, options = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4])
    torch.set_num_threads(options["threads"])
    settings = load(options["config"]).settings
    album, _ = read_album(photos, settings.photos, options["threads"])
    file = folder / "model.pt"
    if job == "train":
        torch.save(train(album, settings, options).state_dict(), file)
        return
    model = model_of(settings, len(album.classes), 0)
    model.load_state_dict(torch.load(file))
    print(json.dumps({"closed_set_accuracy": judge(model, album, settings), "photos": len(album.labels)}))


if __name__ == "__main__":
    main()
