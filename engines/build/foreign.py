"""Takes tensors that are not ours out of a graph, and leaves their names behind.

What remains is ours to publish: the file says where a tensor of Whisper's belongs and what shape it has, and
holds none of its numbers. They are put back from the user's own copy when the network is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

LOCATION = "whisper"
"""What the file says of where those tensors are; nothing of that name exists, they are handed over."""


def taken_out(graph: onnx.ModelProto, theirs: Mapping[str, str]) -> onnx.ModelProto:
    """The graph without the tensors named in `theirs`, which now go by their names in the foreign file.

    Raises ValueError if the graph lacks one of them.
    """
    found = onnx.ModelProto()
    found.CopyFrom(graph)
    held = {tensor.name: tensor for tensor in found.graph.initializer}
    if missing := sorted(set(theirs) - set(held)):
        raise ValueError(f"the graph holds no tensor {', '.join(missing)}")
    for name, foreign in theirs.items():
        tensor = held[name]
        for part in ("raw_data", "float_data"):
            tensor.ClearField(part)
        tensor.name = foreign
        tensor.data_location = onnx.TensorProto.EXTERNAL
        del tensor.external_data[:]
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", LOCATION
    for node in found.graph.node:
        node.input[:] = [theirs.get(name, name) for name in node.input]
    return found
