"""What a voice network's frozen layers say of every piece of every recording, computed once and kept.

Layers that do not learn need not be asked again in every epoch: their statistics over a piece are all that a
head sees. Recordings are cut as live: a piece every hop from the first sound on until the last one is over,
silence around them. Further copies hear the same recordings in other rooms. A bank that was stopped goes on
where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from liveaffect.engines.model.frontend import WhisperSound, heard_share
from liveaffect.engines.model.voice_statistics import StatisticsVoice, VoiceWhisper
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE, Statistics
from liveaffect.engines.stopwatch import wall_ns
from liveaffect.engines.training.corpora_voices import Take
from liveaffect.engines.training.listen import SPEECH, pieces_of
from liveaffect.engines.training.synthetic_sounds import heard

GROUP = 128
"""Recordings in one file of the bank."""
LONGEST_S = 8.0
LEVEL_STEP_S = 0.01
SPEECH_DEPTH_DB = 30.0
"""A hundredth of a second this far below the loud ones of its recording is no speech."""
NOTHING = -1
"""The label of sounds that nobody speaks in."""
_COUNTED = Statistics(1, "pieces")
_LEARNT = ("head.", "listener.", "speech.", "prior_")
"""What stands behind the layers."""
_MOMENTS = ".moments.npy"
_LEAST_SPREAD = 1e-3
MOMENT_STEPS = 24.0
"""So many steps of a byte to one deviation: nearly all moments lie within five."""


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """One recording: who says it, and how; or a sound without a speaker."""

    samples: NDArray[np.floating]
    take: Take | None = None

    @property
    def label(self) -> int:
        """Its place among the labels."""
        return NOTHING if self.take is None else LABELS.index(self.take.label)


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """What the frozen layers say moment by moment, of the pieces that count.

    In the measure of speech: every feature with mean zero and deviation one, as far as that is known.
    """

    parts: Sequence[NDArray[np.int8]]
    """(rows, moments, width) each, read from the disk as they are asked for."""
    middle: NDArray[np.float32]
    """(parts, width): the raw features that the bytes of each part are zero for."""
    spread: NDArray[np.float32]
    """(parts, width): what `MOMENT_STEPS` of them are worth."""
    share: NDArray[np.float16]
    """(rows, moments): how much each moment counts."""
    piece: NDArray[np.int64]
    """(rows,): whose they are."""

    @property
    def measure(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and deviation of the raw features: (raw - mean) / deviation is what `of` tells."""
        some = [len(part) > 0 for part in self.parts]
        return self.middle[some].mean(0), self.spread[some].mean(0)

    def of(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """The moments of some rows, and their shares."""
        ends = np.cumsum([len(part) for part in self.parts])
        part = np.searchsorted(ends, rows, side="right")
        found = np.empty((len(rows), *self.parts[0].shape[1:]), np.int8)
        for at, (row, number) in enumerate(zip(rows, part, strict=True)):
            found[at] = self.parts[number][row - ends[number]]
        mean, deviation = self.measure
        scale = torch.from_numpy(self.spread[part] / (deviation * MOMENT_STEPS))[:, None]
        shift = torch.from_numpy((self.middle[part] - mean) / deviation)[:, None]
        told = torch.from_numpy(found).float().mul_(scale).add_(shift)
        return told, torch.from_numpy(self.share[rows].astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class PieceBank:
    """Pieces in the order of their recordings; copies of a recording follow each other."""

    statistics: NDArray[np.float16]
    """(pieces, width), raw: not in the measure of any corpus yet."""
    newest: NDArray[np.float16]
    """(pieces, features + bands): what the judge of speech sees."""
    speech: NDArray[np.float32]
    """(pieces,): which share of the newest part of each is speech."""
    weight: NDArray[np.float32]
    """(pieces,): how much each counts by all the speech in it, as live."""
    owner: NDArray[np.int64]
    """(pieces,): the row of the recording in the four below."""
    label: NDArray[np.int64]
    speaker: NDArray[np.str_]
    """With its corpus, such as 'ravdess/01'; empty for sounds without one."""
    copy: NDArray[np.int64]
    """0: as recorded; others: somewhere else."""
    name: NDArray[np.str_]
    moments: Moments | None = None
    """Empty where no listener stands on the layers."""

    @property
    def corpus(self) -> NDArray[np.str_]:
        """(recordings,)."""
        return np.array([speaker.partition("/")[0] for speaker in self.speaker])

    def edges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(recordings,): the first piece of each, and the one behind its last."""
        rows = np.arange(len(self.label))
        return np.searchsorted(self.owner, rows), np.searchsorted(self.owner, rows, side="right")


def filled(
    network: StatisticsVoice,
    sounds: Sequence[Sound],
    copies: int,
    folder: Path,
    *,
    limit_s: float = float("inf"),
    report: Callable[[str], None] = print,
) -> PieceBank | None:
    """The bank of these sounds, `copies` times each; None when the time was up before it was full."""
    folder = folder / _fingerprint(network)
    folder.mkdir(parents=True, exist_ok=True)
    start_ns, parts = wall_ns(), []
    groups = [(copy, at) for copy in range(copies) for at in range(0, len(sounds), GROUP)]
    for number, (copy, at) in enumerate(groups):
        group = sounds[at : at + GROUP]
        path = folder / f"{copy}-{at:05d}-{_digest(group)}.npz"
        if not path.exists():
            if (wall_ns() - start_ns) * 1e-9 > limit_s:
                report(f"the bank is full up to {number} of {len(groups)} groups; the same call goes on")
                return None
            _write(path, network, group, copy, at)
        parts.append((copy, at, path))
    return _read(sounds, parts, network.sound)


def spoken(samples: NDArray[np.floating], hop: int, pieces: int) -> NDArray[np.float32]:
    """(pieces,): which share of the newest part of each piece is speech, by its loudness."""
    step = round(LEVEL_STEP_S * SAMPLE_RATE)
    whole = np.asarray(samples[: len(samples) // step * step], np.float32).reshape(-1, step)
    power = (whole**2).mean(1)
    loud = power > np.percentile(power, 95) * 10 ** (-SPEECH_DEPTH_DB / 10)
    parts = [loud[i * hop // step : (i + 1) * hop // step] for i in range(pieces)]
    return np.array([part.mean() if len(part) else 0.0 for part in parts], np.float32)


def _write(path: Path, network: StatisticsVoice, sounds: Sequence[Sound], copy: int, first: int) -> None:
    sound, found = network.sound, list[dict[str, NDArray[Any]]]()
    for number, one in enumerate(sounds):
        rng = np.random.default_rng((copy, first + number))
        samples = np.asarray(one.samples, np.float32)[: round(LONGEST_S * SAMPLE_RATE)]
        if copy:
            samples = heard(samples, rng)
        pieces = pieces_of(samples, sound.piece, sound.hop, sound.lead)
        hiss = np.asarray(rng.normal(0, 10 ** rng.uniform(-5.5, -3.5), pieces.shape[1]), np.float32)
        shares = spoken(samples, sound.hop, len(pieces)) * (one.take is not None)
        told = {"speech": shares, "counts": np.array([len(pieces)])}
        found.append(told | _asked(network, pieces + hiss, _listened_to(shares, sound)))
    whole = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
    whole |= _in_bytes(whole["moments"])
    moments = whole.pop("moments")
    with (partial := path.with_suffix(".part")).open("wb") as stream:
        np.save(stream, moments)
    partial.replace(path.with_suffix(_MOMENTS))
    with partial.open("wb") as stream:
        np.savez(stream, **whole)  # type: ignore[arg-type]  # None of them is called allow_pickle.
    partial.replace(path)


def _in_bytes(moments: NDArray[Any]) -> dict[str, NDArray[Any]]:
    told = moments.reshape(-1, moments.shape[-1]).astype(np.float32)
    middle = told.mean(0) if len(told) else np.zeros(told.shape[1], np.float32)
    spread = told.std(0) + _LEAST_SPREAD if len(told) else np.ones(told.shape[1], np.float32)
    steps = np.clip(np.round((moments - middle) * (MOMENT_STEPS / spread)), -127, 127)
    return {"moments": steps.astype(np.int8), "middle": middle[None], "spread": spread[None]}


def _listened_to(shares: NDArray[np.float32], sound: WhisperSound) -> NDArray[np.bool_]:
    """(pieces,): those that count; of a recording in which none does, the most spoken one."""
    weight = _COUNTED.weights(shares, sound.piece, sound.hop)
    return np.asarray((weight > 0.0) & (weight >= min(SPEECH, float(weight.max()))))


def _asked(
    network: StatisticsVoice, pieces: NDArray[np.float32], listened: NDArray[np.bool_]
) -> dict[str, NDArray[Any]]:
    with torch.inference_mode():
        log_mel = network.front(torch.from_numpy(pieces))
        with torch.autocast("cpu", torch.bfloat16):
            layers = tuple(one.float() for one in network.layers(log_mel))
        raw = network.raw_statistics(log_mel, layers)
        newest = network.newest(log_mel, layers[-1])
        kept = listened & isinstance(network, VoiceWhisper)  # No listener stands on the student's.
        rows = torch.from_numpy(kept)
        moments, share = torch.cat(layers, dim=2)[rows], heard_share(log_mel)[rows]
    return {
        "statistics": raw.half().numpy(),
        "newest": newest.half().numpy(),
        "listened": kept,
        "share": share.half().numpy(),
        "moments": moments.half().numpy(),
    }


def _read(sounds: Sequence[Sound], parts: Sequence[tuple[int, int, Path]], sound: WhisperSound) -> PieceBank:
    columns: dict[str, list[NDArray[Any]]] = {}
    who: list[tuple[Sound, int, int]] = []
    for copy, at, path in parts:
        with np.load(path) as kept:
            for name in kept.files:
                columns.setdefault(name, []).append(kept[name])
        who += [(one, copy, at + i) for i, one in enumerate(sounds[at : at + GROUP])]
    whole = {name: np.concatenate(column) for name, column in columns.items()}
    counts = whole["counts"].astype(np.int64)
    shares = np.split(whole["speech"].astype(np.float32), np.cumsum(counts)[:-1])
    return PieceBank(
        statistics=whole["statistics"].astype(np.float16, copy=False),
        newest=whole["newest"].astype(np.float16, copy=False),
        speech=np.concatenate(shares),
        weight=np.concatenate([_COUNTED.weights(one, sound.piece, sound.hop) for one in shares]),
        owner=np.repeat(np.arange(len(who)), counts),
        label=np.array([one.label for one, _, _ in who]),
        speaker=np.array([one.take.speaker if one.take else "" for one, _, _ in who]),
        copy=np.array([copy for _, copy, _ in who]),
        name=np.array([one.take.name if one.take else f"sound-{at}" for one, _, at in who]),
        moments=Moments(
            parts=[np.load(path.with_suffix(_MOMENTS), mmap_mode="r") for _, _, path in parts],
            middle=whole["middle"].astype(np.float32, copy=False),
            spread=whole["spread"].astype(np.float32, copy=False),
            share=whole["share"].astype(np.float16, copy=False),
            piece=np.flatnonzero(whole["listened"]),
        ),
    )


def _fingerprint(network: StatisticsVoice) -> str:
    """Of the layers that are asked."""
    digest = hashlib.sha256(f"{network.sound!r} until silence, moments of all layers".encode())
    for name, tensor in network.state_dict().items():
        if not name.startswith(_LEARNT):
            digest.update(name.encode() + tensor.float().numpy().tobytes())
    return f"{network.name}-{digest.hexdigest()[:12]}"


def _digest(sounds: Sequence[Sound]) -> str:
    """Of the sounds that one file is about: more of them leave the other files as they are."""
    names = "".join(f"{one.take.name if one.take else ''} {len(one.samples)}\n" for one in sounds)
    return hashlib.sha256(names.encode()).hexdigest()[:8]


__all__ = ["NOTHING", "PieceBank", "Sound", "filled", "spoken"]
