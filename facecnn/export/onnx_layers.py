"""Every layer in ONNX's operators, as it is in evaluation.

Maps are (N, C, H, W) there and (N, H, W, C) here, so weights change their order. Flattened maps give their numbers in
another order, too, which the weights of a dense layer behind maps follow.
"""

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any

from facecnn.arrays import Array
from facecnn.export.graph import Graph
from facecnn.kernels.protocol import LEAST_LENGTH, Activation
from facecnn.network.layers import (
    Activate,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Layer,
    Neuron,
    Pool,
    PRelu,
    Residual,
    Shape,
    Stage,
    UnitLength,
)
from facecnn.network.layers.base import pair
from facecnn.network.layers.residual import SHORTCUT

Arrays = Mapping[str, Array]


def add_stage(graph: Graph, stage: Stage, x: str, arrays: Arrays, prefix: str = "") -> str:
    """Add a layer, which may hold others, to the graph.

    ``x`` is the name of its input, ``prefix`` that of the layer that holds it: ``residual1.``. Returns the name of its
    output.
    """
    name = f"{prefix}{stage.name}"
    graph.scope = f"{name}/"
    return TRANSLATIONS[type(stage.layer)](graph, stage, x, arrays, name)


def add_activation(graph: Graph, x: str, activation: Activation, slope: float) -> str:
    """Add an activation, element by element."""
    if activation == "gelu":
        erf = graph.add("Erf", graph.add("Div", x, graph.numbers(sqrt(2))))
        doubled = graph.add("Mul", x, graph.add("Add", erf, graph.numbers(1)))
        return graph.add("Mul", doubled, graph.numbers(0.5))
    if activation == "leaky_relu":
        return graph.add("LeakyRelu", x, alpha=float(slope))
    if activation == "identity":
        return x
    return graph.add({"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu"}[activation], x)


