"""What a weight file is, checked before a single byte of it is used.

    face.json     names the network, its tensors, the recipe it was trained with, and the SHA-256 of
    face.onnx     the network in fp32, and of
    face.int8.onnx    the same network quantised, where there is one

Parsing is strict: a manifest of a newer format, of another network or with a number the live path does
not share is refused by name, with the command that mends it. `load_bytes` hands out the very bytes whose
sum it checked, so nothing can change between the check and the use.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from liveaffect.engines import protocol, recipe
from liveaffect.engines.protocol import EngineFileError, EngineSpec, TensorSpec

FORMAT = 1
MAX_BATCH = 64
"""As many faces as one tick may bring."""
SHIPPED = Path(__file__).resolve().parent / "weights"
"""The weights that come with the package."""
PRECISIONS = {"fp32": ".onnx", "int8": ".int8.onnx"}
KINDS = ("face", "voice", "fusion")
_TENSORS = {
    "face": (protocol.FACE_INPUTS, protocol.FACE_OUTPUTS),
    "voice": (protocol.VOICE_INPUTS, protocol.VOICE_OUTPUTS),
    "fusion": (protocol.FUSION_INPUTS, protocol.FUSION_OUTPUTS),
}
STATISTICS = ("mean", "istd", "stat_sum", "stat_sumsq")
"""Tensors of a voice network that are as wide as its statistics of a speaker."""
MOST_STATISTICS = 8_192
LONGEST_PIECE_S = 10
EVIDENCE_S = {"face": 2.0, "voice": 4.0, "fusion": 4.0}


@dataclass(frozen=True, slots=True)
class RecipeNumbers:
    """What the network was trained with and the live path must do alike."""

    crop: int = recipe.CROP
    sample_rate: int = recipe.SAMPLE_RATE
    piece: int = recipe.PIECE
    """Samples; a voice preset may declare its own, and the planner takes it from here."""
    hop: int = recipe.HOP
    """Samples, likewise."""
    lead: int = 0
    """Samples of a piece that were heard before; silence where a stream begins."""
    evidence_s: float = 2.0
    """How far back pooling looks."""
    statistics: recipe.Statistics = recipe.FRAMES
    """What a voice network keeps of a speaker."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One network and its files."""

    name: str
    kind: str
    """'face', 'voice' or 'fusion'."""
    preset: str
    files: Mapping[str, str]
    """File name to SHA-256."""
    labels: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    recipe: RecipeNumbers
    quantisation: Mapping[str, Any] = field(default_factory=dict)
    confidence: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    """Empty for random weights."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    foreign: Mapping[str, Any] = field(default_factory=dict)
    """The file of somebody else's that tensors are taken from, and their names; empty for most networks."""
    format: int = FORMAT

    def has(self, precision: str) -> bool:
        """Whether there is a file of this precision."""
        return file_name(self.kind, precision) in self.files

    def spec(self, precision: str, back_end: str) -> EngineSpec:
        """What an engine on this network says about itself."""
        return EngineSpec(
            name=f"{self.name}/{back_end}",
            inputs=self.inputs,
            outputs=self.outputs,
            max_batch=MAX_BATCH,
            model=self.files[file_name(self.kind, precision)][:6],
            trained=bool(self.training),
            weighs_words=bool(self.training.get("words")),
        )


