"""The shipped fusion for another voice network, whose probabilities already mean what they say.

The gains of a fusion of opinions do not depend on the scale of the logits; only its temperature of the voice
does. A voice network whose logits were brought to temperature one gets the same fusion with that one number.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from liveaffect.engines import manifest as manifests
from liveaffect.engines.build.onnx_graph import check_graph

_VOICE = 1
"""Its place among face, voice and words."""
_TENSOR = "temperature"


def write_beside(fusion: Path, folder: Path) -> Path:
    """Write the fusion of the folder `fusion` into another one, for a voice of temperature one; its manifest.

    Its confidence was fitted with another voice, so it comes without. Raises ValueError for a fusion that
    has no temperatures.
    """
    found = manifests.read(fusion / "fusion.json")
    graph = onnx.load_from_string(manifests.load_bytes(found, fusion, "fp32"))
    held = next((tensor for tensor in graph.graph.initializer if tensor.name == _TENSOR), None)
    if held is None:
        raise ValueError(f"the fusion '{found.name}' has no temperatures; train one with this voice")
    numbers = np.array(numpy_helper.to_array(held))
    numbers[_VOICE] = 1.0
    held.CopyFrom(numpy_helper.from_array(numbers, _TENSOR))
    check_graph(graph, found.name)
    content: bytes = graph.SerializeToString(deterministic=True)
    folder.mkdir(parents=True, exist_ok=True)
    manifests.write_whole(folder / manifests.file_name("fusion", "fp32"), content)
    manifest = manifests.record_file(manifests.extended(found, confidence={}, figures={}), "fp32", content)
    manifests.write(manifest, folder / "fusion.json")
    return folder / "fusion.json"
