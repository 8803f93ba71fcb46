"""A TensorFlow graph without layers, in the child process: run on pictures, or converted to ``.tflite``.

See ``reading.graphs.file`` for its folder. Its variables become constants; nothing else is run first.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

MARK = "graph.json"


def as_tflite(tensorflow: Any, function: Any) -> np.ndarray:
    """The bytes of a float ``.tflite``. ``function``: without variables."""
    return np.frombuffer(tensorflow.lite.TFLiteConverter.from_concrete_functions([function]).convert(), np.uint8)


class GraphModel:
    """A graph that is called like a Keras model."""

    def __init__(self, tensorflow: Any, folder: Path) -> None:
        self._tf = tensorflow
        self._told = json.loads((folder / MARK).read_text(encoding="utf-8"))
        self._frozen = self._freeze(folder)
        self._functions: dict[tuple[int | None, ...], Any] = {}

    def __call__(self, batch: np.ndarray, training: bool = False) -> Any:
        fixed = self._told["shape"][0] is not None
        pieces = [batch[i : i + 1] for i in range(len(batch))] if fixed else [batch]
        function = self._function((1 if fixed else None, *batch.shape[1:]))
        dtype = function.inputs[0].dtype
        return np.concatenate([np.asarray(function(self._tf.cast(piece, dtype))) for piece in pieces])

    def convert(self, shape: Any) -> np.ndarray:
        """The bytes of a float ``.tflite``. ``shape``: of its input; sizes that stay open are None."""
        return as_tflite(self._tf, self._function(tuple(shape)))

    def _freeze(self, folder: Path) -> Any:
        from tensorflow.python.framework import convert_to_constants  # the only way for a graph that is not a function

        tf, v1 = self._tf, self._tf.compat.v1
        graph_def = v1.GraphDef.FromString((folder / "graph.pb").read_bytes())
        target = self._told["target"].split(":")[0]
        with np.load(folder / "variables.npz") as stored, tf.Graph().as_default() as graph, v1.Session() as session:
            tf.import_graph_def(graph_def, name="")
            known = {operation.name for operation in graph.get_operations()}
            for number, name in enumerate(self._told["variables"]):
                variable = graph.get_operation_by_name(name)
                values = stored[f"arr_{number}"]
                dtype = variable.get_attr("dtype")
                given = v1.placeholder(dtype, values.shape)
                if variable.type == "VarHandleOp":
                    assigned = tf.raw_ops.AssignVariableOp(resource=variable.outputs[0], value=given)
                    read = f"{name}/Read/ReadVariableOp"  # where freezing looks for the values
                    if read not in known:
                        tf.raw_ops.ReadVariableOp(resource=variable.outputs[0], dtype=dtype, name=read)
                else:
                    assigned = tf.raw_ops.Assign(ref=variable.outputs[0], value=given)
                session.run(assigned, {given: values})
            return convert_to_constants.convert_variables_to_constants_from_session_graph(session, graph_def, [target])

    def _function(self, shape: tuple[int | None, ...]) -> Any:
        """The frozen graph as a function of pictures (batch, height, width, 3)."""
        if shape not in self._functions:
            tf, source = self._tf, self._told["source"]
            nodes = {node.name: node for node in self._frozen.node}
            dtype = tf.dtypes.as_dtype(nodes[source.split(":")[0]].attr["dtype"].type)

            def run(pictures: Any) -> Any:
                found = tf.import_graph_def(
                    self._frozen, input_map={source: pictures}, return_elements=[self._told["target"]], name=""
                )
                return found[0]

            self._functions[shape] = tf.compat.v1.wrap_function(run, [tf.TensorSpec(shape, dtype)])
        return self._functions[shape]
