"""Losses, and the other kernels that run once for a batch, on one thread since their outputs are few."""

from __future__ import annotations

from math import exp, log
from typing import Any

import numpy as np

from facecnn.arrays import Array
from facecnn.kernels import formulas
from facecnn.kernels.cpu.jit import compiled, helper
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Workspace

_target_share = helper(inline=True)(formulas.target_share)
_counts_as_larger = helper(inline=True)(formulas.counts_as_larger)


@compiled()
def _softmax_cross_entropy(
    losses: Array, objectives: Array, probabilities: Array, dlogits: Array, logits: Array, labels: Array,
    class_weights: Array, batch_total: Array, smoothing: Any,
) -> None:  # fmt: skip
    photos, units = logits.shape
    total = np.float64(batch_total[0])
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
        objective, mass = 0.0, 0.0
        for u in range(units):
            q = _target_share(u == label, class_weights[u], smoothing / units, smoothing, total)
            mass += q
            log_p = np.float64(logits[n, u] - largest) - log_denominator
            probabilities[n, u] = exp(log_p)
            objective -= q * log_p
        objectives[n] = objective
        for u in range(units):
            q = _target_share(u == label, class_weights[u], smoothing / units, smoothing, total)
            dlogits[n, u] = probabilities[n, u] * mass - q


@compiled()
def _mean_squared_error(
    losses: Array, objectives: Array, dout: Array, out: Array, target: Array, batch_total: Array
) -> None:
    photos, units = out.shape
    divisor = np.float64(batch_total[0])
    for n in range(photos):
        total = 0.0
        for u in range(units):
            error = out[n, u] - target[n, u]
            total += error * error
            dout[n, u] = error * np.float32(2 / (divisor * units))
        losses[n] = total / units
        objectives[n] = total / units / divisor


@compiled()
def _add_to_totals(totals: Array, losses: Array, outputs: Array, labels: Array) -> None:
    for n in range(losses.shape[0]):
        best = 0
        for u in range(1, outputs.shape[1]):
            if _counts_as_larger(outputs[n, u], outputs[n, best]):
                best = u
        totals[0] += losses[n]
        totals[1] += 1 if best == labels[n] else 0
        if not losses[n] <= totals[2]:
            totals[2] = losses[n]


@compiled()
def _label_weight(total: Array, labels: Array, class_weights: Array) -> None:
    in_all = 0.0
    for label in labels:
        in_all += class_weights[label]
    total[0] = in_all


@compiled()
def _one_hot(out: Array, labels: Array) -> None:
    for n in range(out.shape[0]):
        for u in range(out.shape[1]):
            out[n, u] = 1 if u == labels[n] else 0


@compiled()
def _take_batch(
    photos: Array, rows: Array, labels: Array, learning_rate: Array, step: Array, cursor: Array, order_photos: Array,
    order_rows: Array, order_labels: Array, starts: Array, rates: Array,
) -> None:  # fmt: skip
    start = starts[cursor[0]]
    for n in range(photos.size):
        photos[n] = order_photos[start + n]
        rows[n] = order_rows[start + n]
        labels[n] = order_labels[start + n]
    learning_rate[0] = rates[cursor[0]]
    step[0] = cursor[1]
    cursor[0] += 1
    cursor[1] += 1


def softmax_cross_entropy(
    losses: Array, objectives: Array, probabilities: Array, dlogits: Array, logits: Array, labels: Array,
    class_weights: Array, total: Array, label_smoothing: float, workspace: Workspace,
) -> None:  # fmt: skip
    """Softmax and cross-entropy, with label smoothing and class weights; sums in float64."""
    launch(
        _softmax_cross_entropy, losses, objectives, probabilities, dlogits, logits, labels, class_weights, total,
        float(label_smoothing),
    )  # fmt: skip


def mean_squared_error(
    losses: Array, objectives: Array, dout: Array, out: Array, target: Array, total: Array, workspace: Workspace
) -> None:
    """losses = mean over the outputs of (out - target)^2; objectives = losses / total."""
    launch(_mean_squared_error, losses, objectives, dout, out, target, total)


def add_to_totals(totals: Array, losses: Array, outputs: Array, labels: Array, workspace: Workspace) -> None:
    """totals += (sum of losses, photos that are right), and totals[2] = the worst loss."""
    launch(_add_to_totals, totals, losses, outputs, labels)


def label_weight(total: Array, labels: Array, class_weights: Array, workspace: Workspace) -> None:
    """total = sum of class_weights[label]; in float64."""
    launch(_label_weight, total, labels, class_weights)


def one_hot(out: Array, labels: Array, workspace: Workspace) -> None:
    """1 at each photo's label, 0 elsewhere."""
    launch(_one_hot, out, labels)


def take_batch(
    photos: Array, rows: Array, labels: Array, learning_rate: Array, step: Array, cursor: Array, order_photos: Array,
    order_rows: Array, order_labels: Array, starts: Array, rates: Array, workspace: Workspace,
) -> None:  # fmt: skip
    """Take the next batch of an epoch."""
    launch(
        _take_batch, photos, rows, labels, learning_rate, step, cursor, order_photos, order_rows, order_labels, starts,
        rates,
    )  # fmt: skip
