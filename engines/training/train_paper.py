"""Trains and examines a published system by a protocol, fold by fold and seed by seed, keeping every answer.

Each training stands in a folder of its own with its checkpoint, its answers and its network; whatever is
there is not done again, so the same command goes on where it was stopped. No epoch is chosen by its figures,
and thresholds are set on validation alone.
"""

from __future__ import annotations

import io
import json
import logging
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from liveaffect.engines.build.export_onnx import export
from liveaffect.engines.manifest import SHIPPED, write_whole
from liveaffect.engines.model.paper import MODALITIES, PaperNetwork, PaperPreset, silence_unlearnt
from liveaffect.engines.model.words import AlbertWords, words_onnx
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.stopwatch import wall_ns
from liveaffect.engines.training.corpora_films import FilmTake, read_films
from liveaffect.engines.training.corpora_voices import CorpusError
from liveaffect.engines.training.cutting import CutOrder, Cutter, cut_all
from liveaffect.engines.training.loop import Schedule, best_device, half_precision_pays, train
from liveaffect.engines.training.paper_task import PaperRecipe, PaperTask, Shower, Tokens, system_answers
from liveaffect.engines.training.protocols import PROTOCOLS, Fold, Protocol, protocols_of, thresholds_from
from liveaffect.engines.word_emotions import FILE, MANIFEST, TOKENIZER, token_rows

