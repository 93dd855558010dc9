"""Lets clips pass through the live path in lock-step and keeps what every cue was made of.

What a user sees is a smoothed answer, so that is what confidence is fitted on. `Recorder` stands in the place
of a run's confidence: it sees the answers of the fusion before any temperature, and how the smoothing mixed
them. From a `ClipTrace` the smoothed answer under any other temperatures follows without another run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.confidence import SUBSETS
from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.clock import MS
from liveaffect.realtime.confidence import Confidence
from liveaffect.realtime.cue import Reading, Scores
from liveaffect.realtime.fusion import Fused, Part, join, softmax
from liveaffect.realtime.smoothing import Circumstances, LabelSmoother, Shown
from liveaffect.realtime.window import FUSION_STEP_NS


@dataclass(frozen=True, slots=True)
class Glance:
    """One answer about one person, and what it was made of."""

    now_ns: int
    parts: tuple[Part, ...]
    keep: float
    """Share of the smoothed answer before it."""
    fresh: float
    """The rest of the new answer is "knows nothing"."""
    face: Reading | None
    voice: Reading | None
    evidence_ns: int
    circumstances: Circumstances
    shown: Scores
    """What the run itself smoothed."""


class _Listening(LabelSmoother):
    """Steadies as always, and writes down how."""

    def __init__(self, told: list[tuple[Part, ...]], into: list[Glance]) -> None:
        super().__init__()
        self._told, self._into = told, into

    def step(
        self,
        now_ns: int,
        raw: Scores | None,
        *,
        face: Reading | None,
        voice: Reading | None,
        evidence_ns: int,
        circumstances: Circumstances,
    ) -> Shown:
        """As `LabelSmoother.step`."""
        keep = 0.0 if self._scores is None else self._keep(max(0, now_ns - self._at_ns))
        shown = super().step(
            now_ns, raw, face=face, voice=voice, evidence_ns=evidence_ns, circumstances=circumstances
        )
        fresh = 0.0 if raw is None else self._freshness(now_ns, face, voice)
        if fresh > 0.0:
            parts = self._told[-1]
            told = (keep, fresh, face, voice, evidence_ns, circumstances, shown.scores)
            self._into.append(Glance(now_ns, parts, *told))
        return shown


@dataclass(frozen=True)
class Recorder(Confidence):
    """A confidence that changes nothing and forgets nothing. One for each clip."""

    people: list[list[Glance]] = field(default_factory=list)
    """The answers about everybody in the clip, in order of appearance."""
    _told: list[tuple[Part, ...]] = field(default_factory=list)

    def join(self, parts: Sequence[Part]) -> Fused | None:
        """As they are."""
        self._told.append(tuple(parts))
        return join(parts, {})

    def steady(self) -> LabelSmoother:
        """As always."""
        self.people.append([])
        return _Listening(self._told, self.people[-1])


@dataclass(frozen=True, slots=True, eq=False)
class ClipTrace:
    """Everything that was said about the person of one clip."""

    clip: str
    group: str
    """The speaker, or where nobody knows the people, the picture."""
    side: str
    truth: int
    glances: tuple[Glance, ...]

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which of them are cues with an opinion: on the grid, and with enough evidence."""
        little_ns = LabelSmoother().settings.little_ms * MS
        return np.array(
            [g.now_ns % FUSION_STEP_NS == 0 and g.evidence_ns >= little_ns for g in self.glances], np.bool_
        )


def relived(watch: ClipTrace, confidence: Confidence) -> list[Shown]:
    """What would have been shown of every counted cue under another confidence, "not sure" included."""
    steady = confidence.steady()
    shown = []
    for glance, counts in zip(watch.glances, watch.counted, strict=True):
        fused = confidence.join(glance.parts)
        one = steady.step(
            glance.now_ns,
            None if fused is None else fused.scores,
            face=_reread(glance.face, confidence.of_reading("face")),
            voice=_reread(glance.voice, confidence.of_reading("voice")),
            evidence_ns=glance.evidence_ns,
            circumstances=glance.circumstances,
        )
        shown += [one] if counts else []
    return shown


def _reread(reading: Reading | None, temperature: float) -> Reading | None:
    if reading is None:
        return None
    logits = np.log(np.maximum(np.array(reading.scores), 1e-30))
    return replace(reading, scores=softmax(logits, temperature))


def watch_of(recorder: Recorder, clip: str, group: str, side: str, truth: int) -> ClipTrace | None:
    """The person who was in view longest; None if nobody was there long enough for a single cue."""
    longest = max(recorder.people, key=len, default=[])
    found = ClipTrace(clip, group, side, truth, tuple(longest))
    return found if found.counted.any() else None


class ClipTraces:
    """Watches side by side, for smoothing all of them anew at once."""

    def __init__(self, watches: Sequence[ClipTrace]) -> None:
        self.watches = tuple(watches)
        count, longest = len(watches), max((len(w.glances) for w in watches), default=0)
        self._logits = np.zeros((count, longest, len(SUBSETS), len(LABELS)))
        self._shares = np.zeros((count, longest, len(SUBSETS)))
        self._keep, self._fresh = np.zeros((count, longest)), np.zeros((count, longest))
        self.counted = np.zeros((count, longest), np.bool_)
        self._shown = np.zeros((count, longest, len(LABELS)))
        for row, one in enumerate(watches):
            self.counted[row, : len(one.glances)] = one.counted
            for at, glance in enumerate(one.glances):
                for part in glance.parts:
                    column = SUBSETS.index(part.subset)
                    self._logits[row, at, column] = part.answer["logits"]
                    self._shares[row, at, column] = part.share
                self._keep[row, at], self._fresh[row, at] = glance.keep, glance.fresh
                self._shown[row, at] = glance.shown
        self.truth = np.array([w.truth for w in watches], np.int64)
        self.clips = np.repeat(np.arange(count), self.counted.sum(axis=1))
        """For every counted cue, which watch it is of."""

    def take(self, chosen: Sequence[int]) -> ClipTraces:
        """Some of them."""
        return ClipTraces([self.watches[k] for k in chosen])

    def smoothed(self, temperatures: Mapping[str, float]) -> NDArray[np.float64]:
        """(cues, 7): what users would have seen, cue by counted cue."""
        by = np.array([temperatures.get(subset, 1.0) for subset in SUBSETS])[:, None]
        raised = self._logits / by
        powers = np.exp(raised - raised.max(axis=-1, keepdims=True))
        raw = (powers / powers.sum(axis=-1, keepdims=True) * self._shares[..., None]).sum(axis=2)
        raw = self._fresh[..., None] * raw + (1.0 - self._fresh[..., None]) / len(LABELS)
        out = np.zeros_like(raw)
        for at in range(raw.shape[1]):
            before = out[:, at - 1] if at else 0.0
            keep = self._keep[:, at, None]
            out[:, at] = keep * before + (1.0 - keep) * raw[:, at]
        return np.asarray(out[self.counted])

    def largest_difference(self) -> float:
        """Between what is worked out here at temperature one and what the runs showed; it must be nothing."""
        return float(np.abs(self.smoothed({}) - self._shown[self.counted]).max(initial=0.0))
