"""Writes the networks that `run.py` measures, with ONNX Runtime's answers, into one folder.

    python benchmarks/gpu/prepare.py FOLDER [--networks face-live,voice-student] [--largest-mb 64]

Needs the extra `train`; the machine with the GPU then needs neither `onnx` nor ONNX Runtime. Shipped
weights where there are any, else random ones, which change no time. Files beyond the limit are left out and
named in the list: random weights do not shrink, and the pack has to cross a narrow link.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BENCHMARKS)]
sys.path.append(str(BENCHMARKS.parent))

from gpu import networks
from harness import machine

from liveaffect.engines import manifest as manifests
from liveaffect.engines import probe
from liveaffect.engines.build.half import to_half
from liveaffect.engines.onnx_engine import OnnxEngine

CHOICES = ("face-live", "voice-student", "face-fv2es", "voice-amfbp", "voice-fv2es")
"""Behind those that are shipped, which the budgets are about. Published ones come last."""
ITEMS = 64
CALIBRATION_ITEMS = 16


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A network that is not in the folder."""

    name: str
    why: str


def choices() -> list[str]:
    """The shipped networks, then the others."""
    places = (manifests.SHIPPED / f"{kind}.json" for kind in ("face", "voice"))
    own = [manifests.read(place).name for place in places if place.exists()]
    return list(dict.fromkeys([*own, *CHOICES]))


def prepare(
    folder: Path, names: Sequence[str], largest_mb: float, *, items: int = ITEMS, shipped: bool = True
) -> list[str]:
    """Write everything, with the package's own weights if `shipped`; lines that say what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    left_out: list[LeftOut] = []
    lines = []
    for name in names:
        place = folder / name
        kind, _, preset = name.partition("-")
        if too_large := _write(kind, preset, place, largest_mb, shipped=shipped):
            shutil.rmtree(place)
            left_out.append(LeftOut(name, too_large))
            lines.append(f"{name}: left out, {too_large}")
            continue
        found = manifests.read(place / f"{kind}.json")
        _record(found, place, items)
        half = to_half(manifests.load_bytes(found, place, "fp32"))
        (place / networks.half_name(kind)).write_bytes(half)
        size = sum(path.stat().st_size for path in place.iterdir())
        entry = {"name": name, "kind": kind, "trained": bool(found.training), "bytes": size}
        entries.append({**entry, "half": hashlib.sha256(half).hexdigest()})
        lines.append(f"{name}: {size / 1e6:.1f} MB, {'shipped' if found.training else 'random'} weights")
    record = {
        "networks": entries,
        "left_out": [{"name": one.name, "why": one.why} for one in left_out],
        "items": items,
        "sources": networks.source_sum(),
        "machine": machine(),
    }
    (folder / networks.LIST).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return lines


def _write(kind: str, preset: str, place: Path, largest_mb: float, *, shipped: bool) -> str | None:
    """fp32 and INT8 files with their manifest, or why not."""
    place.mkdir(parents=True, exist_ok=True)
    own = manifests.SHIPPED / f"{kind}.json"
    if shipped and own.exists() and manifests.read(own).preset == preset:
        for name in (own.name, *manifests.read(own).files):
            shutil.copyfile(own.with_name(name), place / name)
        return None
    from liveaffect.engines.build.export_onnx import export
    from liveaffect.engines.build.quantize import quantize
    from liveaffect.engines.model import presets

    weights = presets.deploy(presets.build(kind, preset)).parameters()
    size_mb = sum(weight.numel() for weight in weights) * 4 / 1e6
    if size_mb > largest_mb:
        return f"its fp32 weights of {size_mb:.0f} MB are beyond the limit of {largest_mb:g} MB"
    path = export(kind, preset, place)
    inputs = probe.for_tensors(kind, CALIBRATION_ITEMS, manifests.read(path).inputs)
    quantize(path, probe.split(inputs, (4,)))
    return None


def _record(found: manifests.Manifest, place: Path, items: int) -> None:
    """Inputs, and what ONNX Runtime answers to them one by one."""
    inputs = probe.for_tensors(found.kind, items, found.inputs)
    stored: networks.Arrays = {f"in/{name}": array for name, array in inputs.items()}
    for precision in networks.RECORDED:
        engine = OnnxEngine(found, place, precision)
        parts = [engine.infer(part) for part in probe.split(inputs, (1,))]
        for tensor in found.outputs:
            stored[f"{precision}/{tensor.name}"] = np.concatenate([part[tensor.name] for part in parts])
        engine.close()
    np.savez_compressed(place / networks.ANSWERS, **stored)  # type: ignore[arg-type]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", default=",".join(choices()), help="default: all")
    parser.add_argument("--largest-mb", type=float, default=64.0, help="of one fp32 file (default 64)")
    given = parser.parse_args(arguments)
    print("\n".join(prepare(given.folder, given.networks.split(","), given.largest_mb)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
