"""Lets clips pass through the live path in lock-step and keeps every estimate that was made of them.

What a user sees is an estimate, so that is what confidence is fitted on. Estimates hold the answers of the
fusion before any temperature; what would have been seen under other temperatures follows from the records
without another run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS, SUBSETS
from liveaffect.realtime.confidence import Confidence
from liveaffect.realtime.estimate import Estimate
from liveaffect.realtime.labelling import LabelSettings, is_little
from liveaffect.realtime.window import FUSION_STEP_NS


@dataclass(slots=True)
class Records:
    """What was estimated in one clip, by person in the order of their appearance."""

    people: dict[int | None, list[Estimate]] = field(default_factory=dict)

    def keep(self, estimate: Estimate) -> None:
        """Take in one estimate that says something."""
        if estimate.answered and estimate.fresh > 0.0:
            self.people.setdefault(estimate.track, []).append(estimate)

    def confidence(self) -> Confidence:
        """One that changes nothing and is watched."""
        return Confidence(watch=self.keep)


@dataclass(frozen=True, slots=True, eq=False)
class ClipTrace:
    """Everything that was said about the person of one clip."""

    clip: str
    group: str
    """The speaker, or where nobody knows the people, the picture."""
    side: str
    truth: int
    estimates: tuple[Estimate, ...]

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which of them are cues with an opinion: on the grid, and with enough evidence."""
        plain = LabelSettings()
        return np.array(
            [one.at_ns % FUSION_STEP_NS == 0 and not is_little(one, plain) for one in self.estimates],
            np.bool_,
        )


def relived(watch: ClipTrace, confidence: Confidence) -> list[Estimate]:
    """What would have been shown of every counted cue under another confidence, "not sure" included."""
    labeller = confidence.labeller()
    said = [labeller.label(one) for one in watch.estimates]
    return [one for one, counts in zip(said, watch.counted, strict=True) if counts]


def watch_of(records: Records, clip: str, group: str, side: str, truth: int) -> ClipTrace | None:
    """The person who was in view longest; None if nobody was there long enough for a single cue."""
    longest = max(records.people.values(), key=len, default=[])
    found = ClipTrace(clip, group, side, truth, tuple(longest))
    return found if found.counted.any() else None


class ClipTraces:
    """The counted cues of many clips as columns, to try temperatures on all of them at once."""

    def __init__(self, watches: Sequence[ClipTrace]) -> None:
        self.watches = tuple(watches)
        rows = [
            (clip, one)
            for clip, watch in enumerate(watches)
            for one, counts in zip(watch.estimates, watch.counted, strict=True)
            if counts
        ]
        self.clips = np.array([clip for clip, _ in rows], np.int64)
        """For every counted cue, which watch it is of."""
        self._logits = np.array([one.logits for _, one in rows]).reshape(-1, len(SUBSETS), len(LABELS))
        self._shares = np.array([one.shares for _, one in rows]).reshape(-1, len(SUBSETS))
        self._fresh = np.array([one.fresh for _, one in rows])
        self._shown = np.array([one.scores for _, one in rows]).reshape(-1, len(LABELS))

    def take(self, chosen: Sequence[int]) -> ClipTraces:
        """Some of them."""
        return ClipTraces([self.watches[k] for k in chosen])

    def scores(self, temperatures: Mapping[str, float]) -> NDArray[np.float64]:
        """(cues, 7): what users would have seen, cue by counted cue."""
        raised = self._logits / np.array([temperatures.get(subset, 1.0) for subset in SUBSETS])[:, None]
        powers = np.exp(raised - raised.max(axis=-1, keepdims=True))
        joint = (powers / powers.sum(axis=-1, keepdims=True) * self._shares[..., None]).sum(axis=1)
        return np.asarray(self._fresh[:, None] * joint + (1.0 - self._fresh[:, None]) / len(LABELS))

    def largest_difference(self) -> float:
        """Between what is worked out here at temperature one and what the runs showed; it must be nothing."""
        return float(np.abs(self.scores({}) - self._shown).max(initial=0.0))
