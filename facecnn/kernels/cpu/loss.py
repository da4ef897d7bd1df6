"""Losses. A batch's outputs are few, so these run on one thread."""

from __future__ import annotations

from math import exp, log
from typing import Any

import numpy as np

from facecnn.kernels.cpu.jit import compiled
from facecnn.kernels.cpu.memory import Array, Workspace

_ZERO = np.float32(0)


@compiled()
def _softmax_cross_entropy(
    losses: Array,
    objectives: Array,
    probabilities: Array,
    dlogits: Array,
    logits: Array,
    labels: Array,
    class_weights: Array,
    smoothing: Any,
) -> None:
    photos, units = logits.shape
    total = 0.0
    for n in range(photos):
        total += class_weights[labels[n]]
    for n in range(photos):
        label = labels[n]
        largest = logits[n, 0]
        for u in range(1, units):
            if logits[n, u] > largest:
                largest = logits[n, u]
        denominator = 0.0
        for u in range(units):
            denominator += exp(np.float64(logits[n, u] - largest))
        log_denominator = log(denominator)
        losses[n] = log_denominator - (logits[n, label] - largest)
        # The target: the label's share, and a little of every class; q of it lies on unit u.
        objective, mass = 0.0, 0.0
        for u in range(units):
            q = class_weights[u] * (smoothing / units)
            if u == label:
                q += class_weights[label] * (1.0 - smoothing)
            mass += q / total
            log_p = np.float64(logits[n, u] - largest) - log_denominator
            probabilities[n, u] = exp(log_p)
            objective -= q / total * log_p
        objectives[n] = objective
        for u in range(units):
            q = class_weights[u] * (smoothing / units)
            if u == label:
                q += class_weights[label] * (1.0 - smoothing)
            dlogits[n, u] = probabilities[n, u] * mass - q / total


@compiled()
def _mean_squared_error(losses: Array, objectives: Array, dout: Array, out: Array, target: Array) -> None:
    photos, units = out.shape
    for n in range(photos):
        total = 0.0
        for u in range(units):
            error = out[n, u] - target[n, u]
            total += error * error
            dout[n, u] = error * np.float32(2 / (photos * units))
        losses[n] = total / units
        objectives[n] = total / units / photos


@compiled()
def _add_to_totals(totals: Array, losses: Array, outputs: Array, labels: Array) -> None:
    for n in range(losses.shape[0]):
        best = 0
        for u in range(1, outputs.shape[1]):
            # As in NumPy, the first NaN counts as the largest.
            if outputs[n, u] > outputs[n, best] or (
                outputs[n, u] != outputs[n, u] and outputs[n, best] == outputs[n, best]
            ):
                best = u
        totals[0] += losses[n]
        totals[1] += 1 if best == labels[n] else 0
        if not losses[n] <= totals[2]:
            totals[2] = losses[n]


def softmax_cross_entropy(
    losses: Array,
    objectives: Array,
    probabilities: Array,
    dlogits: Array,
    logits: Array,
    labels: Array,
    class_weights: Array,
    label_smoothing: float,
    workspace: Workspace,
) -> None:
    """Softmax and cross-entropy, with label smoothing and class weights; sums in float64."""
    _softmax_cross_entropy(
        losses, objectives, probabilities, dlogits, logits, labels, class_weights, float(label_smoothing)
    )


def mean_squared_error(
    losses: Array, objectives: Array, dout: Array, out: Array, target: Array, workspace: Workspace
) -> None:
    """losses = mean over the outputs of (out - target)^2; objectives = losses / N."""
    _mean_squared_error(losses, objectives, dout, out, target)


def add_to_totals(totals: Array, losses: Array, outputs: Array, labels: Array, workspace: Workspace) -> None:
    """totals += (sum of losses, photos that are right), and totals[2] = the worst loss."""
    _add_to_totals(totals, losses, outputs, labels)
