"""Plans, the form in which TensorRT runs a network: built from an ONNX file and kept in the user's cache.

Only what TensorRT 10.16, 11 and TensorRT-RTX share is used: a strongly typed network, so the types in the
file are the types that run; INT8 by explicit Q/DQ; half precision by converting the file first. The batch
axis gets one profile for each size, and the profiles meet without a gap, so every batch up to the largest
fits one of them. TF32 is off unless asked for: the log-mel of the sound front end shows its error.
TensorRT-RTX builds without a GPU, and its plans are finished by the card that loads them.

    face-fp16-3f2a91c0d4e5.plan     the plan
    face-fp16-3f2a91c0d4e5.json     its whole key, its SHA-256 and what TensorRT said while it was built
    face-fp16-3f2a91c0d4e5-91ab03cd.runtime   kernels that TensorRT-RTX made for it on one card
    face-7d01c4be55a2.choice         which precision was the fastest on one card

The file name holds the hash of the key, so that a change of any part, such as a new driver of another card,
simply finds nothing; the sidecar is compared all the same, because files can be copied and renamed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from liveaffect.engines import gpu_driver, stopwatch, whisper
from liveaffect.engines.gpu_driver import Backend, Gpu
from liveaffect.engines.manifest import Manifest, file_name, load_bytes, write_whole
from liveaffect.engines.protocol import EngineFileError, EngineUnavailable
from liveaffect.engines.user_folders import cache_dir

PRECISIONS = ("fp32", "fp32-tf32", "fp16", "int8")
PORTABLE = "portable"
_REMEMBERED = 1_000
"""Lines of TensorRT's log."""
SIZES = (1, 4, 16, 64)
"""Batches that plans are made for: one face, a few, a room, as many as one tick may bring."""
FORMAT = 2
"""Of the sidecar and of how plans are built: a change of either makes all plans anew."""
CLEAN = "liveaffect engines clean"
Report = Callable[[str], None]
_log = logging.getLogger(__name__)
_SUFFIXES = frozenset((".plan", ".json", ".log", ".runtime", ".choice"))


@dataclass(frozen=True, slots=True)
class BuiltPlan:
    """A plan and how it came about."""

    plan: bytes
    log: tuple[str, ...]
    """What TensorRT said while it built, from its information level up."""
    seconds: float
    """Wall time of parsing and building."""


def build_plan(
    content: bytes,
    *,
    precision: str,
    backend: Backend,
    sizes: Sequence[int] = SIZES,
) -> BuiltPlan:
    """Build one network. `content` is the ONNX file as its manifest lists it: the INT8 file for 'int8',
    the fp32 file for everything else; half precision is made from it here.

    Raises EngineFileError for a file that TensorRT or the precision refuses, with the nodes at fault, and
    ValueError for sizes or a precision that there are not.
    """
    started_ns = stopwatch.wall_ns()
    prepared = prepare_plan(content, precision=precision, backend=backend, sizes=sizes)
    serialized = prepared.builder.build_serialized_network(prepared.network, prepared.config)
    said = prepared.said
    if serialized is None:
        raise EngineFileError(f"{backend} cannot build this network in {precision}: {said.complaint()}")
    seconds = (stopwatch.wall_ns() - started_ns) / 1e9
    return BuiltPlan(bytes(serialized), tuple(said.lines), seconds)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What TensorRT is about to build: its own objects, of which the builder must outlive the others."""

    said: Any
    """The logger."""
    builder: Any
    network: Any
    config: Any
    profiles: tuple[Any, ...]
    """In the order of the sizes."""


def prepare_plan(
    content: bytes,
    *,
    precision: str,
    backend: Backend,
    sizes: Sequence[int] = SIZES,
) -> Prepared:
    """Everything that `build_plan` does before the build itself, and refuses."""
    _check_wanted(precision, sizes)
    if precision == "fp16":
        content = _half(content)
    trt = backend.module
    said = listener(trt)
    builder = trt.Builder(said)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parsed(trt, network, said, content, backend)
    _check_network(trt, network, precision)
    config = builder.create_builder_config()
    if precision == "fp32-tf32":
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    profiles = tuple(_profile(builder, config, network, *batches) for batches in batch_ranges(sizes))
    return Prepared(said, builder, network, config, profiles)


def source_of(precision: str) -> str:
    """The precision of the ONNX file that a plan in this one is built from."""
    return "int8" if precision == "int8" else "fp32"


def source_bytes(manifest: Manifest, folder: Path, precision: str) -> bytes:
    """The ONNX file that a plan is built from, whole: with Whisper's tensors where it stands on them."""
    content = load_bytes(manifest, folder, source_of(precision))
    borrowed = whisper.tensors(manifest)
    if not borrowed:
        return content
    try:
        import onnx
    except ImportError as err:
        raise EngineUnavailable(
            f"Whisper's tensors are put in with the package onnx ({err}); pip install onnx"
        ) from err
    model = onnx.ModelProto.FromString(content)
    for held in model.graph.initializer:
        if held.name in borrowed:
            held.CopyFrom(onnx.numpy_helper.from_array(borrowed[held.name], held.name))
    return bytes(model.SerializeToString())


