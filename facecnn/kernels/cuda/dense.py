"""Dense layers: three products of matrices (products.py).

The forward product has few outputs and long sums (deep: 60 x 96 outputs of 13,824 products each), so several blocks
share the sums of a tile; their parts are then added in order. How a sum is cut doesn't depend on the number of
photos: a photo's answer is the same in every batch.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from facecnn.kernels.cuda.columns import add_up
from facecnn.kernels.cuda.driver import SIMULATED, device_function
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.products import launch_product, product_of, split_depth_of, tiles_of

_EACH = (1, 2) if SIMULATED else (1, 2, 4, 6, 8)
"""Possible numbers of output rows, and columns, of a thread."""
_SPLIT_SLABS = 2 if SIMULATED else 4
"""Least number of slabs in a part, where a long sum is split, ..."""
_BLOCKS = 6 if SIMULATED else 256
"""... and the most blocks, parts times column tiles, of a row of tiles: about 2 per multiprocessor of a large card."""


@device_function
def _by_line(source: Array, line: Any, depth: Any) -> Any:
    return source[line, depth]


@device_function
def _by_depth(source: Array, line: Any, depth: Any) -> Any:
    return source[depth, line]


@device_function
def _finish_part(partials: Array, r: Any, c: Any, value: Any, split: Any) -> None:
    partials[split, r, c] = value


@device_function
def _finish_output(target: Any, r: Any, c: Any, value: Any, split: Any) -> None:
    out, bias = target
    out[r, c] = value + bias[c]


@device_function
def _finish_weight(target: Any, r: Any, c: Any, value: Any, split: Any) -> None:
    dweight, _ = target
    dweight[r, c] = value


@device_function
def _finish_bias(target: Any, r: Any, total: Any, split: Any) -> None:
    _, dbias = target
    dbias[r] = total


@device_function
def _finish_input(dx: Array, r: Any, c: Any, value: Any, split: Any) -> None:
    dx[r, c] = value


@cache
def _forward(adds_bias: bool, rows_each: int, columns_each: int) -> Any:
    finish = _finish_output if adds_bias else _finish_part
    return product_of(rows_each, columns_each, (_by_line, True), (_by_line, True), finish)


def dense_forward(out: Array, x: Array, weight: Array, bias: Array, workspace: Workspace) -> None:
    """out = x weight' + bias: out (N, U), x (N, I), weight (U, I), bias (U,)."""
    inputs = x.shape[1]
    split_depth = split_depth_of(inputs, tiles_of(out.shape[1], _EACH[-1]), _BLOCKS, _SPLIT_SLABS)
    size = *out.shape, inputs
    if split_depth >= inputs:
        launch_product(partial(_forward, True), _EACH, size, (out, bias), x, weight, workspace)
    else:
        partials = workspace.array("dense partials", (-(-inputs // split_depth), *out.shape))
        launch_product(partial(_forward, False), _EACH, size, partials, x, weight, workspace, split_depth)
        add_up(out, partials, bias, workspace)


@cache
def _backward_weight(rows_each: int, columns_each: int) -> Any:
    a, b = (_by_depth, False), (_by_depth, False)
    return product_of(rows_each, columns_each, a, b, _finish_weight, finish_row=_finish_bias)


def dense_backward_weight(dweight: Array, dbias: Array, dout: Array, x: Array, workspace: Workspace) -> None:
    """dweight = dout' x, dbias = sum of dout over the batch: dweight (U, I), dbias (U,), dout (N, U), x (N, I)."""
    launch_product(_backward_weight, _EACH, (*dweight.shape, len(x)), (dweight, dbias), dout, x, workspace)


@cache
def _backward_input(rows_each: int, columns_each: int) -> Any:
    return product_of(rows_each, columns_each, (_by_line, True), (_by_depth, False), _finish_input)


def dense_backward_input(dx: Array, dout: Array, weight: Array, workspace: Workspace) -> None:
    """dx = dout weight: dx (N, I), dout (N, U), weight (U, I)."""
    launch_product(_backward_input, _EACH, (*dx.shape, dout.shape[1]), dx, dout, weight, workspace)
