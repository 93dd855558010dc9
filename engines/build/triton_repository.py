"""`liveaffect export --triton DIR`: networks as a model repository that Triton Inference Server loads.

    DIR/face/config.pbtxt                 made by Triton's own schema, so that no field can be misspelt
    DIR/face/<version>/model.onnx         the version is made of the manifest's hash (`version_of`)

A version that is there already stays, and all of them are served: nodes with the old network and nodes with
the new one are answered at the same time, which is what a rolling update needs. Delete a version's folder
when no node asks for it any more.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from liveaffect.engines import manifest as manifests
from liveaffect.engines.load import manifest_path
from liveaffect.engines.manifest import MAX_BATCH, Manifest
from liveaffect.engines.protocol import EngineUnavailable, TensorSpec
from liveaffect.engines.triton_engine import HASH, hash_parameter, identity, version_of

BACKENDS = ("onnx", "tensorrt", "python")
"""`python` runs the ONNX file by ONNX Runtime's package, for servers without the back end `onnx`."""
KINDS = ("face", "voice")
_SCHEMA = "tritonclient.grpc.model_config_pb2"
_MODEL = Path(__file__).with_name("triton_model.py")
_WAITING = 4
"""So many full batches may wait: who comes later would be answered too late anyway, and is told so."""

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Serving:
    """How a server runs the networks."""

    backend: str = "onnx"
    precision: str = "fp32"
    delay_us: int = 2_000
    """How long the batcher waits for more crops; it is part of every answer's age."""
    instances: int = 1
    """Executions side by side on each device."""
    gpu: bool = False


def write_repository(
    folder: Path, serving: Serving, weights: Path | None, report: Report, *, kinds: Sequence[str] = KINDS
) -> list[Path]:
    """Write each kind's network; the folders of their versions. Raises EngineError for what cannot be."""
    if serving.backend not in BACKENDS:
        raise EngineUnavailable(f"no back end '{serving.backend}' of Triton's; known: {', '.join(BACKENDS)}")
    written = []
    for kind in kinds:
        path = manifest_path(kind, weights)
        found = manifests.read(path)
        if found.foreign:
            report(
                f"{kind}: '{found.name}' takes tensors from a file that is not ours; it stays on the nodes"
            )
            continue
        written.append(_write_model(folder / kind, found, path.parent, serving))
        report(f"{kind}: version {version_of(found)} in {folder / kind}")
        if serving.backend == "tensorrt":
            report(f"{kind}: a plan fits one kind of card only, so build it on the server: {_trtexec(found)}")
    return written


def config_of(manifest: Manifest, serving: Serving) -> Any:
    """Triton's own description of the model, as a message of its schema."""
    try:
        schema: Any = import_module(_SCHEMA)
    except ImportError as err:
        raise EngineUnavailable(
            f"export for Triton needs '{err.name}', of the extra 'fleet': uv sync --extra fleet"
        ) from err
    names = {
        "onnx": {"platform": "onnxruntime_onnx", "backend": "onnxruntime"},
        "tensorrt": {"platform": "tensorrt_plan", "backend": "tensorrt"},
        "python": {"backend": "python"},
    }
    config = schema.ModelConfig(name=manifest.kind, max_batch_size=MAX_BATCH, **names[serving.backend])
    config.version_policy.all.SetInParent()
    config.input.extend(_tensor(each, "ModelInput") for each in manifest.inputs)
    config.output.extend(_tensor(each, "ModelOutput") for each in manifest.outputs)
    gpu = serving.gpu or serving.backend == "tensorrt"
    kind = schema.ModelInstanceGroup.KIND_GPU if gpu else schema.ModelInstanceGroup.KIND_CPU
    config.instance_group.add(count=serving.instances, kind=kind)
    batching = config.dynamic_batching
    batching.max_queue_delay_microseconds = serving.delay_us
    # A node takes back what it does not want any more. Timeouts of the queue itself are left out: with them a
    # server of version 2.51 that was held up for half a second crashed or hung in 4 of 18 tries, without them
    # in none of 16.
    batching.default_queue_policy.max_queue_size = _WAITING * MAX_BATCH
    warm = config.model_warmup.add(name="one blank item", batch_size=1)
    for each in manifest.inputs:
        blank = warm.inputs[each.name]
        blank.data_type, blank.zero_data = _data_type(each), True
        blank.dims.extend(each.shape)
    config.parameters[hash_parameter(manifest)].string_value = identity(manifest)
    config.parameters["network"].string_value = manifest.name
    config.parameters["precision"].string_value = serving.precision
    if serving.backend == "onnx":
        config.parameters["intra_op_thread_count"].string_value = "1"
    return config


def _write_model(folder: Path, manifest: Manifest, weights: Path, serving: Serving) -> Path:
    from google.protobuf import text_format

    config = config_of(manifest, serving)
    content = manifests.load_bytes(manifest, weights, serving.precision)
    version, path = folder / str(version_of(manifest)), folder / "config.pbtxt"
    # A server that looks meanwhile must not find half a version: the folder gets its name when it is whole.
    made = version if version.exists() else folder / f".{version.name}"
    made.mkdir(parents=True, exist_ok=True)
    manifests.write_whole(made / "model.onnx", content)
    if serving.backend == "python":
        shutil.copyfile(_MODEL, made / "model.py")
    made.rename(version)
    if path.exists():
        # Nodes with the old network that start meanwhile ask for its hash.
        for name, value in text_format.Parse(path.read_text("utf-8"), type(config)()).parameters.items():
            if name.startswith(HASH) and (folder / name.removeprefix(HASH)).is_dir():
                config.parameters[name].string_value = value.string_value
    manifests.write_whole(path, text_format.MessageToString(config).encode())
    return version


def _tensor(tensor: TensorSpec, message: str) -> Any:
    made: Any = getattr(import_module(_SCHEMA), message)(
        name=tensor.name, data_type=_data_type(tensor), dims=tensor.shape
    )
    return made


def _data_type(tensor: TensorSpec) -> int:
    schema: Any = import_module(_SCHEMA)
    names = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
    number: int = schema.DataType.Value(names[tensor.dtype])
    return number


def _trtexec(manifest: Manifest) -> str:
    """NVIDIA's command that makes the plan out of the file beside it."""
    sizes = {
        name: ",".join(f"{each.name}:{'x'.join(map(str, (count, *each.shape)))}" for each in manifest.inputs)
        for name, count in (("min", 1), ("opt", 16), ("max", MAX_BATCH))
    }
    shapes = " ".join(f"--{name}Shapes={given}" for name, given in sizes.items())
    return f"trtexec --onnx=model.onnx --saveEngine=model.plan {shapes}"
