"""Activations, pooling, residual sums, neurons, dense layers, batch norm and dropout, on every backend."""

from typing import Any

import numpy as np

from contract.cases import elementwise, family, layers, pool, residual
from contract.cases.numbers import random
from contract.harness import call, check_case, on_each_backend
from facecnn.kernels import cpu
from facecnn.kernels.cases import Case, Out
from facecnn.kernels.protocol import PURPOSE_DROPOUT


@on_each_backend(family(elementwise, pool, residual, layers))
def test_agrees_with_the_reference(backend: Any, case: Case) -> None:
    check_case(backend, case)


def test_nan_wins_in_a_pool(backend: Any) -> None:
    for at in range(4):
        x = np.arange(4.0).reshape(1, 2, 2, 1)
        x.reshape(-1)[at] = np.nan
        out, argmax = call(
            backend, "pool_forward", Out((1, 1, 1, 1)), Out((1, 1, 1, 1), np.int32), x, "max", (2, 2), (2, 2)
        )
        assert np.isnan(out).all()
        assert argmax.item() == at


def test_what_of_a_window_lies_inside_counts(backend: Any) -> None:
    x = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [-7.0, -8.0, -9.0]]).reshape(1, 3, 3, 1)
    two = ((2, 2), (2, 2))
    out, argmax = call(backend, "pool_forward", Out((1, 2, 2, 1)), Out((1, 2, 2, 1), np.int32), x, "max", *two)
    assert out.reshape(2, 2).tolist() == [[5, 6], [-7, -9]]
    assert argmax.reshape(2, 2).tolist() == [[4, 5], [6, 8]]
    (out,) = call(backend, "pool_forward", Out((1, 2, 2, 1)), np.zeros((1, 2, 2, 1), np.int32), x, "average", *two)
    assert out.reshape(2, 2).tolist() == [[3, 4.5], [-7.5, -9]]


def test_a_photos_answer_does_not_depend_on_its_batch() -> None:
    """Not so on the reference, where NumPy's BLAS chooses its way by the batch's size."""
    x, weight, bias = random(7, 130), random(9, 130), random(9)
    together = call(cpu, "dense_forward", Out((7, 9)), x, weight, bias)[0]
    for n in range(7):
        alone = call(cpu, "dense_forward", Out((1, 9)), x[n : n + 1], weight, bias)[0]
        np.testing.assert_array_equal(alone[0], together[n])


def test_dropout_drops_its_share_and_keeps_the_mean(backend: Any) -> None:
    photos, step = np.arange(20, dtype=np.int32), np.array([3], np.int32)
    (out,) = call(backend, "dropout", Out((20, 1000)), np.ones((20, 1000)), photos, 0.3, 5, PURPOSE_DROPOUT, step)
    assert 0.28 < (out == 0).mean() < 0.32
    assert 0.97 < out.mean() < 1.03
    assert len({row.tobytes() for row in out}) == 20


def test_dropout_of_a_photo_does_not_depend_on_its_batch(backend: Any) -> None:
    photos, step = np.array([4, 9, 2], np.int32), np.array([3], np.int32)
    x = random(3, 30)
    (together,) = call(backend, "dropout", Out(x.shape), x, photos, 0.5, 5, PURPOSE_DROPOUT, step)
    (alone,) = call(backend, "dropout", Out((1, 30)), x[1:2], photos[1:2], 0.5, 5, PURPOSE_DROPOUT, step)
    np.testing.assert_array_equal(alone[0], together[1])
    for seed, purpose, at in [
        (6, PURPOSE_DROPOUT, step),
        (5, PURPOSE_DROPOUT + 1, step),
        (5, PURPOSE_DROPOUT, step + 1),
    ]:
        (other,) = call(backend, "dropout", Out(x.shape), x, photos, 0.5, seed, purpose, at)
        assert not np.array_equal(other == 0, together == 0)