def _conv(graph: Graph, stage: Stage, x: str, arrays: Arrays, name: str) -> str:
    layer: Any = stage.layer
    rows, columns = pair(layer.size)
    before = ((rows - 1) // 2, (columns - 1) // 2) if layer.padding == "same" else (0, 0)
    after = (rows - 1 - before[0], columns - 1 - before[1]) if layer.padding == "same" else (0, 0)
    weight = graph.weight(f"{name}.weight", arrays[f"{name}.weight"].transpose(0, 3, 1, 2))
    bias = graph.weight(f"{name}.bias", arrays[f"{name}.bias"])
    sums = graph.add(
        "Conv", x, weight, bias, kernel_shape=[rows, columns], strides=pair(layer.stride), pads=[*before, *after]
    )
    out = add_activation(graph, sums, layer.activation, layer.slope)
    if layer.pool is None:
        return out
    return graph.add("MaxPool", out, kernel_shape=[layer.pool] * 2, strides=[layer.pool] * 2)


def _pool(graph: Graph, stage: Stage, x: str, arrays: Arrays, name: str) -> str:
    layer: Any = stage.layer
    size, stride = layer.window(stage.shape)
    # Windows that reach over the edge are padded with what doesn't count: ``ceil_mode`` means different windows in
    # different versions.
    over = [max(0, (stage.out_shape[i] - 1) * stride[i] + size[i] - stage.shape[i]) for i in (0, 1)]
    window: dict[str, Any] = {"kernel_shape": size, "strides": stride, "pads": [0, 0, *over]}
    if layer.kind == "max":
        return graph.add("MaxPool", x, **window)
    return graph.add("AveragePool", x, count_include_pad=0, **window)


def _batch_norm(graph: Graph, stage: Stage, x: str, arrays: Arrays, name: str) -> str:
    layer: Any = stage.layer
    own = ("scale", "shift", "running_mean", "running_variance")
    weights = [graph.weight(f"{name}.{key}", arrays[f"{name}.{key}"]) for key in own]
    return graph.add("BatchNormalization", x, *weights, epsilon=float(layer.epsilon))


def _activation(graph: Graph, stage: Stage, x: str, arrays: Arrays, name: str) -> str:
    layer: Any = stage.layer
    return add_activation(graph, x, layer.name, layer.slope)


def _prelu(graph: Graph, stage: Stage, x: str, arrays: Arrays, name: str) -> str:
    slope = arrays[f"{name}.slope"].reshape(-1, *(1,) * (len(stage.shape) - 1))
    return graph.add("PRelu", x, graph.weight(f"{name}.slope", slope))


def _dropout(graph: Graph, stage: Stage, x: str, arrays: Arrays, name: str) -> str:
    return x


def _neuron(graph: Graph, stage: Stage, x: str, arrays: Arrays, name: str) -> str:
    """A product (1 x places) (places x neurons) for each map."""
    rows, columns, maps = stage.shape
    neurons = arrays[f"{name}.weight"].shape[0]
    weight = arrays[f"{name}.weight"].reshape(neurons, rows * columns, maps).transpose(2, 1, 0)
    by_map = graph.add("Reshape", x, graph.integers(-1, maps, 1, rows * columns))
    sums = graph.add("MatMul", by_map, graph.weight(f"{name}.weight", weight))  # (N, maps, 1, neurons)
    by_neuron = graph.add("Transpose", sums, perm=[0, 3, 1, 2])
    flat = graph.add("Reshape", by_neuron, graph.integers(-1, neurons * maps))
    return graph.add("Add", flat, graph.weight(f"{name}.bias", arrays[f"{name}.bias"].reshape(-1)))


def _dense(graph: Graph, stage: Stage, x: str, arrays: Arrays, name: str) -> str:
    weight = arrays[f"{name}.weight"]
    if len(stage.shape) == 3:
        weight = weight.reshape(-1, *stage.shape).transpose(0, 3, 1, 2).reshape(len(weight), -1)
        x = graph.add("Flatten", x, axis=1)
    bias = graph.weight(f"{name}.bias", arrays[f"{name}.bias"])
    return graph.add("Gemm", x, graph.weight(f"{name}.weight", weight), bias, transB=1)


def _unit_length(graph: Graph, stage: Stage, x: str, arrays: Arrays, name: str) -> str:
    length = graph.add("ReduceL2", x, axes=[1], keepdims=1)
    return graph.add("Div", x, graph.add("Max", length, graph.numbers(LEAST_LENGTH)))


def _residual(graph: Graph, stage: Stage, x: str, arrays: Arrays, name: str) -> str:
    layer: Any = stage.layer
    branch, shortcut, shape = x, x, stage.shape
    for inner in stage.inner:
        if inner.name == SHORTCUT:
            shortcut, shape = add_stage(graph, inner, x, arrays, f"{name}."), inner.out_shape
        else:
            branch = add_stage(graph, inner, branch, arrays, f"{name}.")
    graph.scope = f"{name}/"
    ends = [(branch, stage.inner[-1].out_shape), (shortcut, shape)]
    summands = [_enlarged(graph, maps, own, stage.out_shape) for maps, own in ends]
    return add_activation(graph, graph.add("Add", *summands), layer.activation, layer.slope)


def _enlarged(graph: Graph, x: str, shape: Shape, to: Shape) -> str:
    """Maps with zeros behind the last row, column and map, up to the shape ``to``."""
    if shape == to:
        return x
    rows, columns, maps = (large - small for large, small in zip(to, shape, strict=True))
    return graph.add("Pad", x, graph.integers(0, 0, 0, 0, 0, maps, rows, columns))


TRANSLATIONS: dict[type[Layer], Callable[[Graph, Stage, str, Arrays, str], str]] = {
    Conv: _conv,
    Activate: _activation,
    PRelu: _prelu,
    Pool: _pool,
    Residual: _residual,
    Neuron: _neuron,
    Dense: _dense,
    UnitLength: _unit_length,
    Dropout: _dropout,
    BatchNorm: _batch_norm,
}
"""By layer class: a function that adds the layer, which takes the graph, the stage, the name of its input, all arrays
and the stage's whole name, and returns the name of its output."""
