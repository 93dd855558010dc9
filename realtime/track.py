"""Keeps people apart: which find in this picture is whom from the pictures before, and where their boxes are.

Place, size and looks decide together, because place alone swaps two people who cross and looks alone swap a
person with the light. An id is given only to a face that was found twice, and never given again; who leaves
keeps it for three seconds. No pictures and no clock in here: finds and times come as arguments.

A box is still when the face is still and on it when the face is fast: an alpha-beta filter (position and
speed) whose gain grows with its own surprise. A plain low-pass would have to choose between trembling and
lagging.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.blazeface import Found
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.crop import unlikeness
from liveaffect.realtime.frame import Box
from liveaffect.realtime.search import Area, Template

STILL_GAIN, FAST_GAIN = 0.22, 0.85
STILL_SHARE, FAST_SHARE = 0.015, 0.06
"""Surprise in box widths: below the first it is the detector's tremble, above the second motion."""
SIZE_GAIN = 0.15
MAX_SPEED = 8.0
"""Box widths a second; faster is a wrong match."""
COAST_DECAY_S = 0.4
"""Unseen, the speed falls to 1/e in this time: people stop, and a guess must not run away."""


@dataclass(slots=True)
class BoxFilter:
    """Centre, speed and size of one box."""

    x: float
    y: float
    size: float
    vx: float = 0.0
    vy: float = 0.0

    def predict(self, dt_s: float, *, coasting: bool = False) -> None:
        """Move on by `dt_s` without having looked."""
        self.x += self.vx * dt_s
        self.y += self.vy * dt_s
        if coasting:
            keep = math.exp(-dt_s / COAST_DECAY_S)
            self.vx *= keep
            self.vy *= keep

    def correct(self, x: float, y: float, dt_s: float) -> None:
        """Take in where the centre was measured, `dt_s` after the last measurement."""
        dx, dy = x - self.x, y - self.y
        surprise = math.hypot(dx, dy) / self.size
        gain = _blend(surprise, STILL_GAIN, FAST_GAIN)
        self.x += gain * dx
        self.y += gain * dy
        if dt_s > 0.0:
            speed_gain = gain * gain / (2.0 - gain) / dt_s
            limit = MAX_SPEED * self.size
            self.vx = min(limit, max(-limit, self.vx + speed_gain * dx))
            self.vy = min(limit, max(-limit, self.vy + speed_gain * dy))

    def resize(self, size: float) -> None:
        """Take in how large the box was measured."""
        gain = _blend(abs(size / self.size - 1.0) / 2.0, SIZE_GAIN, FAST_GAIN)
        self.size += gain * (size - self.size)


def _blend(surprise: float, still: float, fast: float) -> float:
    share = (surprise - STILL_SHARE) / (FAST_SHARE - STILL_SHARE)
    return still + (fast - still) * min(1.0, max(0.0, share))


MAX_FACES = 16
SURE = 0.65
"""Score that a find needs to become somebody; one that goes on may be weaker."""
SURE_SMALL, SMALL_PX = 0.77, 64
"""Score that a find of fewer pixels needs: folds, badges and leaves reach 0.71, faces of 24 pixels 0.80."""
SURE_ALONE = 0.75
"""Score that makes a suspect of a close find where no tile showed anything."""
HITS = 2
"""Finds before a face is believed: by two networks in one picture, or by one in two pictures."""
LOST_AFTER = 2
"""Looks in a row that found nothing before a face is no longer shown."""
SHOWN_NS, KEPT_NS = 700 * MS, 3 * SECOND
"""How long a face that is not seen is still shown, and how long who is away keeps the id."""
DOUBTED_NS = SECOND
"""What is not confirmed within this time was nothing."""
REACH = 0.6
"""Box widths between expectation and find that one person may have."""
REACH_PER_S = 1.5
MAX_GROWTH = math.log(1.8)
LOOKS_WEIGHT = 0.3
SAME_LOOKS = 1.1
"""Unlikeness up to which somebody who was away is taken for the same person."""
NEARBY = 3.0
"""Within so many box widths of where somebody vanished, a new face may be the old one."""
PATIENCE_NS, PATIENCE_CROWDED_NS = 300 * MS, 900 * MS
"""So long it is then given time to look like it; longer beside others, who may hide half of it."""
CROWDED = 1.5
"""Box widths from another face, below which looks are not to be trusted."""
MEMORY_GAIN, SLOW_MEMORY_GAIN = 0.2, 0.02
"""How fast looks are learnt; slowly when they are suddenly others."""
POINTS_GAIN = 0.6


