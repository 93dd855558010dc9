"""Plans that were built, kept in the user's cache; none is loaded unless every part of its key fits.

    face-fp16-3f2a91c0d4e5.plan     the plan
    face-fp16-3f2a91c0d4e5.json     its whole key, its SHA-256 and how it was built
    face-fp16-3f2a91c0d4e5.log      what TensorRT said meanwhile
    face-fp16-3f2a91c0d4e5-91ab03cd.runtime   kernels that TensorRT-RTX made for it on one card

The file name holds the hash of the key, so that a change of any part, such as a new driver of another card,
simply finds nothing; the sidecar is compared all the same, because files can be copied and renamed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from liveaffect.engines.build.plan import PORTABLE, SIZES, BuiltPlan, Report, build_plan, source_of
from liveaffect.engines.gpu_driver import Gpu
from liveaffect.engines.manifest import Manifest, file_name, write_whole
from liveaffect.engines.protocol import EngineFileError, EngineUnavailable
from liveaffect.engines.tensorrt_backend import Backend
from liveaffect.engines.user_folders import cache_dir

FORMAT = 1
"""Of the sidecar and of how plans are built: a change of either makes all plans anew."""
PORTABLE_FROM = (8, 0)
"""TensorRT-RTX makes plans for older cards only when it is told so."""
CLEAN = "liveaffect engines clean"
_log = logging.getLogger(__name__)
_SUFFIXES = frozenset((".plan", ".json", ".log", ".runtime"))


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
    format: int = FORMAT

    @property
    def stem(self) -> str:
        """The file name without its ending."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.network}-{self.precision}-{digest[:12]}"

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
    seconds: float
    """How long it took to build."""


def key_of(
    manifest: Manifest,
    precision: str,
    backend: Backend,
    gpu: Gpu | None = None,
    sizes: Sequence[int] = SIZES,
) -> PlanKey:
    """The key of the plan for one network of a manifest on one GPU; None where there is no GPU.

    Plans of TensorRT-RTX are portable from compute capability 8.0 on: the card's own part is the run-time
    cache. TensorRT builds for the one card that is there, and not without one.
    """
    source = file_name(manifest.kind, source_of(precision))
    if source not in manifest.files:
        raise EngineFileError(f"'{manifest.name}' comes without {source}, from which this plan is built")
    if gpu is None and not backend.is_rtx:
        raise EngineUnavailable(
            f"{backend} builds plans only on the GPU that will run them, and there is none"
        )
    portable = gpu is None or (backend.is_rtx and gpu.capability >= PORTABLE_FROM)
    return PlanKey(
        network=manifest.kind,
        onnx=manifest.files[source],
        precision=precision,
        sizes=tuple(sizes),
        flavour=backend.flavour,
        version=backend.version,
        gpu=PORTABLE if portable or gpu is None else gpu.name,
        capability=PORTABLE if portable or gpu is None else gpu.sm,
    )


def plans_dir(cache: Path | None = None) -> Path:
    """Where plans are kept; `cache` is another folder than the user's own, mostly for tests."""
    return cache or cache_dir() / "plans"


def plan_path(key: PlanKey, cache: Path | None = None) -> Path:
    """Where the plan of this key lies or should lie."""
    return plans_dir(cache) / f"{key.stem}.plan"


def runtime_cache_path(key: PlanKey, gpu: Gpu, cache: Path | None = None) -> Path:
    """Where the kernels are kept that TensorRT-RTX made for this plan on this card with this driver."""
    card = hashlib.sha256(json.dumps([gpu.name, gpu.sm, gpu.driver]).encode()).hexdigest()
    return plans_dir(cache) / f"{key.stem}-{card[:8]}.runtime"