def tensors(
    kind: str, piece: int = recipe.PIECE, width: int = recipe.MEL_BANDS
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of one kind of network.

    A voice preset has its own length of a piece of sound and its own number of speaker statistics.
    """
    own = {"samples": (piece,), **dict.fromkeys(STATISTICS, (width,))}
    inputs, outputs = (
        tuple(replace(t, shape=own.get(t.name, t.shape)) for t in part) for part in _TENSORS[kind]
    )
    return inputs, outputs


def describe(
    kind: str,
    preset: str,
    *,
    piece: int = recipe.PIECE,
    hop: int = recipe.HOP,
    lead: int = 0,
    statistics: recipe.Statistics | None = None,
) -> Manifest:
    """The manifest of a network that has no files yet."""
    kept = statistics or recipe.FRAMES
    inputs, outputs = tensors(kind, piece, kept.width)
    numbers = RecipeNumbers(piece=piece, hop=hop, lead=lead, evidence_s=EVIDENCE_S[kind], statistics=kept)
    return Manifest(f"{kind}-{preset}", kind, preset, {}, recipe.LABELS, inputs, outputs, numbers)


def file_name(kind: str, precision: str) -> str:
    """Such as 'face.int8.onnx'."""
    return kind + PRECISIONS[precision]


def read(path: Path) -> Manifest:
    """Parse and check one manifest. Raises EngineFileError that names what does not fit."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise EngineFileError(f"there is no manifest {path}; {mend(path)}") from None
    except (OSError, UnicodeDecodeError) as err:
        raise EngineFileError(f"cannot read the manifest {path}: {err}; {mend(path)}") from err
    try:
        found = json.loads(text)
    except ValueError as err:
        raise EngineFileError(f"the manifest {path} is damaged ({err}); {mend(path)}") from err
    return _Reader(path).manifest(found)


def write(manifest: Manifest, path: Path) -> None:
    """Write it so that a reader sees the old manifest or the new one, never half of one."""
    out = asdict(manifest)
    keys = ["name", "kind", "preset", "format", *[key for key in out if key not in _FIRST]]
    write_whole(path, (json.dumps({key: out[key] for key in keys}, indent=1) + "\n").encode())


def record_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """Write what judging a network found into the manifest of the files that were judged."""
    found = read(path)
    write(extended(found, figures={**found.figures, **figures}), path)


def record_file(manifest: Manifest, precision: str, content: bytes) -> Manifest:
    """The manifest with the sum of one more file."""
    name = file_name(manifest.kind, precision)
    return replace(manifest, files={**manifest.files, name: hashlib.sha256(content).hexdigest()})


def extended(manifest: Manifest, **parts: Mapping[str, Any]) -> Manifest:
    """The manifest with what quantisation, calibration or training found out."""
    if unknown := sorted(parts.keys() - set(_FREE)):
        raise ValueError(f"a manifest has no part {', '.join(unknown)}; it has {', '.join(_FREE)}")
    return replace(manifest, **{key: dict(part) for key, part in parts.items()})  # type: ignore[arg-type]


def load_bytes(manifest: Manifest, folder: Path, precision: str) -> bytes:
    """The content of one weight file, after its SHA-256 was found right."""
    path = folder / file_name(manifest.kind, precision)
    wanted = manifest.files.get(path.name)
    if wanted is None:
        raise EngineFileError(f"'{manifest.name}' has no {precision} file {path}; {mend(path)}")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise EngineFileError(f"the weight file {path} is missing; {mend(path)}") from None
    except OSError as err:
        raise EngineFileError(f"cannot read the weight file {path}: {err}; {mend(path)}") from err
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        raise EngineFileError(
            f"the weight file {path} is truncated or altered: its {len(content)} bytes have SHA-256 "
            f"{found[:12]}..., the manifest wants {wanted[:12]}...; {mend(path)}"
        )
    return content


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step, so that nobody ever reads half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def mend(path: Path) -> str:
    """What to do about a missing or damaged file."""
    if path.parent == SHIPPED:
        return f"bring it back with 'git checkout -- {path}' in a checkout, else reinstall liveaffect"
    if path.name.endswith(PRECISIONS["int8"]):
        return f"write it with 'liveaffect build --precision int8 --weights {path.parent}'"
    if path.exists():
        # To write it anew would put random weights in the place of what somebody trained.
        return "copy it again from where it came, or leave --weights out: the program brings its own networks"
    return (
        f"write an untrained one with 'liveaffect export {path.name.partition('.')[0]} --out {path.parent}'"
    )


_FIRST = ("name", "kind", "preset", "format")
_FREE = ("quantisation", "confidence", "training", "figures", "foreign")
_KEYS = {*_FIRST, *_FREE, "files", "labels", "inputs", "outputs", "recipe"}


class _Reader:
    """Turns parsed JSON into a Manifest; every refusal names the file and the field."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def manifest(self, found: object) -> Manifest:
        # The field is younger than the format: without it all tensors are the network's own.
        entry = {"foreign": {}, **self._mapping("the manifest", found)}
        self._format(entry.get("format"))
        self._same_keys("the manifest", entry, _KEYS)
        for key in ("name", "kind", "preset"):
            if not (isinstance(entry[key], str) and entry[key]):
                raise self._refusal(f"'{key}' is {entry[key]!r}, wanted a name")
        kind = entry["kind"]
        if kind not in KINDS:
            raise self._refusal(f"it is of kind '{kind}', known are {', '.join(KINDS)}")
        if entry["labels"] != list(recipe.LABELS):
            raise self._refusal(f"its labels are {entry['labels']}, wanted {list(recipe.LABELS)}")
        numbers = self._numbers(entry["recipe"])
        inputs, outputs = tensors(kind, numbers.piece, numbers.statistics.width)
        self._tensors("inputs", kind, entry["inputs"], inputs)
        self._tensors("outputs", kind, entry["outputs"], outputs)
        free: dict[str, Any] = {key: self._mapping(f"'{key}'", entry[key]) for key in _FREE}
        return Manifest(
            name=entry["name"],
            kind=kind,
            preset=entry["preset"],
            files=self._files(kind, entry["files"]),
            labels=recipe.LABELS,
            inputs=inputs,
            outputs=outputs,
            recipe=numbers,
            **free,
        )

    def _format(self, found: object) -> None:
        if type(found) is not int or found < 1:
            raise self._refusal(f"its format is {found!r}, wanted {FORMAT}")
        if found > FORMAT:
            raise EngineFileError(
                f"the manifest {self._path} is of format {found}; this version reads {FORMAT}. "
                "Bring liveaffect up to date with 'pip install --upgrade liveaffect'"
            )

    def _files(self, kind: str, found: object) -> dict[str, str]:
        files = self._mapping("'files'", found)
        allowed = [file_name(kind, precision) for precision in PRECISIONS]
        for name, digest in files.items():
            if name not in allowed:
                raise self._refusal(f"it lists the file '{name}', a {kind} network has {', '.join(allowed)}")
            if not (isinstance(digest, str) and len(digest) == 64 and set(digest) <= set("0123456789abcdef")):
                raise self._refusal(f"the SHA-256 of '{name}' is {digest!r}")
        if allowed[0] not in files:
            raise self._refusal(f"it lists no file '{allowed[0]}'")
        return dict(files)

    def _tensors(self, field_name: str, kind: str, found: object, wanted: tuple[TensorSpec, ...]) -> None:
        want = [{"name": t.name, "dtype": t.dtype, "shape": list(t.shape)} for t in wanted]
        if found != want:
            raise self._refusal(f"its {field_name} are {found}; a {kind} network has {want}")

    def _numbers(self, found: object) -> RecipeNumbers:
        default = RecipeNumbers()
        # Two fields are younger than the format: without them no piece has a lead, and frames are counted.
        given = self._mapping("'recipe'", found)
        entry = {"lead": default.lead, "statistics": asdict(default.statistics), **given}
        self._same_keys("'recipe'", entry, set(asdict(default)))
        for key in ("crop", "sample_rate"):
            wanted = getattr(default, key)
            if type(entry[key]) is not int or entry[key] != wanted:
                raise self._refusal(f"recipe '{key}' is {entry[key]!r}, the live path uses {wanted}")
        piece, hop, lead, evidence_s = (entry[key] for key in ("piece", "hop", "lead", "evidence_s"))
        shortest, longest = recipe.STFT_WINDOW, LONGEST_PIECE_S * recipe.SAMPLE_RATE
        if type(piece) is not int or not shortest <= piece <= longest:
            raise self._refusal(f"recipe 'piece' is {piece!r}, wanted {shortest} to {longest} samples")
        if type(hop) is not int or not 0 < hop <= piece:
            raise self._refusal(f"recipe 'hop' is {hop!r}, wanted 1 to {piece} samples")
        if type(lead) is not int or not 0 <= lead <= piece - hop:
            raise self._refusal(f"recipe 'lead' is {lead!r}, wanted 0 to {piece - hop} samples")
        if type(evidence_s) not in (int, float) or not 0 < evidence_s <= 60:
            raise self._refusal(f"recipe 'evidence_s' is {evidence_s!r}, wanted seconds above 0, up to 60")
        kept = self._statistics(entry["statistics"])
        return RecipeNumbers(piece=piece, hop=hop, lead=lead, evidence_s=float(evidence_s), statistics=kept)

    def _statistics(self, found: object) -> recipe.Statistics:
        entry = self._mapping("recipe 'statistics'", found)
        self._same_keys("recipe 'statistics'", entry, set(asdict(recipe.Statistics())))
        width = entry["width"]
        if type(width) is not int or not 0 < width <= MOST_STATISTICS:
            raise self._refusal(f"recipe 'statistics' are {width!r} wide, wanted 1 to {MOST_STATISTICS}")
        try:
            return recipe.Statistics(width, entry["counts"])
        except ValueError as err:
            raise self._refusal(str(err)) from err

    def _mapping(self, what: str, found: object) -> dict[str, Any]:
        if not isinstance(found, dict):
            raise self._refusal(f"{what} is not a JSON object but {type(found).__name__}")
        return found

    def _same_keys(self, what: str, found: Mapping[str, Any], wanted: set[str]) -> None:
        if missing := sorted(wanted - found.keys()):
            raise self._refusal(f"{what} lacks {', '.join(missing)}")
        if unknown := sorted(found.keys() - wanted):
            raise self._refusal(f"{what} has the unknown fields {', '.join(unknown)}")

    def _refusal(self, what: str) -> EngineFileError:
        return EngineFileError(f"the manifest {self._path} does not fit: {what}; {mend(self._path)}")
