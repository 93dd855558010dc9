"""Lets a voice network hear recordings as it does live: piece by piece, judging for itself what is speech.

Many recordings are heard side by side, each in its own running statistics, so that the order of time holds
and a processor is still kept busy. Anything that answers tensors by name will do: a module in training, an
exported file, its quantised form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from liveaffect.engines.model.heads import VoiceNetwork
from liveaffect.engines.recipe import SAMPLE_RATE, SpeakerStatistics
from liveaffect.engines.training.replay_statistics import Picture

Ask = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
"""A batch of voice inputs to the voice outputs."""
SPEECH = 0.5
"""As live: a piece that is less speech than this is no evidence."""
MOST_AT_ONCE = 64
ONE_WINDOW_S = 2.8
"""Seconds of speech at the end of which one window is judged by itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """What a network said about the pieces of one recording, in their order."""

    vector: NDArray[np.float32]
    """(n, 64)."""
    logits: NDArray[np.float32]
    score: NDArray[np.float32]
    speech: NDArray[np.float32]
    mean: NDArray[np.float32]
    """(n, 64): the statistics that each piece was normalised with."""
    istd: NDArray[np.float32]
    hop_s: float

    def until(self, speech_s: float) -> Heard:
        """Only what was heard until so much speech had been heard."""
        before = np.cumsum(self.speech * self.hop_s) - self.speech * self.hop_s
        return self._part(before < speech_s)

    def newest_within(self, most_s: float = ONE_WINDOW_S) -> Heard:
        """Only the last piece of speech that ended before so much speech had been heard."""
        after = np.cumsum(self.speech * self.hop_s)
        counts = np.flatnonzero((self.speech >= SPEECH) & (after <= most_s))
        keep = np.zeros(len(self.speech), np.bool_)
        keep[counts[-1:]] = True
        return self._part(keep)

    def _part(self, keep: NDArray[np.bool_]) -> Heard:
        return Heard(
            vector=self.vector[keep],
            logits=self.logits[keep],
            score=self.score[keep],
            speech=self.speech[keep],
            mean=self.mean[keep],
            istd=self.istd[keep],
            hop_s=self.hop_s,
        )

    def pooled(self) -> NDArray[np.float32] | None:
        """Logits under the same weights as live; None when nothing in it was taken for speech."""
        if not (self.speech >= SPEECH).any():
            return None
        found: NDArray[np.float32] = self.weights()[0] @ self.logits
        return found

    def weights(self) -> tuple[NDArray[np.float32], float]:
        """(n,): how much each piece counts, none when nothing was speech; and the log of their sum before."""
        counts = self.speech >= SPEECH
        if not counts.any():
            return np.zeros(len(counts), np.float32), float("-inf")
        height = np.where(counts, self.score + np.log(np.maximum(self.speech, SPEECH)), -np.inf)
        weight = np.exp(height - height.max())
        return (weight / weight.sum()).astype(np.float32), float(np.log(weight.sum()) + height.max())


def listen(
    ask: Ask,
    recordings: Sequence[Picture],
    hop: int,
    known: Sequence[SpeakerStatistics] | None = None,
) -> list[Heard]:
    """Hear recordings, each an array of its pieces, from cold or in statistics that are `known` and go on."""
    running = list(known) if known else [SpeakerStatistics.cold() for _ in recordings]
    rows: list[list[dict[str, NDArray[Any]]]] = [[] for _ in recordings]
    # By length, so that the batches of late pieces are full as well.
    order = sorted(range(len(recordings)), key=lambda i: len(recordings[i]))
    for start in range(0, len(order), MOST_AT_ONCE):
        group = order[start : start + MOST_AT_ONCE]
        for piece in range(max(len(recordings[i]) for i in group)):
            here = [i for i in group if piece < len(recordings[i])]
            means, istds = zip(*(running[i].normaliser() for i in here), strict=True)
            given = {
                "samples": np.stack([recordings[i][piece] for i in here]),
                "mean": np.stack(means),
                "istd": np.stack(istds),
            }
            answer = {**ask(given), "mean": given["mean"], "istd": given["istd"]}
            for row, i in enumerate(here):
                said = {name: array[row] for name, array in answer.items()}
                rows[i].append(said)
                speech = float(said["speech"][0])
                running[i].add(
                    said["stat_sum"], said["stat_sumsq"], speech=speech, new=running[i].kept.new(hop)
                )
    return [_heard(one, hop / SAMPLE_RATE) for one in rows]


def asking(network: VoiceNetwork) -> Ask:
    """A module as something to ask, with its front end as it is now."""

    def ask(given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        device = next(network.parameters()).device
        tensors = [torch.from_numpy(given[tensor.name]).to(device) for tensor in network.inputs]
        with torch.inference_mode():
            answer = network(*tensors)
        return {name: value.float().cpu().numpy() for name, value in answer._asdict().items()}

    return ask


def _heard(rows: Sequence[Mapping[str, NDArray[Any]]], hop_s: float) -> Heard:
    def column(name: str) -> NDArray[np.float32]:
        return np.stack([row[name] for row in rows]).astype(np.float32)

    return Heard(
        vector=column("vector"),
        logits=column("logits"),
        score=column("score")[:, 0],
        speech=column("speech")[:, 0],
        mean=column("mean"),
        istd=column("istd"),
        hop_s=hop_s,
    )