def write_plan(key: PlanKey, built: BuiltPlan, cache: Path | None = None) -> Path:
    """Keep a plan; its path. A reader sees all of it or nothing: the sidecar comes last."""
    path = plan_path(key, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    sidecar = path.with_suffix(".json")
    sidecar.unlink(missing_ok=True)
    write_whole(path, built.plan)
    write_whole(path.with_suffix(".log"), "".join(f"{line}\n" for line in built.log).encode())
    about = {
        "key": asdict(key),
        "sha256": hashlib.sha256(built.plan).hexdigest(),
        "size": len(built.plan),
        "seconds": round(built.seconds, 3),
    }
    write_whole(sidecar, (json.dumps(about, indent=1) + "\n").encode())
    return path


def read_plan(key: PlanKey, cache: Path | None = None) -> bytes:
    """The plan of exactly this key, checked byte for byte.

    Raises PlanMissing if there is none, EngineFileError if what is there is damaged or of another key.
    """
    path = plan_path(key, cache)
    if not path.exists() or not path.with_suffix(".json").exists():
        raise PlanMissing(f"there is no {key.precision} plan for the {key.network} network yet; {key.mend}")
    about = _sidecar(path, key.mend)
    if about["key"] != key:
        raise EngineFileError(f"the plan {path} is for {_differs(about['key'], key)}; {key.mend}")
    try:
        plan = path.read_bytes()
    except OSError as err:
        raise EngineFileError(f"cannot read the plan {path}: {err}; {key.mend}") from err
    digest = hashlib.sha256(plan).hexdigest()
    if digest != about["sha256"]:
        raise EngineFileError(
            f"the plan {path} is truncated or altered: its {len(plan)} bytes have SHA-256 {digest[:12]}..., "
            f"wanted {about['sha256'][:12]}... and {about['size']} bytes; {key.mend}"
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
    if digest != key.onnx or (backend.flavour, backend.version) != (key.flavour, key.version):
        raise EngineFileError(
            f"the plan wanted is for {key.onnx[:12]}... on {key.flavour} {key.version}; "
            f"given are {digest[:12]}... and {backend}"
        )
    built = build_plan(
        onnx,
        precision=key.precision,
        backend=backend,
        sizes=key.sizes,
        capability=key.capability,
        report=lambda line: report(f"{name}: {line}"),
    )
    path = write_plan(key, built, cache)
    report(f"{name}: {path} ({len(built.plan) / 1e6:.1f} MB in {built.seconds:.1f} s; log beside it)")
    return built.plan


def listed(cache: Path | None = None) -> tuple[StoredPlan, ...]:
    """Every plan in the cache, whether it can be used or not, by name."""
    found = []
    for path in sorted(plans_dir(cache).glob("*.plan")):
        try:
            about = _sidecar(path, CLEAN)
        except EngineFileError:
            about = {"key": None, "seconds": 0.0}
        size = sum(part.stat().st_size for part in _parts(path))
        found.append(StoredPlan(path, about["key"], size, path.stat().st_mtime, about["seconds"]))
    return tuple(found)


def clean(cache: Path | None = None) -> tuple[int, int]:
    """Remove every plan with all that belongs to it; how many files and bytes that were."""
    files = [path for path in plans_dir(cache).glob("*") if _SUFFIXES.intersection(path.suffixes)]
    freed = sum(path.stat().st_size for path in files)
    for path in files:
        path.unlink(missing_ok=True)
    return len(files), freed


def _parts(plan: Path) -> list[Path]:
    return [path for path in plan.parent.glob(f"{plan.stem}*") if path.suffix in _SUFFIXES]


def _sidecar(plan: Path, mend: str) -> dict[str, Any]:
    """What the file beside a plan says about it, the key as a PlanKey."""
    path = plan.with_suffix(".json")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        key = about["key"]
        wanted = {field.name for field in fields(PlanKey)}
        if key.keys() != wanted or not isinstance(about["sha256"], str):
            raise ValueError(f"its key has the fields {', '.join(key)}")
        known = PlanKey(**{**key, "sizes": tuple(key["sizes"])})
        return {**about, "key": known, "size": int(about["size"]), "seconds": float(about["seconds"])}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as err:
        raise EngineFileError(
            f"the description {path} of a plan is missing or damaged ({err}); {mend}"
        ) from err


def _differs(found: PlanKey, wanted: PlanKey) -> str:
    """Each part of the key that is another, as 'version 1.6 (wanted 1.7)'."""
    pairs = ((name, getattr(found, name), getattr(wanted, name)) for name in asdict(wanted))
    return ", ".join(f"{name} {has} (wanted {wants})" for name, has, wants in pairs if has != wants)