@dataclass(frozen=True, slots=True, eq=False)
class LikenedFind:
    """A find and what it looks like (see `crop.likeness`)."""

    found: Found
    looks: NDArray[np.float32]
    proven: bool = True
    """It was looked at twice, and its score is that of both looks; else it makes nobody known."""


@dataclass(slots=True, eq=False)
class Track:
    """One person in view, or what may become one."""

    steady: BoxFilter
    aspect: float
    """Height over width of the box."""
    points: NDArray[np.float32]
    """Six points relative to the centre, in box widths."""
    score: float
    seen_ns: int
    corrected_ns: int
    """When the place was last measured, by a find or by following."""
    born_ns: int
    looked_ns: int
    """When a close look was last taken, whatever it found; in the past before the first one."""
    id: int | None = None
    proven: bool = False
    """A second, wider look was taken: without it nobody is believed."""
    hits: int = 1
    misses: int = 0
    looks: NDArray[np.float32] | None = None
    """Mean of what it looked like over the last second or so."""
    latest: NDArray[np.float32] | None = None
    """What it looked like in the last find."""
    template: Template | None = None

    @property
    def box(self) -> Box:
        """Where it is believed to be."""
        w, h = self.steady.size, self.steady.size * self.aspect
        return (self.steady.x - w / 2, self.steady.y - h / 2, w, h)

    @property
    def pixels(self) -> NDArray[np.float32]:
        """The six points in the picture."""
        centre = np.array([self.steady.x, self.steady.y], np.float32)
        return (centre + self.points * self.steady.size).astype(np.float32)

    def is_lost(self, now_ns: int) -> bool:
        """Somebody once, not seen any more."""
        return self.misses >= LOST_AFTER or now_ns - self.seen_ns > SHOWN_NS


