"""A network on torch, eager and in fp32: the reference that every other back end is compared with.

Its weights come out of the exported file, by their own names, so that reference and export share the one
checked artefact and a difference between them can only be a difference in computing. Never used live.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from liveaffect.engines import foreign
from liveaffect.engines import manifest as manifests
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.protocol import (
    Done,
    EngineError,
    EngineFailed,
    EngineFileError,
    EngineSpec,
    EngineUnavailable,
    Pending,
    Tensors,
    check_finite,
    check_inputs,
    zeros_for,
)


class TorchEngine:
    """One torch module on the CPU. Not thread-safe: one caller."""

    def __init__(self, module: nn.Module, spec: EngineSpec) -> None:
        """Take over a module whose forward has the protocol's tensors, in their order."""
        self._module: nn.Module | None = module.eval()
        self._spec = spec

    @property
    def spec(self) -> EngineSpec:
        """What goes in and what comes out."""
        return self._spec

    def submit(self, inputs: Tensors) -> Pending:
        """Run one batch at once, on this thread."""
        if self._module is None:
            raise EngineError(f"engine '{self._spec.name}' is closed")
        check_inputs(self._spec, inputs)
        given = [torch.from_numpy(np.array(inputs[tensor.name])) for tensor in self._spec.inputs]
        try:
            with torch.inference_mode():
                answers = self._module(*given)
        except RuntimeError as err:
            raise EngineFailed(f"engine '{self._spec.name}' failed: {err}") from err
        # A copy each: torch may answer with views of one another or of its weights.
        outputs = {
            tensor.name: np.array(answer.numpy())
            for tensor, answer in zip(self._spec.outputs, answers, strict=True)
        }
        check_finite(self._spec, outputs)
        return Done(outputs)

    def infer(self, inputs: Tensors) -> Tensors:
        """`submit` and wait."""
        return self.submit(inputs).result()

    def warm_up(self) -> None:
        """Run one blank item."""
        self.infer(zeros_for(self._spec))

    def close(self) -> None:
        """Let go of the module. Safe to call twice."""
        self._module = None


def open_weights(manifest: Manifest, folder: Path) -> TorchEngine:
    """The deployed module of the manifest's preset, filled with the weights of its fp32 file."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as err:
        raise EngineUnavailable(
            f"torch reads its weights out of the ONNX file and needs the package 'onnx' for it ({err}); "
            "pip install 'liveaffect[train]'"
        ) from err
    from liveaffect.engines.model import presets

    if manifest.preset not in presets.preset_names(manifest.kind):
        raise EngineUnavailable(
            f"torch does not know the {manifest.kind} preset '{manifest.preset}' of {manifest.name}; "
            "the ONNX file runs without it: --engine onnx"
        )
    path = folder / manifests.file_name(manifest.kind, "fp32")
    graph = onnx.load_model_from_string(manifests.load_bytes(manifest, folder, "fp32")).graph
    stored = {weight.name: weight for weight in graph.initializer}
    # Weights that are equal are stored once; an Identity node gives the second its name.
    stored |= {
        n.output[0]: stored[n.input[0]]
        for n in graph.node
        if n.op_type == "Identity" and n.input[0] in stored
    }
    module = presets.deploy(presets.build(manifest.kind, manifest.preset))
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in stored]
    state = {
        name: torch.full_like(array, torch.nan)
        if name in missing
        else torch.from_numpy(numpy_helper.to_array(stored[name]).copy())
        for name, array in wanted.items()
    }
    state |= _borrowed(module, manifest)
    engine = TorchEngine(module, manifest.spec("fp32", "torch"))
    try:
        module.load_state_dict(state)
        # Export leaves out what only training uses. Whatever else is missing is not a number, and shows.
        engine.warm_up()
    except (RuntimeError, EngineFailed) as err:
        lacks = f"; it lacks {', '.join(missing[:3])}" if missing else ""
        raise EngineFileError(
            f"{path} does not hold the weights of preset '{manifest.preset}'{lacks}: {err}; "
            f"{manifests.mend(path)}"
        ) from err
    return engine


def _borrowed(module: nn.Module, manifest: Manifest) -> dict[str, torch.Tensor]:
    """The tensors of a network that its file only names, from the user's copy of theirs."""
    from liveaffect.engines.model.voice_whisper import FOREIGN, VoiceWhisper, foreign_names

    if not isinstance(module, VoiceWhisper):
        return {}
    theirs = foreign.tensors(manifest)
    names = foreign_names(module.ears.state_dict())
    return {FOREIGN + ours: torch.from_numpy(theirs[name].copy()) for ours, name in names.items()}