PUBLISHED, MENDED = "published", "mended"
RESULT, ANSWERS, WEIGHTS, ALBERT = "result.json", "answers.npz", "weights", "albert"
SMOKE_UTTERANCES = 12
"""Of each side, to see that it works."""
Report = Callable[[str], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PaperSystem:
    """A published system in both forms."""

    name: str
    title: str
    mended: PaperPreset
    published: PaperPreset
    recipe: PaperRecipe
    """Of the published form."""
    schedule: Schedule
    """Likewise."""


_FV2ES = Schedule(epochs=30, rate=4.5e-6, warm_up=0.0, last_rate=1.0, weight_decay=0.0, average=0.0, clip=1e9)
_BILINEAR = Schedule(epochs=50, rate=1e-4, weight_decay=1e-4, average=0.0)
"""Everything about system B's training is a default of ours: nothing of it could be read."""
MENDED_SCHEDULE = Schedule(epochs=40, rate=1e-3, clip=1.0)
_A = PaperPreset("fv2es", "live", "nest", None, "late-masked")
_B = PaperPreset("amfbp", "live", "amfbp", None, "amfbp")


def _system_b(name: str, title: str, preset: PaperPreset) -> PaperSystem:
    recipe = PaperRecipe(batch=16, mended=False)
    return PaperSystem(name, title, preset, replace(preset, whole_utterance=True), recipe, _BILINEAR)


SYSTEMS = {
    "fv2es": PaperSystem(
        "fv2es",
        "FV2ES (face, sound with hierarchical attention, words)",
        _A,
        PaperPreset("fv2es", "fv2es", "fv2es", None, "late", order_free=True, whole_utterance=True),
        PaperRecipe(batch=2, binary=True, mended=False, beside=0.0, faces_hz=2.0),
        _FV2ES,
    ),
    "fcn": _system_b("fcn", "FCN with attention (sound)", PaperPreset("fcn", voice="amfbp")),
    "gfbp": _system_b("gfbp", "+ G-FBP (face and sound)", replace(_B, name="gfbp", fusion="gfbp")),
    "agfbp": _system_b("agfbp", "+ AG-FBP (adaptive)", replace(_B, name="agfbp", fusion="agfbp")),
    "amfbp": _system_b("amfbp", "+ AM-FBP (adaptive, trunks)", _B),
}


@dataclass(frozen=True, slots=True)
class PaperOptions:
    """What is trained, and how much of it."""

    system: str
    corpus: str
    form: str = MENDED
    protocol: str | None = None
    """None: the first of the corpus, which is speaker-independent where one can be."""
    albert: Path | None = None
    """Folder of ALBERT; without it words are left out."""
    only: tuple[str, ...] = MODALITIES
    plain: bool = False
    """Faces by one branch in training too."""
    without_attention: bool = False
    """Sound by convolutions of equal size in the place of hierarchical attention."""
    seeds: int = 1
    folds: int | None = None
    epochs: int | None = None
    smoke: bool = False
    limit_s: float = math.inf
    threads: int = 0
    workers: int = 1
    """Processes that cut films."""

    @property
    def variant(self) -> str:
        """One word for all that is not the protocol, for folders and tables."""
        system = SYSTEMS[self.system]
        has = modalities_of(system, self)
        parts = [self.system, self.form]
        whole = [name for name in MODALITIES if name == "words" or getattr(system.mended, name)]
        if self.system != "fv2es":
            whole = [name for name in whole if name != "words" or self.albert]
        parts += ["only " + " ".join(has)] if has != whole else []
        parts += (
            ["a trial"] * self.smoke
            + ["plain faces"] * self.plain
            + ["no attention"] * self.without_attention
        )
        return ", ".join(parts)


def modalities_of(system: PaperSystem, options: PaperOptions) -> list[str]:
    """Those that are trained. Raises ValueError when none is left."""
    there = {"face": system.mended.face, "voice": system.mended.voice, "words": options.albert}
    if found := [name for name in MODALITIES if there[name] is not None and name in options.only]:
        return found
    raise ValueError(f"{system.name} has none of {', '.join(options.only)}, or ALBERT's folder was not given")


def paper_preset(options: PaperOptions) -> PaperPreset:
    """The table of the network that these options ask for."""
    system = SYSTEMS[options.system]
    preset = system.published if options.form == PUBLISHED else system.mended
    has = modalities_of(system, options)
    swaps = {"live": "live-vgg"} if options.plain else {}
    if options.without_attention:
        swaps |= {"nest": "nest-conv"}
    face, voice = (swaps.get(name or "", name) for name in (preset.face, preset.voice))
    asked = options.plain and face == preset.face, options.without_attention and voice == preset.voice
    if any(asked):
        raise ValueError(f"'{options.system}' as {options.form} has no such part to leave out; take {MENDED}")
    fusion = preset.fusion if len(has) > 1 else None
    if fusion is not None and fusion.endswith("fbp") and not {"face", "voice"} <= set(has):
        fusion = "late-masked"
    return replace(
        preset,
        face=face if "face" in has else None,
        voice=voice if "voice" in has else None,
        words=options.albert if "words" in has else None,
        fusion=fusion,
    )


def train_paper(
    data: Path, out: Path, options: PaperOptions, cutter: Cutter, cache: Path, *, report: Report = _log.info
) -> Path | None:
    """Cut, train and examine by one protocol; the folder of results, None when the time was up."""
    protocol = protocol_of(options)
    reading = read_films(options.corpus, data)
    takes = protocol.chosen(reading.takes)
    report(f"{protocol.title}: {len(takes)} of {len(reading.takes)} utterances")
    hz = _recipe(options, protocol).faces_hz
    few = _few_of_each_side(protocol, protocol.folds(takes, data)[0], takes) if options.smoke else None
    if few is not None:
        takes = [take for side in few.values() for take in side]
    cut = cut_all(takes, CutOrder(cutter, cache, hz, options.workers), reading, report)
    for line in reading.told():
        report(line)
    takes = [take for take in takes if take.name in cut.files]
    folds = protocol.folds(takes, data)[: options.folds] if few is None else [_trial_fold(few, takes)]
    folder = out / protocol.name / options.variant.replace(", ", "_").replace(" ", "-")
    start_ns = wall_ns()
    for seed in range(options.seeds):
        for fold in folds:
            left_s = options.limit_s - (wall_ns() - start_ns) * 1e-9
            place = folder / f"{fold.name.replace(' ', '-')}-seed{seed}"
            if _stands(place / RESULT, _schedule(options, seed, left_s).epochs):
                continue
            run = _FoldRun(protocol, fold, takes, cut.files, options, seed, place)
            if left_s <= 0 or not run.whole(
                left_s, report, {"cut": dict(reading.troubles), "cut_s": cut.seconds}
            ):
                report(f"time is up; the same command goes on in {folder}")
                return None
    report(f"answers and networks lie in {folder}; the table: liveaffect evaluate paper --results {out}")
    return folder


def _stands(result: Path, epochs: int) -> bool:
    """Whether a training was examined after so many epochs; one after fewer is gone on with."""
    return result.exists() and int(json.loads(result.read_text("utf-8"))["epochs"]) >= epochs


def protocol_of(options: PaperOptions) -> Protocol:
    """The one asked for, or the first of the corpus. Raises CorpusError for one of another corpus."""
    known = {one.name: one for one in protocols_of(options.corpus)}
    if not known:
        corpora = ", ".join(dict.fromkeys(one.corpus for one in PROTOCOLS.values()))
        raise CorpusError(f"there is no protocol for '{options.corpus}'; there are some for {corpora}")
    if options.protocol is None:
        return next(iter(known.values()))
    if options.protocol not in known:
        raise CorpusError(f"'{options.corpus}' has no protocol '{options.protocol}' but {', '.join(known)}")
    return known[options.protocol]


def _few_of_each_side(protocol: Protocol, fold: Fold, takes: Sequence[FilmTake]) -> dict[str, list[FilmTake]]:
    """Of all classes and, as far as so few can be, from everywhere in the corpus."""
    truth, few = protocol.truth(takes), dict[str, list[FilmTake]]()
    for name, side in (("train", fold.train), ("valid", fold.valid), ("test", fold.test)):
        rows = sorted(side, key=lambda row: (truth[row].tolist(), row))
        chosen = np.linspace(0, len(rows) - 1, min(SMOKE_UTTERANCES, len(rows))).round()
        few[name] = [takes[rows[int(at)]] for at in chosen]
    return few


def _trial_fold(few: dict[str, list[FilmTake]], takes: Sequence[FilmTake]) -> Fold:
    """The few of each side that could be cut, as a fold."""
    row_of = {take.name: row for row, take in enumerate(takes)}
    train, valid, test = (
        tuple(row_of[take.name] for take in side if take.name in row_of) for side in few.values()
    )
    if not (train and test):
        raise CorpusError("none of the few utterances of a trial could be cut; what is wrong is named above")
    return Fold("trial", train, valid, test)


def _recipe(options: PaperOptions, protocol: Protocol) -> PaperRecipe:
    if options.form == PUBLISHED:
        published = SYSTEMS[options.system].recipe
        return replace(published, binary=published.binary or protocol.several)
    return PaperRecipe(binary=protocol.several)


def _schedule(options: PaperOptions, seed: int, left_s: float) -> Schedule:
    plan = SYSTEMS[options.system].schedule if options.form == PUBLISHED else MENDED_SCHEDULE
    device = best_device()
    return replace(
        plan,
        epochs=options.epochs or (1 if options.smoke else plan.epochs),
        seed=seed,
        device=device,
        bf16=half_precision_pays(device),
        threads=options.threads,
        limit_s=left_s,
    )


@dataclass(frozen=True, slots=True)
class _FoldRun:
    """One fold with one seed."""

    protocol: Protocol
    fold: Fold
    takes: Sequence[FilmTake]
    files: dict[str, Path]
    options: PaperOptions
    seed: int
    place: Path

    def whole(self, left_s: float, report: Report, told: dict[str, Any]) -> bool:
        """Train, examine, export; False when the time was up."""
        options, protocol, preset = self.options, self.protocol, paper_preset(self.options)
        recipe, plan = _recipe(options, protocol), _schedule(options, self.seed, left_s)
        network = PaperNetwork(preset, seed=self.seed)
        shower = Shower(self.takes, self.files, network, _tokens(preset.words))
        name = f"{protocol.name} {self.fold.name} {options.variant} {len(self.fold.train)}"
        report(f"{name}: {len(self.fold.train)} utterances to learn from, seed {self.seed}")
        task = PaperTask(name, shower, self.fold.train, protocol, recipe, plan.device)
        outcome = train(network, task, plan, self.place, report=report)
        if not outcome.finished:
            return False
        self._examine(outcome.network, shower, recipe, plan.device)
        assert isinstance(outcome.network, PaperNetwork)
        live = self._export(outcome.network)
        result = {
            "system": options.system,
            "form": options.form,
            "variant": options.variant,
            "protocol": protocol.name,
            "fold": self.fold.name,
            "seed": self.seed,
            "epochs": plan.epochs,
            "smoke": options.smoke,
            "sides": [len(side) for side in (self.fold.train, self.fold.valid, self.fold.test)],
            "majority": protocol.names[
                int(protocol.truth([self.takes[r] for r in self.fold.train]).sum(0).argmax())
            ],
            "parameters": sum(p.numel() for p in network.parameters()),
            "seconds_an_epoch": float(np.median([row["seconds"] for row in outcome.history])),
            "device": plan.device,
            "live": live,
            **told,
        }
        write_whole(self.place / RESULT, (json.dumps(result, indent=1) + "\n").encode())
        return True

    def _examine(self, network: torch.nn.Module, shower: Shower, recipe: PaperRecipe, device: str) -> None:
        slots, batch = self.protocol.slots, recipe.batch
        said = {
            side: system_answers(network, shower, rows, slots, batch, device)
            for side, rows in (("valid", self.fold.valid), ("test", self.fold.test))
        }
        tested = [self.takes[row] for row in self.fold.test]
        shares = {side: _probabilities(logits, binary=recipe.binary) for side, logits in said.items()}
        if recipe.binary:
            waiting = self.protocol.truth([self.takes[row] for row in self.fold.valid])
            thresholds = thresholds_from(waiting, shares["valid"])
            verdict = shares["test"] > thresholds
        else:
            thresholds = np.zeros(0)
            verdict = np.eye(len(slots), dtype=bool)[shares["test"].argmax(1)]
        packed = io.BytesIO()
        np.savez(
            packed,
            names=np.array([take.name for take in tested]),
            speakers=np.array([take.speaker for take in tested]),
            truth=self.protocol.truth(tested),
            shares=shares["test"],
            said=verdict,
            thresholds=thresholds,
        )
        write_whole(self.place / ANSWERS, packed.getvalue())

    def _export(self, network: PaperNetwork) -> str:
        """Write the network for live use; what it took from the package, or why there is none."""
        if network.preset.order_free:
            return "none: its transformer sees a whole utterance at once; the mended form runs live"
        folder, protocol = self.place / WEIGHTS, self.protocol
        training = {
            "corpora": [protocol.corpus],
            "system": self.options.variant,
            "protocol": protocol.title,
            "fold": self.fold.name,
            "seed": self.seed,
        }
        taken = []
        for kind in ("face", "voice", "fusion"):
            part = getattr(network.cpu(), kind)
            if part is None:
                taken.append(kind)
                for path in SHIPPED.glob(f"{kind}*"):
                    folder.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, folder / path.name)
                continue
            silence_unlearnt(part, protocol.slots_learnt, neutral_is_none=protocol.several)
            state = {
                key: value.float() if value.is_floating_point() else value
                for key, value in part.state_dict().items()
            }
            learnt = training | ({"words": True} if kind == "fusion" and network.words is not None else {})
            export(kind, getattr(network.preset, kind), folder, state=state, training=learnt)
        if network.words is not None:
            silence_unlearnt(network.words, protocol.slots_learnt, neutral_is_none=protocol.several)
            _export_words(network.words, folder, training)
        return f"{folder.name}; the package's own {' and '.join(taken)} beside it" if taken else folder.name


def _export_words(words: AlbertWords, folder: Path, training: dict[str, Any]) -> None:
    import hashlib

    assert isinstance(words.folder, Path)
    content = {FILE: words_onnx(words), TOKENIZER: (words.folder / TOKENIZER).read_bytes()}
    for name, bytes_ in content.items():
        write_whole(folder / name, bytes_)
    told = {
        "name": "words-fv2es",
        "labels": list(LABELS),
        "files": {name: hashlib.sha256(bytes_).hexdigest() for name, bytes_ in content.items()},
        "temperature": 1.0,
        "training": training,
    }
    write_whole(folder / MANIFEST, (json.dumps(told, indent=1) + "\n").encode())


def _tokens(folder: Path | None) -> Tokens | None:
    return None if folder is None else token_rows(folder / TOKENIZER)


def _probabilities(logits: np.ndarray[Any, np.dtype[np.float32]], *, binary: bool) -> Any:
    """Probabilities: each class for itself, or one of all."""
    if binary:
        return 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -60, 60)))
    odds = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True, initial=-60.0))
    return odds / odds.sum(1, keepdims=True)
