"""Losses, and what else is done once for a batch."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from facecnn.kernels import formulas
from facecnn.kernels.cuda.block import COLUMNS, add_up, block_largest, block_sum, columns_of, find_largest, larger
from facecnn.kernels.cuda.driver import SIMULATED, cuda, device_function, kernel, launch
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.sizes import STRIDE, THREADS, launch_each

_F, _I, _U = np.float32, np.int32, np.uint32
_ZERO, _ONE, _TWO, _LEAST = _F(0), _F(1), _F(2), _F(-np.inf)

_target_share = device_function(formulas.target_share)
_counts_as_larger = device_function(formulas.counts_as_larger)

_FEW_THREADS: int = 4 if SIMULATED else 32
"""Threads of a block that has no more outputs than that to work on: two people are most common."""


def _threads_for(units: int) -> int:
    return _FEW_THREADS if units <= _FEW_THREADS else THREADS


# ------------------------------------------------------------------------------------------------------- softmax


def _largest_of_thread(threads: int) -> Any:
    @device_function
    def largest_of(logits: Array, n: Any) -> Any:
        largest = _LEAST
        u = cuda.threadIdx.x
        while u < logits.shape[1]:
            largest = larger(largest, logits[n, u])
            u += threads
        return largest

    return largest_of


@cache
def _softmax_cross_entropy(threads: int) -> Any:
    columns, largest_of = columns_of(threads), _largest_of_thread(threads)
    add_up, find_largest = block_sum(threads), block_largest(threads)

    @kernel
    def softmax(
        losses: Array, objectives: Array, probabilities: Array, dlogits: Array, logits: Array, labels: Array,
        class_weights: Array, batch_total: Array, smoothing: Any,
    ) -> None:  # fmt: skip
        # losses, objectives (N,), probabilities, dlogits, logits (N, U): a block for each photo, whose threads
        # loop over the units with a stride. With z = logit - largest, log p = z - log(sum of exp(z)). The largest's
        # own part of that sum is 1; it is left out, and log1p and expm1 keep the digits of losses close to 0.
        values = cuda.shared.array(threads, _F)
        partial = cuda.shared.array(columns, _F)
        thread = cuda.threadIdx.x
        n = cuda.blockIdx.x
        units = logits.shape[1]
        label = labels[n]
        total = batch_total[0]
        share = smoothing / _F(units)
        largest = find_largest(values, partial, largest_of(logits, n))

        others, equals, mass = _ZERO, _ZERO, _ZERO
        u = thread
        while u < units:
            z = logits[n, u] - largest
            if z == _ZERO:
                equals += _ONE
            else:
                others += _F(math.exp(z))
            mass += _target_share(u == label, class_weights[u], share, smoothing, total)
            u += threads
        others = add_up(values, partial, others)
        equals = add_up(values, partial, equals)
        mass = add_up(values, partial, mass)
        log_denominator = _F(math.log1p(others + (equals - _ONE)))

        objective = _ZERO
        u = thread
        while u < units:
            log_p = (logits[n, u] - largest) - log_denominator
            q = _target_share(u == label, class_weights[u], share, smoothing, total)
            p = _F(math.exp(log_p))
            probabilities[n, u] = p
            objective -= q * log_p
            if u == label:
                losses[n] = -log_p
                dlogits[n, u] = mass * _F(math.expm1(log_p)) + (mass - q)  # = p * mass - q
            else:
                dlogits[n, u] = p * mass - q
            u += threads
        objective = add_up(values, partial, objective)
        if thread == 0:
            objectives[n] = objective

    return softmax


def softmax_cross_entropy(
    losses: Array, objectives: Array, probabilities: Array, dlogits: Array, logits: Array, labels: Array,
    class_weights: Array, total: Array, label_smoothing: float, workspace: Workspace,
) -> None:  # fmt: skip
    """Softmax and cross-entropy, with label smoothing and class weights."""
    photos, units = logits.shape
    threads = _threads_for(units)
    launch(
        _softmax_cross_entropy(threads), photos, threads, workspace, losses, objectives, probabilities, dlogits, logits,
        labels, class_weights, total, float(label_smoothing),
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------- squared error


@cache
def _mean_squared_error(threads: int) -> Any:
    columns = columns_of(threads)
    add_up = block_sum(threads)

    @kernel
    def mean_squared_error(
        losses: Array, objectives: Array, dout: Array, out: Array, target: Array, batch_total: Array
    ) -> None:
        # losses, objectives (N,), dout, out, target (N, U): a block for each photo
        values = cuda.shared.array(threads, _F)
        partial = cuda.shared.array(columns, _F)
        n = cuda.blockIdx.x
        units = out.shape[1]
        factor = _TWO / (_F(units) * batch_total[0])
        total = _ZERO
        u = cuda.threadIdx.x
        while u < units:
            error = out[n, u] - target[n, u]
            total += error * error
            dout[n, u] = error * factor
            u += threads
        loss = add_up(values, partial, total) / _F(units)
        if cuda.threadIdx.x == 0:
            losses[n] = loss
            objectives[n] = loss / batch_total[0]

    return mean_squared_error


def mean_squared_error(
    losses: Array, objectives: Array, dout: Array, out: Array, target: Array, total: Array, workspace: Workspace
) -> None:
    """losses = mean over the outputs of (out - target)^2; objectives = losses / total."""
    photos, units = out.shape
    threads = _threads_for(units)
    launch(
        _mean_squared_error(threads), photos, threads, workspace, losses, objectives, dout, out, target, total,
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------- of the batch


@kernel
def _label_weight(total: Array, labels: Array, class_weights: Array) -> None:
    # one block; total (1,), labels (N,)
    values = cuda.shared.array(THREADS, _F)
    partial = cuda.shared.array(COLUMNS, _F)
    weight = _ZERO
    n = cuda.threadIdx.x
    while n < labels.size:
        weight += class_weights[labels[n]]
        n += THREADS
    weight = add_up(values, partial, weight)
    if cuda.threadIdx.x == 0:
        total[0] = weight


def label_weight(total: Array, labels: Array, class_weights: Array, workspace: Workspace) -> None:
    """total = sum of class_weights[label]."""
    launch(_label_weight, 1, THREADS, workspace, total, labels, class_weights)


@kernel
def _one_hot(out: Array, labels: Array) -> None:
    # out (N, U)
    i = cuda.grid(1)
    while i < out.size:
        n = _I(_U(i) // _U(out.shape[1]))
        u = i - n * out.shape[1]
        out[n, u] = _ONE if u == labels[n] else _ZERO
        i += STRIDE


def one_hot(out: Array, labels: Array, workspace: Workspace) -> None:
    """1 at each photo's label, 0 elsewhere."""
    launch_each(_one_hot, out.size, workspace, out, labels)


