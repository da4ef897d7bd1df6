"""Check the gradients of the reference against finite differences, and a device's against the reference's."""

import math
from typing import Any

from facecnn.config import Loaded
from facecnn.jobs.console import Console
from facecnn.jobs.devices import open_and_show
from facecnn.kernels import Device
from facecnn.network.gradient_check.chain import STEP
from facecnn.network.gradient_check.check import DEVICE_TOLERANCE, Comparison, check_gradients, compare_device
from facecnn.network.gradient_check.results import TOLERANCE, Part, Row, worst
from facecnn.network.gradient_check.shrinking import Shrunk, shrink
from facecnn.network.layers import LayerError
from facecnn.network.size import layer_rows


def gradcheck(loaded: Loaded, device_name: str, console: Console) -> dict[str, Any]:
    """Check the gradients of a config's network, made small. Returns the ``gradcheck`` JSON.

    Raises:
        UsageError: a layer doesn't fit; the message has its place in the config.
        DeviceError: the device can't be used.
    """
    settings = loaded.settings
    device = open_and_show(device_name, None, console)
    console.info(f"Device: {device.name} ({device.description})")
    try:
        small = shrink(settings.network, settings.photos.shape)
    except LayerError as error:
        raise loaded.located(error) from None
    console.info("Checking every gradient in float64, on the reference")
    check = check_gradients(small, settings.loss, seed=settings.train.seed)
    comparison = None
    if device.name != "reference":
        console.info(f"Comparing {device.name} with the reference")
        comparison = compare_device(small, settings.loss, device.backend, seed=settings.train.seed)
    return {
        "passed": check.passed and (comparison is None or comparison.passed),
        "worst": _number(worst(check.alone).max_relative_error),
        "layers": [_row(row) for row in check.alone],
        "parts": [_part(part) for part in check.parts],
        "shrunk_to": _shrunk(small),
        "step": STEP,
        "kink_distance": _number(check.distance),
        "tolerance": TOLERANCE,
        "seed": settings.train.seed,
        "device": device.name,
        "device_reason": device.reason,
        "on_device": None if comparison is None else _compared(comparison, device),
    }


def right_formulas(result: dict[str, Any]) -> bool:
    """Whether the reference passed, whatever the device did."""
    return all(row["passed"] for row in (*result["layers"], *result["parts"]))


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _row(row: Row) -> dict[str, Any]:
    fault = row.fault
    return {
        "name": row.name,
        "parameter": row.parameter,
        "elements": row.elements,
        "max_relative_error": _number(row.max_relative_error),
        "passed": row.passed,
        "fault": None
        if fault is None
        else {
            "place": list(fault.place),
            "backward": _number(fault.found),
            "expected": _number(fault.expected),
            "likeness": fault.likeness,
        },
    }


def _part(part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "elements": part.elements,
        "max_relative_error": _number(part.worst.max_relative_error),
        "worst_at": f"{part.worst.name}.{part.worst.parameter}",
        "passed": part.passed,
    }


def _shrunk(small: Shrunk) -> dict[str, Any]:
    height, width, channels = small.shape
    stages = layer_rows(small.stages)
    return {"height": height, "width": width, "channels": channels, "photos": small.photos, "layers": stages}


def _compared(comparison: Comparison, device: Device) -> dict[str, Any]:
    return {
        "passed": comparison.passed,
        "worst": _number(worst(comparison.rows).max_relative_error),
        "layers": [_row(row) for row in comparison.rows],
        "kink_distance": _number(comparison.distance),
        "tolerance": DEVICE_TOLERANCE,
        "description": device.description,
    }
