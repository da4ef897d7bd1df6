"""Builds an ONNX graph node by node."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from facecnn.arrays import Array

OPSET, IR_VERSION = 17, 8
"""Of 2022: ONNX Runtime 1.12 and whatever came later read them."""


class Graph:
    """Nodes and constants in the order in which they were added."""

    def __init__(self) -> None:
        self.scope = ""
        """What the names of the next nodes begin with."""
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._unnamed: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        """Names of constants by their type, shape and bytes."""
        self._counts: Counter[str] = Counter()

    def weight(self, name: str, array: Array) -> str:
        """A constant in float32 with a name of its own."""
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name)
        return name

    def integers(self, *values: int) -> str:
        """A constant of int64 (n,): axes, a shape, places."""
        return self._shared("integers", np.array(values, np.int64))

    def numbers(self, array: Any) -> str:
        """A constant in float32 without a name, such as a factor."""
        return self._shared("numbers", np.array(array, np.float32))

    def _shared(self, kind: str, array: Array) -> str:
        """A constant of that value, made once."""
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._unnamed:
            name = self._unnamed[key] = f"{kind}_{len(self._unnamed)}"
            self._constants[name] = numpy_helper.from_array(array, name)
        return self._unnamed[key]

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output, and return the name of that, which is ``output`` or made up."""
        scoped = f"{self.scope}{operator}"
        self._counts[scoped] += output is None
        name = f"{scoped}_{self._counts[scoped]}" if output is None else output
        self._nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def model(
        self,
        name: str,
        version: str,
        inputs: dict[str, tuple[int, list[int | str]]],
        outputs: dict[str, tuple[int, list[int | str]]],
        metadata: dict[str, str],
    ) -> onnx.ModelProto:
        """The whole model; ``inputs`` and ``outputs`` by name, with type and shape."""
        given, made = (
            [helper.make_tensor_value_info(key, kind, shape) for key, (kind, shape) in own.items()]
            for own in (inputs, outputs)
        )
        graph = helper.make_graph(self._nodes, name, given, made, initializer=list(self._constants.values()))
        model = helper.make_model(
            graph,
            producer_name="facecnn",
            producer_version=version,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        helper.set_model_props(model, metadata)
        return model


FLOAT, INT64, UINT8 = int(TensorProto.FLOAT), int(TensorProto.INT64), int(TensorProto.UINT8)
"""Types of inputs and outputs."""