@kernel
def _add_to_totals(totals: Array, losses: Array, outputs: Array, labels: Array) -> None:
    # one block, a thread for each photo at a time; totals (3,), losses (N,), outputs (N, U), labels (N,)
    values = cuda.shared.array(THREADS, _F)
    partial = cuda.shared.array(COLUMNS, _F)
    loss, right, worst = _ZERO, _ZERO, _LEAST
    n = cuda.threadIdx.x
    while n < losses.size:
        best, largest = 0, outputs[n, 0]
        u = 1
        while u < outputs.shape[1]:
            value = outputs[n, u]
            if _counts_as_larger(value, largest):
                best, largest = u, value
            u += 1
        if best == labels[n]:
            right += _ONE
        loss += losses[n]
        worst = larger(worst, losses[n])
        n += THREADS
    loss = add_up(values, partial, loss)
    right = add_up(values, partial, right)
    worst = find_largest(values, partial, worst)
    if cuda.threadIdx.x == 0:
        totals[0] += loss
        totals[1] += right
        totals[2] = larger(totals[2], worst)


def add_to_totals(totals: Array, losses: Array, outputs: Array, labels: Array, workspace: Workspace) -> None:
    """totals += (sum of losses, photos that are right), and totals[2] = the worst loss, or NaN."""
    launch(_add_to_totals, 1, THREADS, workspace, totals, losses, outputs, labels)


@kernel
def _take_batch(
    photos: Array, rows: Array, labels: Array, learning_rate: Array, step: Array, cursor: Array,
    order_photos: Array, order_rows: Array, order_labels: Array, starts: Array, rates: Array,
) -> None:  # fmt: skip
    # one block; photos, rows, labels (N,), cursor (2,)
    thread = cuda.threadIdx.x
    batch, number = cursor[0], cursor[1]
    cuda.syncthreads()  # all have read the cursor before it is counted up
    start = starts[batch]
    n = thread
    while n < photos.size:
        photos[n] = order_photos[start + n]
        rows[n] = order_rows[start + n]
        labels[n] = order_labels[start + n]
        n += THREADS
    if thread == 0:
        learning_rate[0] = rates[batch]
        step[0] = number
        cursor[0] = batch + 1
        cursor[1] = number + 1


def take_batch(
    photos: Array, rows: Array, labels: Array, learning_rate: Array, step: Array, cursor: Array, order_photos: Array,
    order_rows: Array, order_labels: Array, starts: Array, rates: Array, workspace: Workspace,
) -> None:  # fmt: skip
    """What the next step of an epoch works on."""
    launch(
        _take_batch, 1, THREADS, workspace, photos, rows, labels, learning_rate, step, cursor, order_photos,
        order_rows, order_labels, starts, rates,
    )  # fmt: skip
