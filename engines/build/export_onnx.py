"""From a torch module to `<kind>.onnx` and the manifest beside it.

Only the deployed form of a network is exported. Constants are not folded on the way, so every weight keeps
the name it has in the module and can be found again in the file; run-times fold them when they load.
Nothing is written before the ONNX checker and strict shape inference were content. Of tensors that are not
ours the file says where they belong and what shape they have, and holds none of their numbers: they are put
back from the user's own copy when it is loaded.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from liveaffect.engines import manifest as manifests
from liveaffect.engines import parity, whisper
from liveaffect.engines.build.onnx_graph import check_graph
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.model.voice_statistics import FOREIGN, VoiceWhisper, foreign_names
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import Statistics

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
    for name, theirs_name in theirs.items():
        tensor = held[name]
        for part in ("raw_data", "float_data"):
            tensor.ClearField(part)
        tensor.name = theirs_name
        tensor.data_location = onnx.TensorProto.EXTERNAL
        del tensor.external_data[:]
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", LOCATION
    for node in found.graph.node:
        node.input[:] = [theirs.get(name, name) for name in node.input]
    return found


LARGE = 4096
"""Numbers in a tensor from which on it is worth keeping in half precision."""
_AS_FLOAT = "_as_float"


@torch.no_grad()
def in_halves(network: nn.Module) -> None:
    """Round what is ours and large to half precision, so that its file is half as large and loses nothing."""
    for name, one in network.named_parameters():
        if not name.startswith(FOREIGN) and one.numel() >= LARGE:
            one.copy_(one.half().float())


def halved(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with every large tensor in half precision that loses nothing by it; they keep their names."""
    found = onnx.ModelProto()
    found.CopyFrom(graph)
    casts = []
    for tensor in found.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        numbers = numpy_helper.to_array(tensor)
        half = numbers.astype(np.float16)
        if numbers.size < LARGE or not np.array_equal(half.astype(np.float32), numbers):
            continue
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
        out = tensor.name + _AS_FLOAT
        for node in found.graph.node:
            node.input[:] = [out if name == tensor.name else name for name in node.input]
        casts.append(onnx.helper.make_node("Cast", [tensor.name], [out], name=out, to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *found.graph.node]
    del found.graph.node[:]
    found.graph.node.extend(nodes)
    return found


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


OPSET = 17
"""The first with LayerNormalization as one operator; ONNX Runtime and TensorRT know all of it."""
BATCH_AXIS = "n"


def export(
    kind: str,
    preset: str,
    out_dir: Path,
    *,
    state: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    training: Mapping[str, Any] | None = None,
) -> Path:
    """Write a preset's network and manifest into a folder; the manifest's path.

    `state` is the training form's; without it the weights are random from `seed`. `training` says what
    the weights were trained on; without it they count as untrained.
    """
    from liveaffect.engines.model import presets

    module = presets.build(kind, preset, seed=seed)
    if state is not None:
        module.load_state_dict(dict(state))
    manifest = manifests.extended(_describe(kind, preset, module), training=training or {})
    return write_network(presets.deploy(module), manifest, out_dir)


def _describe(kind: str, preset: str, module: nn.Module) -> Manifest:
    """A voice network's sound front end says how long its pieces are and how far apart."""
    from liveaffect.engines.model.frontend import SoundFront
    from liveaffect.engines.model.voice_statistics import StatisticsVoice

    if isinstance(module, StatisticsVoice):
        heard, kept = module.sound, Statistics(module.width, "pieces")
        return manifests.describe(
            kind, preset, piece=heard.piece, hop=heard.hop, lead=heard.lead, statistics=kept
        )

    for part in module.modules():
        if isinstance(part, SoundFront):
            sound = part.preset
            return manifests.describe(kind, preset, piece=sound.piece, hop=sound.hop)
    return manifests.describe(kind, preset)


def write_network(module: nn.Module, manifest: Manifest, out_dir: Path) -> Path:
    """Write a deployed module under the given description, after it ran once; the manifest's path.

    Raises ValueError for a training form, EngineFileError for a network with other tensors.
    """
    content = to_onnx(module, manifest)
    whole = manifests.record_file(manifest, "fp32", content)
    name = manifests.file_name(manifest.kind, "fp32")
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / name).write_bytes(content)
        OnnxEngine(whole, Path(scratch)).warm_up()
    if theirs := _foreign_names(module):
        ours = halved(taken_out(onnx.load_from_string(content), theirs))
        content = ours.SerializeToString(deterministic=True)
        manifest = manifests.extended(manifest, foreign=_foreign_tensors(module, theirs))
    manifest = manifests.record_file(manifest, "fp32", content)
    out_dir.mkdir(parents=True, exist_ok=True)
    manifests.write_whole(out_dir / name, content)
    path = out_dir / f"{manifest.kind}.json"
    manifests.write(manifest, path)
    return path


