"""Which part of a graph makes the picture of sound. It stays fp32 in every precision: found, not named."""

from __future__ import annotations

import onnx

PRODUCTS = ("Conv", "Gemm", "MatMul")
FRONT_END_OUTPUTS = ("mel_sum", "mel_sumsq")


def front_end(graph: onnx.ModelProto) -> set[str]:
    """The names of all nodes that a logarithm or the sums of the log-mel depend on."""
    maker = {name: node for node in graph.graph.node for name in node.output}
    logs = [node.output[0] for node in graph.graph.node if node.op_type == "Log"]
    outputs = [output.name for output in graph.graph.output]
    ahead = logs + [name for name in FRONT_END_OUTPUTS if name in outputs]
    found: set[str] = set()
    while ahead:
        node = maker.get(ahead.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            ahead.extend(node.input)
    return found
