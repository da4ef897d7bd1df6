"""How large a network is: parameters, memory and operations, computed from shapes alone."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from facecnn.errors import UsageError
from facecnn.kernels.protocol import Normalise
from facecnn.network.stages import Stage

TRAINING_COPIES = 7
"""Arrays of the parameters' size in training: weights, gradient, clipped or noisy gradient, average, two of the
optimizer, one for saving (or, on a card, for a micro-batch's gradient)."""

CARD_SHARE = 0.9
"""Share of a card's free memory that is used: the rest is for compiled kernels."""

_BLURRED = 2.5
"""Arrays of the input's size that local contrast needs at most: two blurred ones, and sums."""

_SMALL_SCRATCH = 2**18
"""Bytes for the sums of batch norm, PReLU and clipping."""

MOST_ELEMENTS = 2**31 - 1
"""Maximum elements of an array on a card. To find the map or photo of an element, kernels divide 32-bit numbers,
because 64-bit divisions are slow. With 2^32 elements or more (17 GB, which large cards have) numbers would wrap around,
and results would be silently wrong."""


@dataclass(frozen=True)
class Size:
    """Sizes in elements and bytes (float32)."""

    parameters: int
    multiply_adds: int
    """In one photo's forward pass."""
    training_bytes: int
    """Memory for training with the given batch size, without photos, libraries and scratch memory."""


def parameter_count(stage: Stage) -> int:
    """Number of a layer's trained elements."""
    return sum(prod(p.shape) for p in stage.parameters.values())


def layer_rows(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Name, input and output shape, parameters and multiply-adds of each layer, for tables and JSON."""
    return [
        {
            "name": stage.name,
            "input": list(stage.shape),
            "output": list(stage.out_shape),
            "parameters": parameter_count(stage),
            "multiply_adds": stage.layer.multiply_adds(stage.shape),
        }
        for stage in stages
    ]


def measure(stages: Sequence[Stage], batch_size: int) -> Size:
    """The size of a planned network."""
    parameters = sum(parameter_count(stage) for stage in stages)
    per_photo = 4 * prod(stages[0].shape)
    fixed = 0
    for stage in stages:
        per_photo += 4 * prod(stage.out_shape)
        for buffer in stage.layer.buffers(stage.shape).values():
            size = prod(buffer.shape) * np.dtype(np.float32 if buffer.dtype is None else buffer.dtype).itemsize
            if buffer.per_photo:
                per_photo += size
            else:
                fixed += size
    per_photo += 2 * 4 * max(prod(stage.out_shape) for stage in stages)
    return Size(
        parameters=parameters,
        multiply_adds=sum(stage.layer.multiply_adds(stage.shape) for stage in stages),
        training_bytes=4 * TRAINING_COPIES * parameters + batch_size * per_photo + fixed,
    )


def card_bytes(stages: Sequence[Stage], batch_size: int, normalise: Normalise = "none") -> int:
    """Memory on a card for training with the given batch size, without photos, but with the kernels' scratch memory,
    in which photos are normalised, too."""
    input_shape = stages[0].shape
    per_photo = prod(input_shape[:2]) // 16  # sums of the tiles in which a photo is prepared
    if normalise == "local_contrast":
        per_photo += math.ceil(_BLURRED * 4 * prod(input_shape))
    # The workspace keeps its old memory when it grows, so what the layers need adds up.
    scratch = [stage.layer.scratch(stage.shape) for stage in stages]
    per_photo += sum(one.per_photo for one in scratch)
    fixed = _SMALL_SCRATCH + sum(one.fixed for one in scratch)
    return measure(stages, batch_size).training_bytes + batch_size * per_photo + fixed


def check_memory(stages: Sequence[Stage], batch_size: int) -> None:
    """Raise UsageError if training would need more memory than is free, before anything is allocated."""
    free = _free_memory()
    if free is not None and measure(stages, batch_size).training_bytes > free:
        raise too_large(stages, batch_size)


def too_large(stages: Sequence[Stage], batch_size: int) -> UsageError:
    """The error for a network that doesn't fit into memory."""
    size, free = measure(stages, batch_size), _free_memory()
    are_free = "less is" if free is None else f"{free / 1e9:.1f} GB are"
    return UsageError(
        f"network: its weights are {4 * size.parameters / 1e9:.1f} GB, so training it takes about "
        f"{size.training_bytes / 1e9:.1f} GB of memory and {are_free} free: take fewer kernels or units, or a smaller "
        "train.batch_size"
    )


def micro_batch_size(stages: Sequence[Stage], batch_size: int, free: int, normalise: Normalise = "none") -> int:
    """Photos of a batch to train on at a time with ``free`` bytes on a card, in as few and equal micro-batches as
    possible; 0 if there isn't room for one photo."""
    fitting = min(batch_size, fitting_photos(stages, free, normalise))
    return -(-batch_size // -(-batch_size // fitting)) if fitting else 0


def fitting_photos(stages: Sequence[Stage], free: int, normalise: Normalise = "none") -> int:
    """Maximum number of photos to train on at a time with ``free`` bytes on a card."""
    fixed = card_bytes(stages, 0, normalise)
    by_memory = int((CARD_SHARE * free - fixed) // (card_bytes(stages, 1, normalise) - fixed))
    return max(0, min(by_memory, countable_photos(stages)))


def countable_photos(stages: Sequence[Stage]) -> int:
    """Maximum number of photos at a time with which no array of the network has more than MOST_ELEMENTS."""
    if sum(parameter_count(stage) for stage in stages) > MOST_ELEMENTS:
        return 0
    shapes = [stages[0].shape]
    for stage in stages:
        shapes += [stage.out_shape, *(b.shape for b in stage.layer.buffers(stage.shape).values() if b.per_photo)]
    return MOST_ELEMENTS // max(map(prod, shapes))


def _free_memory() -> int | None:
    """Bytes that this process can get without swapping; None if the system doesn't say."""
    amounts = [amount for amount in (_available(), _left_of_limit()) if amount is not None]
    return min(amounts) if amounts else None


def _available() -> int | None:
    """Free memory of the machine, in bytes."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:  # noqa: PTH123
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _left_of_limit() -> int | None:
    """Bytes left of this process's limit (``ulimit -v``); None if there is no limit."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY:
            return None
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        return max(0, limit - pages * resource.getpagesize())
    except (ImportError, OSError, ValueError):
        return None
