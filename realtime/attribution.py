"""Whose voice it is: the opening of mouths against the swelling of sound.

A track speaks when its jaw follows the loudness better than chance over the last seconds, and better than
the other jaws do. The agreement is a log likelihood ratio, so tracks, "nobody in view" and doubt are
weighed in one currency. Pure: times are arguments, state is in one class, nothing is random.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.signs import SpeechEnergy, mouth_motion

__all__ = ["Attribution", "AttributionSettings", "SpeechEnergy", "Voice", "VoiceState", "mouth_motion"]

Array = NDArray[np.floating]
Mask = NDArray[np.bool_]
VoiceState = Literal["nobody speaks", "track", "nobody in view", "undecided"]

CELL_NS = 20 * MS
"""Sound and motion are compared on a fixed grid of this step."""


@dataclass(frozen=True, slots=True)
class AttributionSettings:
    """How evidence is weighed. The values were chosen on the clips of `scenarios/test_two_talkers`."""

    av_offset_ns: int = 15 * MS
    """How much later sound is stamped than the picture of the same moment."""
    lag_search_ns: int = 140 * MS
    """How far around that offset a better agreement is looked for."""
    lag_spread_ns: int = 30 * MS
    """How far off it usually is before anything was learnt; agreement at unlikely lags counts less."""
    memory_s: float = 1.3
    """Evidence this old counts 1/e."""
    window_s: float = 2.0
    """Evidence older than this is gone."""
    loud_nats: float = 1.0
    """`SpeechEnergy` from which sound may be speech; steady noise stays below 0.7."""
    range_nats: float = 5.5
    """Sound this far below the loudest of the window hardly counts (5.5 is 24 dB)."""
    hangover_ns: int = 400 * MS
    """Pauses shorter than this belong to the speech."""
    still_px: float = 0.03
    """Motion per cell that is no more than the jitter of a still face."""
    independent_ns: int = 30 * MS
    """One independent comparison per this much speech; neighbouring cells say nearly the same."""
    price: float = 0.015
    """Evidence a track pays per comparison, so that a mouth that does not follow the sound loses in time."""
    sure: float = 0.55
    """Probability from which a state is said aloud."""
    keep: float = 0.35
    """Probability at which the last track said aloud is still kept."""
    offset_memory_s: float = 20.0
    """The offset between sound and picture is learnt from clear talkers over about this much speech."""
    teacher: float = 0.95
    """From this confidence on a talker counts as clear."""
    forget_ns: int = 1_000 * MS
    """After so much silence nobody is kept as the talker."""


@dataclass(frozen=True, slots=True)
class Voice:
    """Whose voice is heard now."""

    state: VoiceState
    track: int | None
    """The talker where `state` is 'track', else None."""
    confidence: float
    """Probability of that state among all that were weighed, 0..1."""


class _Cells:
    """Values on the 20 ms grid, the newest `count` of them; each remembers which cell it was written for."""

    def __init__(self, count: int) -> None:
        self._values: Array = np.zeros(count)
        self._written_for = np.full(count, -1, np.int64)

    def add(self, cell: int, value: float) -> None:
        """Add to a cell."""
        at = cell % len(self._values)
        if self._written_for[at] != cell:
            self._written_for[at] = cell
            self._values[at] = 0.0
        self._values[at] += value

    def put(self, cell: int, value: float) -> None:
        """Set a cell."""
        self._written_for[cell % len(self._values)] = cell
        self._values[cell % len(self._values)] = value

    def at(self, cells: NDArray[np.int64]) -> tuple[Array, Mask]:
        """Their values, zero where nothing was written, and where something was."""
        places = cells % len(self._values)
        known = self._written_for[places] == cells
        return np.multiply(self._values[places], known), known


def _cell_after(when_ns: int) -> int:
    """The first cell whose middle lies after that time."""
    return (when_ns + CELL_NS // 2) // CELL_NS


@dataclass(slots=True, eq=False)
class _Mouth:
    """What is known of one track."""

    motion: _Cells
    seen_ns: int
    crop: NDArray[np.uint8] | None = None


class Attribution:
    """Says whose voice one microphone hears, among the faces of one camera. Not thread-safe: one caller.

    Feed it what was captured, in any rhythm; `decide` uses only what was captured up to its time.
    """

    LOST_NS = 250 * MS
    """Two crops further apart than this are not compared."""

    def __init__(self, settings: AttributionSettings | None = None) -> None:
        self.settings = settings or AttributionSettings()
        self._count = int(self.settings.window_s * SECOND) // CELL_NS
        self._most_lag = (self.settings.lag_search_ns + abs(self.settings.av_offset_ns)) // CELL_NS
        self._room = self._count + 2 * self._most_lag + SECOND // CELL_NS
        self._loudness = _Cells(self._room)
        self._heard: tuple[int, float] | None = None
        self._judged = _Cells(self._room)
        self._mouths: dict[int, _Mouth] = {}
        lags = np.arange(-self._most_lag, self._most_lag + 1) * CELL_NS - self.settings.av_offset_ns
        self._lag_prior = -0.5 * np.square(lags / self.settings.lag_spread_ns)
        self._lag_learnt = np.zeros_like(self._lag_prior)
        self._said: int | None = None
        self._spoken_ns: int | None = None

    def see(self, captured_ns: int, track: int, crop: NDArray[np.uint8]) -> None:
        """Take in the aligned crop of a track; compares it with that track's previous one."""
        mouth = self._mouths.get(track)
        if mouth is None or mouth.crop is None or captured_ns - mouth.seen_ns > self.LOST_NS:
            self.move(captured_ns, track, 0.0)
        else:
            self.move(captured_ns, track, mouth_motion(mouth.crop, crop))
        self._mouths[track].crop = crop

    def move(self, captured_ns: int, track: int, motion_px: float) -> None:
        """Take in `mouth_motion` since the track's previous call; spread evenly over the time between."""
        if not math.isfinite(motion_px):
            raise ValueError(f"track {track} was handed a mouth motion of {motion_px}; it must be finite")
        mouth = self._mouths.get(track)
        if mouth is None:
            self._mouths[track] = _Mouth(_Cells(self._room), captured_ns)
            return
        begin_ns, mouth.seen_ns = mouth.seen_ns, max(mouth.seen_ns, captured_ns)
        if not 0 < captured_ns - begin_ns <= self.LOST_NS:
            return
        speed = motion_px / (captured_ns - begin_ns)
        for cell in range(begin_ns // CELL_NS, -(-captured_ns // CELL_NS)):
            within = min(captured_ns, (cell + 1) * CELL_NS) - max(begin_ns, cell * CELL_NS)
            mouth.motion.add(cell, speed * within)

    def hear(self, values: Iterable[tuple[int, float]]) -> None:
        """Take in what `SpeechEnergy.add` returned. Between two values it runs straight, across gaps not."""
        for captured_ns, loudness in values:
            if not math.isfinite(loudness):
                raise ValueError(f"the loudness at {captured_ns} ns is {loudness}; it must be finite")
            before_ns, before = self._heard or (captured_ns - CELL_NS, loudness)
            self._heard = captured_ns, loudness
            if not 0 < captured_ns - before_ns <= 2 * CELL_NS:
                continue
            for cell in range(_cell_after(before_ns), _cell_after(captured_ns)):
                share = (cell * CELL_NS + CELL_NS // 2 - before_ns) / (captured_ns - before_ns)
                self._loudness.put(cell, before + share * (loudness - before))

    def judge(self, begin_ns: int, end_ns: int, speech: float) -> None:
        """Take in the voice network's probability that a stretch of sound is speech; until then it is 1."""
        if not 0.0 <= speech <= 1.0:
            raise ValueError(f"the probability of speech is {speech}; it must be 0 to 1")
        for cell in range(begin_ns // CELL_NS, min(end_ns // CELL_NS, begin_ns // CELL_NS + self._room)):
            self._judged.put(cell, speech - 1.0)

    def end(self, track: int) -> None:
        """The track ended: everything known of it dies."""
        self._mouths.pop(track, None)
        if self._said == track:
            self._said = None

    def decide(self, now_ns: int) -> Voice:
        """Whose voice is heard at that time, from what was captured up to then."""
        s = self.settings
        newest = now_ns // CELL_NS - 1  # the cell of this moment is not complete yet
        heard = np.arange(newest - self._count + 1 - self._most_lag, newest + self._most_lag + 1)
        loudness, known = self._loudness.at(heard)
        known &= heard <= newest
        loudness *= known
        likely = loudness * (1.0 + self._judged.at(heard)[0])
        loud = likely >= s.loud_nats
        recent = slice(-self._most_lag - s.hangover_ns // CELL_NS, None)
        if not loud[recent].any():
            if self._spoken_ns is not None and now_ns - self._spoken_ns > s.forget_ns:
                self._said = None
            return Voice("nobody speaks", None, 1.0 - 0.5 * float(likely[recent].max()) / s.loud_nats)
        tracks = sorted(self._mouths)
        if not tracks:
            self._spoken_ns = now_ns
            return Voice("nobody in view", None, 1.0)
        ratio, price = self._ratios(tracks, newest, loudness, known, loud)
        prior = self._lag_prior + self._lag_learnt
        # Beforehand the voice is as likely somebody's in view as nobody's, however many are in view.
        evidence = np.append((ratio + prior - prior.max()).max(axis=1) - price - math.log(len(tracks)), 0.0)
        odds = np.exp(evidence - evidence.max())
        voice = self._choose(tracks, odds / odds.sum())
        if voice.track is not None and voice.confidence >= s.teacher and self._spoken_ns is not None:
            self._learn_offset(ratio[tracks.index(voice.track)], min(now_ns - self._spoken_ns, SECOND))
        self._spoken_ns = now_ns
        return voice

    @property
    def offset_ns(self) -> int:
        """How much later sound is stamped than its picture, as far as talkers have shown it."""
        return int((self._lag_prior + self._lag_learnt).argmax() - self._most_lag) * CELL_NS

    def _learn_offset(self, ratio: Array, passed_ns: int) -> None:
        """A clear talker also shows how far sound lies behind the picture: each memory counts once."""
        passed_s = passed_ns / SECOND
        self._lag_learnt *= math.exp(-passed_s / self.settings.offset_memory_s)
        self._lag_learnt += ratio * (passed_s / self.settings.memory_s)

    def _choose(self, tracks: list[int], probabilities: Array) -> Voice:
        """The likeliest, unless it is too close and the one said last still holds."""
        s = self.settings
        best = int(probabilities.argmax())
        if self._said in tracks:
            kept = tracks.index(self._said)
            if probabilities[kept] >= s.keep and probabilities[best] < s.sure:
                best = kept
        confidence = float(probabilities[best])
        nobody = best == len(tracks)
        if confidence < (s.keep if not nobody and tracks[best] == self._said else s.sure):
            return Voice("undecided", None, 1.0 - confidence)
        if nobody:
            self._said = None
            return Voice("nobody in view", None, confidence)
        self._said = tracks[best]
        return Voice("track", tracks[best], confidence)

    def _ratios(
        self,
        tracks: list[int],
        newest: int,
        loudness: Array,
        known: Mask,
        loud: Mask,
    ) -> tuple[Array, Array]:
        """Evidence (track, lag) that its jaw follows the sound, and what each track pays for the trial.

        Evidence is the log likelihood ratio of "follows" against "does not": -n/2 log(1 - r^2) for n
        independent comparisons with correlation r, against it where the jaw moves the wrong way.
        """
        s = self.settings
        count, most = self._count, self._most_lag
        # Breath and room far below the voice swell too, and no jaw follows them.
        loudness = np.logaddexp(loudness, loudness.max() - s.range_nats)
        swell = np.zeros_like(loudness)
        swell[1:-1] = np.where(known[2:] & known[:-2], loudness[2:] - loudness[:-2], 0.0)
        swells = np.lib.stride_tricks.sliding_window_view(swell, count)
        reach = s.hangover_ns // CELL_NS
        speaking = np.convolve(loud, np.ones(2 * reach + 1), "same")[most : most + count] > 0.5
        cells = np.arange(newest - count + 1, newest + 1)
        seen = [self._mouths[track].motion.at(cells) for track in tracks]
        fading = np.exp((cells - newest) * (CELL_NS / SECOND / s.memory_s))
        motion = np.stack([values for values, _ in seen])
        weights = np.stack([known for _, known in seen]) * fading
        together = (motion * weights) @ swells.T
        moved = (np.square(motion) * weights).sum(axis=1) + s.still_px**2 * weights.sum(axis=1)
        swelled = np.square(swells) @ fading
        r = together / np.sqrt(np.outer(moved, swelled) + 1e-12)
        n = (weights @ speaking) * (CELL_NS / s.independent_ns)
        ratio = -0.5 * n[:, None] * np.sign(r) * np.log1p(-np.minimum(np.square(r), 0.95))
        return ratio, s.price * n
