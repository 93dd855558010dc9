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

import numpy as np
import torch
from numpy.typing import NDArray

from liveaffect.engines.model.frontend import WhisperSound
from liveaffect.engines.model.voice_statistics import StatisticsVoice
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE, Statistics
from liveaffect.engines.stopwatch import wall_ns
from liveaffect.engines.training.corpora_voices import Take
from liveaffect.engines.training.listen import pieces_of
from liveaffect.engines.training.synthetic_sounds import heard

GROUP = 128
"""Recordings in one file of the bank."""
LONGEST_S = 8.0
LEVEL_STEP_S = 0.01
SPEECH_DEPTH_DB = 30.0
"""A hundredth of a second this far below the loud ones of its recording is no speech."""
NOTHING = -1
"""The label of sounds that nobody speaks in."""


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
    folder = folder / _fingerprint(network, sounds)
    folder.mkdir(parents=True, exist_ok=True)
    start_ns, parts = wall_ns(), []
    groups = [(copy, at) for copy in range(copies) for at in range(0, len(sounds), GROUP)]
    for number, (copy, at) in enumerate(groups):
        path = folder / f"{copy}-{at:05d}.npz"
        if not path.exists():
            if (wall_ns() - start_ns) * 1e-9 > limit_s:
                report(f"the bank is full up to {number} of {len(groups)} groups; the same call goes on")
                return None
            _write(path, network, sounds[at : at + GROUP], copy, at)
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
    sound, found = network.sound, []
    for number, one in enumerate(sounds):
        rng = np.random.default_rng((copy, first + number))
        samples = np.asarray(one.samples, np.float32)[: round(LONGEST_S * SAMPLE_RATE)]
        if copy:
            samples = heard(samples, rng)
        pieces = pieces_of(samples, sound.piece, sound.hop, sound.lead)
        hiss = np.asarray(rng.normal(0, 10 ** rng.uniform(-5.5, -3.5), pieces.shape[1]), np.float32)
        shares = spoken(samples, sound.hop, len(pieces)) * (one.take is not None)
        found.append((*_asked(network, pieces + hiss), shares))
    statistics, newest, speech = (np.concatenate(column) for column in zip(*found, strict=True))
    counts = [len(one[2]) for one in found]
    with (partial := path.with_suffix(".part")).open("wb") as stream:
        np.savez(stream, statistics=statistics, newest=newest, speech=speech, counts=counts)
    partial.replace(path)


def _asked(
    network: StatisticsVoice, pieces: NDArray[np.float32]
) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    with torch.inference_mode():
        log_mel = network.front(torch.from_numpy(pieces))
        with torch.autocast("cpu", torch.bfloat16):
            features = tuple(one.float() for one in network.features(log_mel))
        raw = network.raw_statistics(log_mel, features)
        newest = network.newest(log_mel, features[-1])
    return raw.half().numpy(), newest.half().numpy()


def _read(sounds: Sequence[Sound], parts: Sequence[tuple[int, int, Path]], sound: WhisperSound) -> PieceBank:
    columns: dict[str, list[NDArray[np.generic]]] = {
        "statistics": [],
        "newest": [],
        "speech": [],
        "counts": [],
    }
    who: list[tuple[Sound, int, int]] = []
    for copy, at, path in parts:
        with np.load(path) as kept:
            for name, column in columns.items():
                column.append(kept[name])
        who += [(one, copy, at + i) for i, one in enumerate(sounds[at : at + GROUP])]
    whole = {name: np.concatenate(column) for name, column in columns.items()}
    counts, counted = whole["counts"].astype(np.int64), Statistics(1, "pieces")
    shares = np.split(whole["speech"].astype(np.float32), np.cumsum(counts)[:-1])
    return PieceBank(
        statistics=whole["statistics"].astype(np.float16, copy=False),
        newest=whole["newest"].astype(np.float16, copy=False),
        speech=np.concatenate(shares),
        weight=np.concatenate([counted.weights(one, sound.piece, sound.hop) for one in shares]),
        owner=np.repeat(np.arange(len(who)), counts),
        label=np.array([one.label for one, _, _ in who]),
        speaker=np.array([one.take.speaker if one.take else "" for one, _, _ in who]),
        copy=np.array([copy for _, copy, _ in who]),
        name=np.array([one.take.name if one.take else f"sound-{at}" for one, _, at in who]),
    )


def _fingerprint(network: StatisticsVoice, sounds: Sequence[Sound]) -> str:
    """Of the layers that are asked and the sounds that they hear."""
    digest = hashlib.sha256(f"{network.sound!r} until silence".encode())
    for name, tensor in network.state_dict().items():
        if not name.startswith(("head.", "speech.", "prior_")):
            digest.update(name.encode() + tensor.float().numpy().tobytes())
    for one in sounds:
        digest.update(f"{one.take.name if one.take else ''} {len(one.samples)}\n".encode())
    return f"{network.name}-{digest.hexdigest()[:12]}"


__all__ = ["NOTHING", "PieceBank", "Sound", "filled", "spoken"]