def _foreign_names(module: nn.Module) -> dict[str, str]:
    """What the tensors of a network that are not ours are called in the file that they are from."""
    if not isinstance(module, VoiceWhisper):
        return {}
    return {FOREIGN + ours: name for ours, name in foreign_names(module.ears.state_dict()).items()}


def _foreign_tensors(module: nn.Module, theirs: Mapping[str, str]) -> dict[str, Any]:
    assert isinstance(module, VoiceWhisper)
    return whisper.described(whisper.KNOWN[module.preset.whisper], list(theirs.values()))


def to_onnx(module: nn.Module, manifest: Manifest) -> bytes:
    """The module as a checked ONNX file with a free batch axis."""
    refuse_training_form(module, manifest.name)
    graph = _traced(module, manifest)
    graph.producer_name, graph.producer_version = "liveaffect", ""
    _state_inputs(graph, manifest)
    _cast_bytes_first(graph)
    _state_output_shapes(graph, manifest)
    check_graph(graph, manifest.name)
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


def _traced(module: nn.Module, manifest: Manifest) -> onnx.ModelProto:
    names_in = [tensor.name for tensor in manifest.inputs]
    names_out = [tensor.name for tensor in manifest.outputs]
    sample = parity.inputs(
        manifest.kind, 2, piece=manifest.recipe.piece, statistics=manifest.recipe.statistics
    )
    with (
        tempfile.TemporaryDirectory() as scratch,
        warnings.catch_warnings(record=True) as warned,
        torch.inference_mode(),
    ):
        warnings.simplefilter("always")
        target = Path(scratch) / "traced.onnx"
        torch.onnx.export(
            module,
            tuple(torch.from_numpy(sample[name]) for name in names_in),
            target,
            input_names=names_in,
            output_names=names_out,
            dynamic_axes={name: {0: BATCH_AXIS} for name in (*names_in, *names_out)},
            opset_version=OPSET,
            do_constant_folding=False,
            dynamo=False,  # The newer exporter wants a further package.
        )
        graph = onnx.load(target)
    # A deprecation is known; whatever else the tracer warns of means that it did not see everything.
    if told := [str(w.message) for w in warned if not issubclass(w.category, DeprecationWarning)]:
        raise ValueError(f"'{manifest.name}' cannot be exported for every batch: {told[0]}")
    return graph


def refuse_training_form(module: nn.Module, name: str) -> None:
    """Raise ValueError unless the module is in its folded, evaluating form."""
    left = [path for path, part in module.named_modules() if isinstance(part, _BatchNorm)]
    if module.training or left:
        what = f"it still holds {len(left)} BatchNorm layers, {left[0]} for one" if left else "it is training"
        raise ValueError(f"'{name}' is in its training form ({what}); export presets.deploy(module) instead")


def _state_inputs(graph: onnx.ModelProto, manifest: Manifest) -> None:
    """Tracing drops inputs that the network ignores; every network of a kind takes the same ones."""
    traced = {value.name: value for value in graph.graph.input}
    del graph.graph.input[:]
    for tensor in manifest.inputs:
        dims: list[str | int | None] = [BATCH_AXIS, *tensor.shape]
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
        ignored = onnx.helper.make_tensor_value_info(tensor.name, kind, dims)
        graph.graph.input.append(traced.get(tensor.name, ignored))


def _cast_bytes_first(graph: onnx.ModelProto) -> None:
    """TensorRT can do one thing with uint8: cast it. So that comes before any transposing."""
    for value in graph.graph.input:
        if value.type.tensor_type.elem_type != onnx.TensorProto.UINT8:
            continue
        light = f"{value.name}_float"
        for node in graph.graph.node:
            node.input[:] = [light if name == value.name else name for name in node.input]
        cast = onnx.helper.make_node(
            "Cast", [value.name], [light], name=f"cast_{value.name}", to=onnx.TensorProto.FLOAT
        )
        graph.graph.node.insert(0, cast)
    del graph.graph.value_info[:]  # What tracing noted on the way may now be of another type.


def _state_output_shapes(graph: onnx.ModelProto, manifest: Manifest) -> None:
    """Tracing loses some sizes behind a reshape; the protocol knows them, and the checker verifies them."""
    wanted = {tensor.name: tensor.shape for tensor in manifest.outputs}
    for output in graph.graph.output:
        dims = list(output.type.tensor_type.shape.dim)[1:]
        found = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)
        shape = wanted[output.name]
        if len(found) != len(shape) or any(f not in (None, w) for f, w in zip(found, shape, strict=True)):
            raise EngineFileError(
                f"'{output.name}' of '{manifest.name}' has {list(found)} numbers an item, "
                f"wanted are {list(shape)}"
            )
        for dim, size in zip(dims, shape, strict=True):
            dim.ClearField("dim_param")
            dim.dim_value = size