def batch_ranges(sizes: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The smallest and largest batch of each profile: (1, 4, 16) gives (1, 1), (2, 4), (5, 16).

    A profile is tuned for its largest batch.
    """
    return tuple((below + 1, size) for below, size in zip((0, *sizes[:-1]), sizes, strict=True))


def _half(content: bytes) -> bytes:
    try:
        from liveaffect.engines.build.onnx_graph import to_half
    except ImportError as err:
        raise EngineUnavailable(
            f"half precision is made with the package onnx ({err}); pip install onnx, or build int8"
        ) from err
    return to_half(content)


def _check_wanted(precision: str, sizes: Sequence[int]) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"no precision '{precision}'; plans are built in {', '.join(PRECISIONS)}")
    if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
        raise ValueError(f"profiles need rising batch sizes from 1 up, got {list(sizes)}")


def _parsed(trt: Any, network: Any, said: Any, content: bytes, backend: Backend) -> None:
    """Raises EngineFileError that quotes what the parser refused, node by node."""
    parser = trt.OnnxParser(network, said)
    if parser.parse(content):
        return
    faults = [parser.get_error(at) for at in range(parser.num_errors)]
    where = [
        f"node '{fault.node_name()}' ({fault.node_operator()}): {fault.desc()}"
        if fault.node_name()
        else fault.desc()
        for fault in faults
    ]
    raise EngineFileError(f"{backend} cannot read this network: {'; '.join(where) or said.complaint()}")


def _check_network(trt: Any, network: Any, precision: str) -> None:
    """What was parsed must be what was asked for: free batch axis, known types, Q/DQ exactly in INT8."""
    inputs = [network.get_input(at) for at in range(network.num_inputs)]
    outputs = [network.get_output(at) for at in range(network.num_outputs)]
    if not inputs or not outputs:
        raise EngineFileError("there is no network in this file: it has no inputs or no outputs")
    known = {trt.DataType.FLOAT, trt.DataType.UINT8}
    for tensor in (*inputs, *outputs):
        if tensor.dtype not in known:
            raise EngineFileError(
                f"'{tensor.name}' is of type {tensor.dtype.name}; plans take float32 and uint8"
            )
    for tensor in inputs:
        first, *rest = tensor.shape
        if first != -1 or any(size < 1 for size in rest):
            raise EngineFileError(
                f"the input '{tensor.name}' has the shape {tuple(tensor.shape)}; "
                "wanted a free batch axis and fixed sizes after it"
            )
    layers = (network.get_layer(at) for at in range(network.num_layers))
    quantised = sum(layer.type == trt.LayerType.DEQUANTIZE for layer in layers)
    if precision == "int8" and not quantised:
        raise EngineFileError(
            "nothing in this network is quantised; an int8 plan is built from the INT8 file"
        )
    if precision != "int8" and quantised:
        raise EngineFileError(
            f"this network is quantised ({quantised} layers); "
            f"a plan in {precision} is built from the fp32 file"
        )


def _profile(builder: Any, config: Any, network: Any, low: int, high: int) -> Any:
    profile = builder.create_optimization_profile()
    for at in range(network.num_inputs):
        tensor = network.get_input(at)
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, (low, *rest), (high, *rest), (high, *rest))
    if config.add_optimization_profile(profile) < 0:
        raise EngineUnavailable(f"TensorRT refuses a profile for batches of {low} to {high}")
    return profile


def listener(trt: Any) -> Any:
    """A logger with `lines`, the newest from the information level up, and `complaint()`; prints nothing."""

    class Listener(trt.ILogger):  # type: ignore[misc]
        """Its class derives from the module's."""

        def __init__(self) -> None:
            super().__init__()
            self.lines: deque[str] = deque(maxlen=_REMEMBERED)

        def log(self, severity: Any, msg: str) -> None:
            if severity.name != "VERBOSE":
                self.lines.append(f"{severity.name} {msg}")

        def complaint(self) -> str:
            """The errors, or that there were none."""
            said = (line.partition("ERROR ")[2] for line in self.lines if "ERROR" in line.split(" ")[0])
            return "; ".join(said) or "TensorRT does not say why"

    return Listener()


class PlanMissing(EngineFileError):
    """There is no such plan yet."""


@dataclass(frozen=True, slots=True)
class PlanKey:
    """Everything a plan depends on."""

    network: str
    """'face', 'voice' or 'fusion'."""
    onnx: str
    """SHA-256 of the ONNX file it is built from, as the manifest has it."""
    precision: str
    sizes: tuple[int, ...]
    """The largest batch of each profile."""
    flavour: str
    version: str
    """Of TensorRT."""
    gpu: str
    """The GPU's name, or 'portable'."""
    capability: str
    """Such as '8.9', or 'portable'."""
    foreign: str = ""
    """SHA-256 of Whisper's file, where tensors of it were put into ours."""
    format: int = FORMAT

    @property
    def stem(self) -> str:
        """The file name without its ending."""
        return f"{self.network}-{self.precision}-{_hashed(asdict(self))[:12]}"

    @property
    def mend(self) -> str:
        """The command that builds this plan anew."""
        return f"build it with 'liveaffect build --precision {self.precision}'"


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """One plan in the cache, as `listed` finds it."""

    path: Path
    key: PlanKey | None
    """None if the sidecar is missing or cannot be understood."""
    size: int
    """Bytes of all its files."""
    built: float
    """When, in seconds since 1970."""


def key_of(
    manifest: Manifest,
    precision: str,
    backend: Backend,
    gpu: Gpu | None = None,
    sizes: Sequence[int] = SIZES,
) -> PlanKey:
    """The key of the plan for one network of a manifest on one GPU; None where there is no GPU.

    Plans of TensorRT-RTX are portable among the cards it supports: the card's own part is the run-time cache.
    TensorRT builds for the one card that is there, and not without one. Raises EngineUnavailable for a card
    that would refuse the plan, before anything is built.
    """
    source = file_name(manifest.kind, source_of(precision))
    if source not in manifest.files:
        raise EngineFileError(f"'{manifest.name}' comes without {source}, from which this plan is built")
    if gpu is None and not backend.is_rtx:
        raise EngineUnavailable(
            f"{backend} builds plans only on the GPU that will run them, and there is none"
        )
    if gpu is not None and (why := gpu_driver.why_refused(backend.flavour, gpu)):
        raise EngineUnavailable(why)
    is_portable = backend.is_rtx or gpu is None
    return PlanKey(
        network=manifest.kind,
        onnx=manifest.files[source],
        precision=precision,
        sizes=tuple(sizes),
        flavour=backend.flavour,
        version=backend.version,
        gpu=PORTABLE if is_portable or gpu is None else gpu.name,
        capability=PORTABLE if is_portable or gpu is None else gpu.sm,
        foreign=str(manifest.foreign.get("sha256", "")),
    )


def plans_dir(cache: Path | None = None) -> Path:
    """Where plans are kept; `cache` is another folder than the user's own, mostly for tests."""
    return cache or cache_dir() / "plans"


def plan_path(key: PlanKey, cache: Path | None = None) -> Path:
    """Where the plan of this key lies or should lie."""
    return plans_dir(cache) / f"{key.stem}.plan"


def runtime_cache_path(key: PlanKey, gpu: Gpu, cache: Path | None = None) -> Path:
    """Where the kernels are kept that TensorRT-RTX made for this plan on this card with this driver."""
    return plans_dir(cache) / f"{key.stem}-{_hashed([gpu.name, gpu.sm, gpu.driver])[:8]}.runtime"


def choice_path(key: PlanKey, gpu: Gpu, cache: Path | None = None) -> Path:
    """Where it is kept which precision was the fastest for this network on this card with this driver."""
    whole = [key.onnx, key.flavour, key.version, gpu.name, gpu.sm, gpu.driver, key.format]
    return plans_dir(cache) / f"{key.network}-{_hashed(whole)[:12]}.choice"


def write_plan(key: PlanKey, built: BuiltPlan, cache: Path | None = None) -> Path:
    """Keep a plan; its path. A reader sees all of it or nothing: the sidecar comes last."""
    path = plan_path(key, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    sidecar = path.with_suffix(".json")
    sidecar.unlink(missing_ok=True)
    write_whole(path, built.plan)
    digest = hashlib.sha256(built.plan).hexdigest()
    about = {"key": asdict(key), "sha256": digest, "size": len(built.plan), "log": built.log}
    write_whole(sidecar, (json.dumps(about, indent=1) + "\n").encode())
    return path


def read_plan(key: PlanKey, cache: Path | None = None) -> bytes:
    """The plan of exactly this key, checked byte for byte.

    Raises PlanMissing if there is none, EngineFileError if what is there is damaged or of another key.
    """
    path = plan_path(key, cache)
    if not path.exists() or not path.with_suffix(".json").exists():
        raise PlanMissing(f"there is no {key.precision} plan for the {key.network} network yet; {key.mend}")
    found, digest, size = _sidecar(path, key.mend)
    if found != key:
        pairs = ((name, getattr(found, name), getattr(key, name)) for name in asdict(key))
        differs = ", ".join(f"{name} {has} (wanted {wants})" for name, has, wants in pairs if has != wants)
        raise EngineFileError(f"the plan {path} is for {differs}; {key.mend}")
    try:
        plan = path.read_bytes()
    except OSError as err:
        raise EngineFileError(f"cannot read the plan {path}: {err}; {key.mend}") from err
    if hashlib.sha256(plan).hexdigest() != digest:
        raise EngineFileError(
            f"the plan {path} is truncated or altered: {len(plan)} bytes, wanted {size}; {key.mend}"
        )
    return plan


def obtain(
    key: PlanKey,
    content: Callable[[], bytes],
    backend: Backend,
    *,
    report: Report = _log.info,
    cache: Path | None = None,
) -> bytes:
    """The plan of this key: out of the cache, or built now and kept. `content` gives the ONNX file.

    What is damaged is named in `report` and built anew. Raises EngineFileError for a file that is not the
    key's, or that TensorRT refuses; nothing is kept then.
    """
    name = f"{key.network} {key.precision}"
    try:
        return read_plan(key, cache)
    except PlanMissing:
        report(f"{name}: building a plan for {backend}, once")
    except EngineFileError as err:
        report(f"{name}: building anew, because {err}")
    onnx = content()
    digest = hashlib.sha256(onnx).hexdigest()
    # What has foreign tensors in it is no file of the manifest's: both were checked when it was put together.
    if (digest != key.onnx and not key.foreign) or (backend.flavour, backend.version) != (
        key.flavour,
        key.version,
    ):
        raise EngineFileError(
            f"the plan wanted is for {key.onnx[:12]}... on {key.flavour} {key.version}; "
            f"given are {digest[:12]}... and {backend}"
        )
    built = build_plan(onnx, precision=key.precision, backend=backend, sizes=key.sizes)
    path = write_plan(key, built, cache)
    report(f"{name}: {path} ({len(built.plan) / 1e6:.1f} MB in {built.seconds:.1f} s; log beside it)")
    return built.plan


def listed(cache: Path | None = None) -> tuple[StoredPlan, ...]:
    """Every plan in the cache, whether it can be used or not, by name."""
    found = []
    for path in sorted(plans_dir(cache).glob("*.plan")):
        try:
            key = _sidecar(path, CLEAN)[0]
        except EngineFileError:
            key = None
        parts = [part for part in path.parent.glob(f"{path.stem}*") if part.suffix in _SUFFIXES]
        size = sum(part.stat().st_size for part in parts)
        found.append(StoredPlan(path, key, size, path.stat().st_mtime))
    return tuple(found)


def clean(cache: Path | None = None) -> tuple[int, int]:
    """Remove every plan with all that belongs to it; how many files and bytes that were."""
    files = [path for path in plans_dir(cache).glob("*") if _SUFFIXES.intersection(path.suffixes)]
    freed = sum(path.stat().st_size for path in files)
    for path in files:
        path.unlink(missing_ok=True)
    return len(files), freed


def _sidecar(plan: Path, mend: str) -> tuple[PlanKey, str, int]:
    """What the file beside a plan says: its key, its SHA-256, its bytes."""
    path = plan.with_suffix(".json")
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        key = about["key"]
        if key.keys() != {field.name for field in fields(PlanKey)}:
            raise ValueError(f"its key has the fields {', '.join(key)}")
        return PlanKey(**{**key, "sizes": tuple(key["sizes"])}), str(about["sha256"]), int(about["size"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as err:
        raise EngineFileError(
            f"the description {path} of a plan is missing or damaged ({err}); {mend}"
        ) from err


def _hashed(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
