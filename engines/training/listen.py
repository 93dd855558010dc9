"""Lets a voice network hear recordings as it does live: piece by piece, judging for itself what is speech.

Many recordings are heard side by side, each in its own running statistics, so that the order of time holds
and a processor is still kept busy. Anything that answers tensors by name will do: a module in training, an
exported file, its quantised form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from liveaffect.engines import manifest as manifests
from liveaffect.engines.manifest import RecipeNumbers
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE, SpeakerStatistics, hops_in
from liveaffect.engines.training import corpora_voices
from liveaffect.engines.training.corpora_voices import Take
from liveaffect.engines.training.splits import on_side

Ask = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
"""A batch of voice inputs to the voice outputs."""
SPEECH = 0.5
"""As live: a piece that is less speech than this is no evidence."""
MOST_AT_ONCE = 64
_ROUNDING_S = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """What a network said about the pieces of one recording, in their order."""

    logits: NDArray[np.float32]
    """(n, 7)."""
    score: NDArray[np.float32]
    speech: NDArray[np.float32]
    """(n,): which share of what was new in each piece is speech."""
    weight: NDArray[np.float32]
    """(n,): how much each piece counts by the speech in it."""
    hop_s: float
    mean: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """(n, statistics): what each piece was normalised with, if a network with inputs for it was asked."""
    istd: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def part(self, start: int, end: int) -> Heard:
        """Some of its pieces."""
        return Heard(
            logits=self.logits[start:end],
            score=self.score[start:end],
            speech=self.speech[start:end],
            weight=self.weight[start:end],
            hop_s=self.hop_s,
            mean=self.mean[start:end],
            istd=self.istd[start:end],
        )

    def pooled(self, speech_s: float = float("inf")) -> NDArray[np.float32] | None:
        """(7,): logits under the same weights as live, of pieces that ended within so much speech.

        None when nothing of that was taken for speech.
        """
        counts = (self.weight >= SPEECH) & (np.cumsum(self.speech) * self.hop_s <= speech_s + _ROUNDING_S)
        if not counts.any():
            return None
        height = np.where(counts, self.score + np.log(np.where(counts, self.weight, 1.0)), -np.inf)
        weight = np.exp(height - height.max())
        found: NDArray[np.float32] = ((weight / weight.sum()) @ self.logits).astype(np.float32)
        return found


def pieces_of(samples: NDArray[np.floating], piece: int, hop: int, lead: int) -> NDArray[np.float32]:
    """(pieces, piece): on the live grid, silence before the first sound and until the last one is over."""
    sound = np.pad(np.asarray(samples, np.float32), (lead, max(lead, piece - lead - len(samples))))
    return sliding_window_view(sound, piece)[::hop]


def listen(
    ask: Ask,
    recipe: RecipeNumbers,
    recordings: Sequence[NDArray[np.floating]],
    speakers: Sequence[str] | None = None,
) -> list[Heard]:
    """Hear recordings, each from cold; or those of one speaker one after another, in chance order."""
    groups = [[at] for at in range(len(recordings))]
    if speakers is not None:
        order = np.random.default_rng(0).permutation(len(recordings))
        groups = [[int(at) for at in order if speakers[at] == who] for who in sorted(set(speakers))]
    pieces = [pieces_of(one, recipe.piece, recipe.hop, recipe.lead) for one in recordings]
    streams = [[piece for at in group for piece in pieces[at]] for group in groups]
    found: dict[int, Heard] = {}
    for group, heard in zip(groups, _streams_heard(ask, recipe, streams), strict=True):
        ends = np.cumsum([len(pieces[at]) for at in group])
        for at, start, end in zip(group, [0, *ends[:-1]], ends, strict=True):
            found[at] = heard.part(int(start), int(end))
    return [found[at] for at in range(len(recordings))]


def _streams_heard(
    ask: Ask, recipe: RecipeNumbers, streams: Sequence[Sequence[NDArray[np.float32]]]
) -> list[Heard]:
    running = [SpeakerStatistics.cold(kept=recipe.statistics) for _ in streams]
    parts = hops_in(recipe.piece, recipe.hop)
    rows: list[list[dict[str, NDArray[Any]]]] = [[] for _ in streams]
    # By length, so that the batches of late pieces are full as well.
    order = sorted(range(len(streams)), key=lambda i: len(streams[i]))
    for start in range(0, len(order), MOST_AT_ONCE):
        group = order[start : start + MOST_AT_ONCE]
        for piece in range(max(len(streams[i]) for i in group)):
            here = [i for i in group if piece < len(streams[i])]
            means, istds = zip(*(running[i].normaliser() for i in here), strict=True)
            given = {
                "samples": np.stack([streams[i][piece] for i in here]),
                "mean": np.stack(means),
                "istd": np.stack(istds),
            }
            answer = {**ask(given), "mean": given["mean"], "istd": given["istd"]}
            for row, i in enumerate(here):
                said = {name: array[row] for name, array in answer.items()}
                shares = [*(one["speech"][0] for one in rows[i][-parts:]), said["speech"][0]]
                said["weight"] = recipe.statistics.weights(np.array(shares), recipe.piece, recipe.hop)[-1:]
                running[i].add(
                    said.pop("stat_sum"),
                    said.pop("stat_sumsq"),
                    speech=float(said["weight"][0]),
                    new=recipe.statistics.new(recipe.hop),
                )
                rows[i].append(said)
    return [_heard(one, recipe.hop / SAMPLE_RATE) for one in rows]


def _heard(rows: Sequence[Mapping[str, NDArray[Any]]], hop_s: float) -> Heard:
    def column(name: str) -> NDArray[np.float32]:
        return np.stack([row[name] for row in rows]).astype(np.float32)

    return Heard(
        logits=column("logits"),
        score=column("score")[:, 0],
        speech=column("speech")[:, 0],
        weight=column("weight")[:, 0],
        hop_s=hop_s,
        mean=column("mean"),
        istd=column("istd"),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What one voice network says about whole takes in which it hears speech."""

    names: tuple[str, ...]
    truth: NDArray[np.int64]
    logits: NDArray[np.float32]
    """(n, 7)."""


def ask_about(
    folder: Path,
    takes: Mapping[str, Sequence[Take]],
    side: str,
    frozen: Path,
    report: Callable[[str], None],
) -> Asked:
    """Let the voice network of a folder hear one side as live, from cold, in fp32."""
    found = manifests.read(folder / "voice.json")
    held = on_side(takes, side, frozen)
    sounds = [
        sound
        for these in held.values()
        for sound in corpora_voices.load_takes(these, corpora_voices.default_folder(), report)
    ]
    with closing(OnnxEngine(found, folder)) as engine:
        pooled = [heard.pooled() for heard in listen(engine.infer, found.recipe, sounds)]
    every = [take for these in held.values() for take in these]
    kept = [(take, said) for take, said in zip(every, pooled, strict=True) if said is not None]
    return Asked(
        names=tuple(take.name for take, _ in kept),
        truth=np.array([LABELS.index(take.label) for take, _ in kept]),
        logits=np.array([said for _, said in kept], np.float32).reshape(-1, len(LABELS)),
    )
