"""From a torch module to `<kind>.onnx` and the manifest beside it.

Only the deployed form of a network is exported. Constants are not folded on the way, so every weight
keeps the name it has in the module and can be found again in the file; run-times fold them when they
load. Nothing is written before the ONNX checker and strict shape inference were content.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning
from torch.nn.modules.batchnorm import _BatchNorm

from engines import manifest as manifests
from engines import probe
from engines.manifest import Manifest
from engines.onnx_engine import OnnxEngine
from engines.protocol import EngineFileError

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
    from engines.model import presets

    module = presets.build(kind, preset, seed=seed)
    if state is not None:
        module.load_state_dict(dict(state))
    manifest = manifests.extended(_describe(kind, preset, module), training=training or {})
    return write(presets.deploy(module), manifest, out_dir)


def _describe(kind: str, preset: str, module: nn.Module) -> Manifest:
    """A voice network's sound front end says how long its pieces are and how far apart."""
    from engines.model.frontend import SoundFront

    for part in module.modules():
        if isinstance(part, SoundFront):
            return manifests.describe(kind, preset, piece=part.preset.piece, hop=part.preset.hop)
    return manifests.describe(kind, preset)


def write(module: nn.Module, manifest: Manifest, out_dir: Path) -> Path:
    """Write a deployed module under the given description. Raises ValueError for a training form."""
    content = to_onnx(module, manifest)
    manifest = manifests.record_file(manifest, "fp32", content)
    out_dir.mkdir(parents=True, exist_ok=True)
    manifests.write_whole(out_dir / manifests.file_name(manifest.kind, "fp32"), content)
    path = out_dir / f"{manifest.kind}.json"
    manifests.write(manifest, path)
    OnnxEngine(manifest, out_dir).close()
    return path


def to_onnx(module: nn.Module, manifest: Manifest) -> bytes:
    """The module as a checked ONNX file with a free batch axis."""
    refuse_training_form(module, manifest.name)
    names_in = [tensor.name for tensor in manifest.inputs]
    names_out = [tensor.name for tensor in manifest.outputs]
    sample = probe.inputs(manifest.kind, 2, piece=manifest.recipe.piece)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore", DeprecationWarning)  # The newer exporter wants a further package.
        warnings.simplefilter("error", TracerWarning)  # It would mean a batch size baked in.
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
            dynamo=False,
        )
        graph = onnx.load(target)
    graph.producer_name, graph.producer_version = "liveaffect", ""
    _state_output_shapes(graph, manifest)
    check(graph, manifest.name)
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


def refuse_training_form(module: nn.Module, name: str) -> None:
    """Raise ValueError unless the module is in its folded, evaluating form."""
    left = [path for path, part in module.named_modules() if isinstance(part, _BatchNorm)]
    if module.training or left:
        what = f"it still holds {len(left)} BatchNorm layers, {left[0]} for one" if left else "it is training"
        raise ValueError(
            f"'{name}' is in its training form ({what}); export engines.model.presets.deploy(module) instead"
        )


def check(graph: onnx.ModelProto, name: str) -> None:
    """The ONNX checker and strict shape inference; raises EngineFileError with what they found."""
    try:
        onnx.checker.check_model(graph, full_check=True)
        onnx.shape_inference.infer_shapes(graph, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as err:
        raise EngineFileError(f"the exported graph of '{name}' is not valid ONNX: {err}") from err


def _state_output_shapes(graph: onnx.ModelProto, manifest: Manifest) -> None:
    """Tracing loses some sizes behind a reshape; the protocol knows them, and the checker verifies them."""
    wanted = {tensor.name: tensor.shape for tensor in manifest.outputs}
    for output in graph.graph.output:
        dims = output.type.tensor_type.shape.dim
        for dim, size in zip(list(dims)[1:], wanted[output.name], strict=True):
            if not dim.HasField("dim_value"):
                dim.ClearField("dim_param")
                dim.dim_value = size
