"""Small networks in which every layer occurs, with its settings."""

from __future__ import annotations

from typing import get_args

from facecnn.kernels.protocol import Activation
from facecnn.network.layers import (
    Activate,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Layer,
    Neuron,
    Pool,
    PoolSettings,
    PRelu,
    Residual,
    UnitLength,
)

END = Dense(units=3)
CASES: dict[str, tuple[tuple[Layer, ...], tuple[int, int, int]]] = {
    "conv": ((Conv(kernels=3, size=(3, 2), activation="tanh"), END), (6, 5, 2)),
    "conv, even kernel, same": ((Conv(kernels=3, size=(2, 4), padding="same"), END), (5, 6, 2)),
    "conv, stride": ((Conv(kernels=3, size=(3, 2), stride=(2, 3), activation="relu"), END), (9, 8, 2)),
    "conv, fused pool": ((Conv(kernels=3, size=3, slope=0.3, pool=2), END), (7, 9, 2)),
    "conv, other pool": (
        (Conv(kernels=2, pool=PoolSettings(size=3, stride=2, kind="average", edges="keep")), END),
        (8, 7, 1),
    ),
    "pool, gaps": ((Pool(size=(2, 1), stride=3), END), (7, 8, 2)),
    "pool, over the edge": ((Pool(size=3, stride=2, edges="keep"), END), (6, 8, 2)),
    "pool, average over the edge": ((Pool(size=(3, 2), stride=2, kind="average", edges="keep"), END), (6, 7, 2)),
    "pool, global": ((Pool(size="global", kind="average"), END), (4, 5, 3)),
    "neuron": ((Neuron(per_kernel=4, activation="sigmoid"), END), (3, 4, 2)),
    "dense on maps": ((Dense(units=5, activation="gelu"), END), (3, 4, 2)),
    "batch norm": ((BatchNorm(epsilon=0.1), Neuron(), BatchNorm(), END), (3, 4, 2)),
    "prelu": ((PRelu(), Neuron(per_kernel=2), PRelu(), END), (3, 4, 2)),
    "dropout": ((Dropout(rate=0.5), Neuron(), Dropout(rate=0.5), END), (3, 4, 2)),
    "unit length": ((Neuron(), UnitLength(), END), (3, 4, 3)),
    "residual": (
        (Residual(layers=(Conv(kernels=2, padding="same", activation="relu"), BatchNorm()), activation="gelu"), END),
        (4, 5, 2),
    ),
    "residual, padded": (
        (
            Residual(
                layers=(Conv(kernels=4, stride=2), Conv(kernels=4, padding="same")),
                shortcut=PoolSettings(size=2, kind="average"),
                repeat=2,
            ),
            END,
        ),
        (11, 10, 2),
    ),
    "residual, smaller branch": ((Residual(layers=(Conv(kernels=1, size=3),)), END), (6, 5, 3)),
    "residual within": (
        (Residual(layers=(Residual(layers=(Conv(kernels=2, padding="same"),)), BatchNorm())), END),
        (4, 4, 2),
    ),
    **{f"activation {name}": ((Activate(name=name, slope=0.2), END), (3, 4, 2)) for name in get_args(Activation)},
}
