"""The networks that are measured, as `prepare.py` wrote them: files, inputs, and what ONNX Runtime answers.

The answers are recorded beforehand, on a machine with ONNX Runtime and `onnx`, so that the machine with the
GPU needs neither, and every run is held against the same truth.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines import manifest as manifests
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.protocol import Done, EngineError, EngineFileError, EngineSpec, Pending, Tensors

ROOT = Path(__file__).resolve().parents[2]
LIST = "prepared.json"
ANSWERS = "answers.npz"
RECORDED = ("fp32", "int8")
"""The precisions that ONNX Runtime's answers are recorded in."""

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Network:
    """One network with its files."""

    name: str
    """Such as 'face-live'."""
    folder: Path
    manifest: Manifest
    half_sum: str
    """SHA-256 of the file in half precision, which no manifest knows."""

    @property
    def kind(self) -> str:
        """'face' or 'voice'."""
        return self.manifest.kind

    @cached_property
    def _stored(self) -> Arrays:
        with np.load(self.folder / ANSWERS) as stored:
            return {name: stored[name] for name in stored.files}

    def inputs(self, count: int, start: int = 0) -> Arrays:
        """So many items in turn from those recorded, over and over."""
        found = self._part("in")
        rows = (start + np.arange(count)) % len(next(iter(found.values())))
        return {name: array[rows] for name, array in found.items()}

    def answers(self, precision: str) -> Arrays:
        """What ONNX Runtime answers to all recorded items."""
        return self._part(precision)

    def _part(self, part: str) -> Arrays:
        mark = f"{part}/"
        return {key.removeprefix(mark): value for key, value in self._stored.items() if key.startswith(mark)}

    def content(self, precision: str) -> bytes:
        """The checked ONNX file that a plan of this precision is built from."""
        if precision != "fp16":
            return manifests.load_bytes(self.manifest, self.folder, "int8" if precision == "int8" else "fp32")
        path = self.folder / half_name(self.kind)
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != self.half_sum:
            raise EngineFileError(f"{path} is missing or altered; prepare the networks again")
        return content


class Recorded:
    """ONNX Runtime's recorded answers as an engine that is asked item by item, in order."""

    def __init__(self, network: Network, precision: str = "fp32") -> None:
        self._answers = network.answers(precision)
        self._next = 0
        self.spec: EngineSpec = network.manifest.spec(precision, f"onnx-{precision}, recorded")

    def submit(self, inputs: Tensors) -> Pending:
        """The answers to the next items."""
        count = len(next(iter(inputs.values())))
        start, self._next = self._next, self._next + count
        out = {name: array[start : self._next] for name, array in self._answers.items()}
        if any(len(array) != count for array in out.values()):
            raise EngineError(
                f"{self.spec.name} holds no answers to items {start} to {self._next - 1}; prepare again"
            )
        return Done(out)

    def infer(self, inputs: Tensors) -> Tensors:
        """`submit` and wait."""
        return self.submit(inputs).result()

    def warm_up(self) -> None:
        """Nothing to warm."""

    def close(self) -> None:
        """Nothing to free."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything in a folder of prepared networks."""

    networks: tuple[Network, ...]
    record: dict[str, Any]
    """Commit, versions and what was left out, as the preparing machine wrote them."""

    def first(self, kind: str) -> Network:
        """The one of this kind that live use runs."""
        return next(network for network in self.networks if network.kind == kind)


def read(folder: Path) -> Prepared:
    """The prepared networks, in their order. Raises EngineError that says how to make them."""
    try:
        record: dict[str, Any] = json.loads((folder / LIST).read_text("utf-8"))
    except (OSError, ValueError) as err:
        raise EngineError(
            f"{folder} holds no prepared networks ({err}); on a machine with the extra 'train' run: "
            f"python benchmarks/gpu/prepare.py {folder}"
        ) from err
    networks = []
    for entry in record["networks"]:
        place = folder / entry["name"]
        manifest = manifests.read(place / f"{entry['kind']}.json")
        networks.append(Network(entry["name"], place, manifest, entry["half"]))
    return Prepared(tuple(networks), record)


def half_name(kind: str) -> str:
    """The file in half precision, converted beforehand because that takes the package `onnx`."""
    return f"{kind}.fp16.onnx"


@cache
def source_sum() -> str:
    """One sum over the code that is measured and that measures; equal sums mean equal code."""
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "engines").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