@dataclass(slots=True, eq=False)
class Tracker:
    """All tracks of one camera. One thread."""

    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    """Where ids come from; cameras that share it never share an id."""
    tracks: list[Track] = field(default_factory=list)
    _now_ns: int = 0

    def visible(self) -> list[Track]:
        """Everybody who is in view, in the order of their ids."""
        shown = [t for t in self.tracks if t.id is not None and not t.is_lost(self._now_ns)]
        return sorted(shown, key=lambda t: t.id or 0)

    def predict(self, now_ns: int) -> None:
        """Move everybody on to `now_ns`."""
        dt_s = (now_ns - self._now_ns) / SECOND
        for track in self.tracks:
            track.steady.predict(dt_s, coasting=track.misses > 0)
        self._now_ns = now_ns

    def suspect(self, found: Sequence[Found]) -> None:
        """Take in what a tile showed: a hint where somebody new may be, not a measurement of who is known."""
        for find in found:
            near = [t for t in self.tracks if not self._is_gone(t) and _distance(t, find) <= REACH]
            for track in near:
                # What a close look has found already, the other network now confirms.
                if track.id is None and track.looks is not None:
                    track.hits += 1
                    self._believe_if_sure(track)
            if not near:
                self.tracks.append(_born(find, None, self._now_ns))

    def take(self, seen: Sequence[LikenedFind], areas: Sequence[Area]) -> None:
        """Take in what close looks at `areas` showed, and what they did not show."""
        expected = [t for t in self.tracks if any(_lies_in(t, area) for area in areas)]
        matched = self._match(seen)
        for track, one in matched:
            self._correct(track, one)
        for track in expected:
            track.looked_ns = self._now_ns
            if all(track is not other for other, _ in matched):
                track.misses += 1
        left = [one for one in seen if all(one is not other for _, other in matched)]
        for one in left:
            if one.found.score >= SURE_ALONE and not self._is_known(one.found):
                self.tracks.append(_born(one.found, one.looks, self._now_ns, proven=one.proven))
        for track, _ in matched:
            self._believe_if_sure(track)

    def follow(self, track: Track, x: float, y: float) -> None:
        """Take in where motion says the face went."""
        track.steady.correct(x, y, (self._now_ns - track.corrected_ns) / SECOND)
        track.corrected_ns = self._now_ns

    def expire(self) -> tuple[int, ...]:
        """Forget who is gone for good; their ids."""
        ended = [t for t in self.tracks if self._is_over(t)]
        self.tracks = [t for t in self.tracks if not self._is_over(t)]
        return _ids(ended)

    def end(self, tracks: Iterable[Track]) -> tuple[int, ...]:
        """End these at once; their ids."""
        ended = list(tracks)
        self.tracks = [t for t in self.tracks if t not in ended]
        return _ids(ended)

    def _is_gone(self, track: Track) -> bool:
        return track.id is not None and track.is_lost(self._now_ns)

    def _is_over(self, track: Track) -> bool:
        if track.id is None:
            return track.misses >= LOST_AFTER or self._now_ns - track.born_ns > DOUBTED_NS
        return self._now_ns - track.seen_ns > KEPT_NS

    def _is_known(self, found: Found) -> bool:
        # A second find of a face that is there already is not a second face.
        return any(_distance(t, found) < REACH / 2 for t in self.tracks if not self._is_gone(t))

    def _match(self, seen: Sequence[LikenedFind]) -> list[tuple[Track, LikenedFind]]:
        costs = ((self._cost(t, s), i, j) for i, t in enumerate(self.tracks) for j, s in enumerate(seen))
        chosen = assign(pair for pair in costs if pair[0] < math.inf)
        return [(self.tracks[i], seen[j]) for i, j in chosen]

    def _cost(self, track: Track, one: LikenedFind) -> float:
        distance, growth = _distance(track, one.found), _growth(track, one.found)
        away_s = (self._now_ns - track.corrected_ns) / SECOND
        if distance > REACH + REACH_PER_S * away_s or abs(growth) > MAX_GROWTH:
            return math.inf
        if track.looks is None:
            return distance + abs(growth) + LOOKS_WEIGHT
        unlike = unlikeness(track.looks, one.looks)
        if unlike > SAME_LOOKS and self._is_gone(track):
            return math.inf
        return distance + abs(growth) + LOOKS_WEIGHT * unlike

    def _correct(self, track: Track, one: LikenedFind) -> None:
        unlike = 0.0 if track.latest is None else unlikeness(track.latest, one.looks)
        if one.found.score < SURE and unlike > SAME_LOOKS:
            return  # half hidden behind somebody: neither a miss nor a measurement
        x, y, w, h = one.found.box
        if track.misses >= LOST_AFTER or track.hits < HITS:
            track.steady = BoxFilter(x + w / 2, y + h / 2, w)
        else:
            dt_s = (self._now_ns - track.corrected_ns) / SECOND
            track.steady.correct(x + w / 2, y + h / 2, dt_s)
            track.steady.resize(w)
        track.aspect = h / w
        track.points += POINTS_GAIN * (_relative(one.found) - track.points)
        track.score, track.seen_ns, track.corrected_ns = one.found.score, self._now_ns, self._now_ns
        track.hits, track.misses, track.latest = track.hits + 1, 0, one.looks
        track.proven = track.proven or one.proven
        self._remember(track, one.looks)

    def _remember(self, track: Track, looks: NDArray[np.float32]) -> None:
        if track.looks is None:
            track.looks = looks.copy()
        elif not self._is_crowded(track):
            same = unlikeness(track.looks, looks) <= SAME_LOOKS
            track.looks += (MEMORY_GAIN if same else SLOW_MEMORY_GAIN) * (looks - track.looks)

    def _is_crowded(self, track: Track) -> bool:
        return any(t is not track and _distance_between(t, track) <= CROWDED for t in self.visible())

    def _believe_if_sure(self, track: Track) -> None:
        # Confirmed: somebody who was away, by looks, or somebody new.
        sure = SURE_SMALL if track.steady.size < SMALL_PX else SURE
        if track.id is not None or track.hits < HITS or not track.proven or track.score < sure:
            return
        away = [t for t in self.tracks if self._is_gone(t)]
        likely = min(away, key=lambda t: (_unlike(t, track), t.id), default=None)
        if likely is not None and _unlike(likely, track) <= SAME_LOOKS:
            track.id, track.looks = likely.id, likely.looks
            self.tracks.remove(likely)
            return
        # Who comes out from behind somebody is half hidden at first and looks like nobody: wait for more.
        if any(_distance_between(t, track) <= NEARBY for t in away):
            patience_ns = PATIENCE_CROWDED_NS if self._is_crowded(track) else PATIENCE_NS
            if self._now_ns - track.born_ns < patience_ns:
                return
        if len(self.visible()) < MAX_FACES:
            track.id = next(self.ids)


def _born(found: Found, looks: NDArray[np.float32] | None, now_ns: int, *, proven: bool = False) -> Track:
    x, y, w, h = found.box
    return Track(
        steady=BoxFilter(x + w / 2, y + h / 2, w),
        aspect=h / w,
        points=_relative(found),
        score=found.score,
        seen_ns=now_ns,
        corrected_ns=now_ns,
        born_ns=now_ns,
        looked_ns=now_ns - SECOND,
        looks=looks,
        latest=looks,
        proven=proven,
    )


def _relative(found: Found) -> NDArray[np.float32]:
    x, y, w, h = found.box
    centre = np.array([x + w / 2, y + h / 2], np.float32)
    return np.asarray((found.points - centre) / w, np.float32)


def _distance(track: Track, found: Found) -> float:
    x, y, w, h = found.box
    return math.hypot(x + w / 2 - track.steady.x, y + h / 2 - track.steady.y) / track.steady.size


def _growth(track: Track, found: Found) -> float:
    return math.log(found.box[2] / track.steady.size)


def _lies_in(track: Track, area: Area) -> bool:
    # The close look must hold the face whole and not too small to be seen.
    x, y, w, h = area
    half = track.steady.size / 2
    inside = x + half <= track.steady.x <= x + w - half and y + half <= track.steady.y <= y + h - half
    return inside and max(w, h) <= 5 * track.steady.size


def _distance_between(one: Track, other: Track) -> float:
    return math.hypot(one.steady.x - other.steady.x, one.steady.y - other.steady.y) / other.steady.size


def _unlike(one: Track, other: Track) -> float:
    if one.looks is None or other.latest is None:
        return math.inf
    return unlikeness(one.looks, other.latest)


def _ids(tracks: Iterable[Track]) -> tuple[int, ...]:
    return tuple(sorted(t.id for t in tracks if t.id is not None))


def assign(pairs: Iterable[tuple[float, int, int]]) -> list[tuple[int, int]]:
    """One to one, cheapest first, then exchanged in pairs while that makes the sum smaller."""
    cost = {(i, j): c for c, i, j in pairs}
    chosen: dict[int, int] = {}
    taken: set[int] = set()
    for _, i, j in sorted((c, i, j) for (i, j), c in cost.items()):
        if i not in chosen and j not in taken:
            chosen[i] = j
            taken.add(j)
    better = True
    while better:
        better = False
        for a, b in itertools.combinations(sorted(chosen), 2):
            now = cost[a, chosen[a]] + cost[b, chosen[b]]
            swapped = cost.get((a, chosen[b]), math.inf) + cost.get((b, chosen[a]), math.inf)
            if swapped < now - 1e-9:
                chosen[a], chosen[b] = chosen[b], chosen[a]
                better = True
    return sorted(chosen.items())
