"""Looks at every picture of one camera and says who is in it: search, track and crop within the budget.

One tile of the full-range network, or a few close looks, fit into a frame; both must not be had at will.
So a frame takes a tile when one is due, then as many close looks as are left, new suspects first, and the
faces that had no look are followed by motion.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from liveaffect.realtime.blazeface import FaceFinder, Found
from liveaffect.realtime.clock import MS
from liveaffect.realtime.crop import cut_out, likeness, unlikeness
from liveaffect.realtime.frame import Box, Face, Sighting, VideoFrame
from liveaffect.realtime.search import (
    Area,
    Change,
    MotionDetector,
    Search,
    Template,
    close_area,
    look,
    look_everywhere,
    look_twice,
    one_each,
)
from liveaffect.realtime.track import SURE, LikenedFind, Track, Tracker

LOOK_AGAIN_NS = 55 * MS
"""A known face is looked at again after this: every second frame at 30 a second, every frame below 18."""
LOOK_BESIDE_TILE_NS = 95 * MS
"""In a frame that takes a tile only what is older than this is looked at; the rest waits for the next."""
LOOK_FOR_LOST_NS = 200 * MS
LOOKS_WITH_TILE, LOOKS_ALONE = 1, 3
"""Close looks that a frame takes beside a tile, and without one; one more if the last is at somebody new."""
MANY_FACES, LOOKS_AMONG_MANY = 6, 2
"""With so many faces the cutting takes the time of one look, and each is followed every second frame."""
SAME_MOMENT = 0.7
"""Unlikeness of one person from one frame to the next; what a cut brings is above it."""
SAME_PLACE = 0.8
"""Box widths that a face may move during an abrupt change."""
STILL, ALONE = 1.0, 2.0
"""Box widths a second below which a face stands still, and from the next face beyond which it is alone."""
NOVEL_PLACE = 0.15
"""An abrupt change with no face left where it was is a cut if this much of the picture is new."""


class FaceAnalyzer:
    """Who is in view of one camera. Not thread-safe; the same pictures give the same sightings."""

    def __init__(
        self, source: str, far: FaceFinder, near: FaceFinder, *, ids: Iterator[int] | None = None
    ) -> None:
        """`far` looks at tiles, `near` close up. Cameras that share `ids` never share a track id."""
        self.source = source
        self._far, self._near = far, near
        self._tracker = Tracker() if ids is None else Tracker(ids)
        self._motion = MotionDetector()
        self._doubted: set[int] = set()
        """Who may be somebody else, since what is around them changed at once; to be looked at anew."""
        self._search: Search | None = None
        self._size = (0, 0)

    def reset(self) -> tuple[int, ...]:
        """Forget everybody, as when a camera was reopened; the ids that ended. Ids go on counting."""
        self._motion.reset()
        self._doubted.clear()
        self._search = None
        return self._tracker.end(list(self._tracker.tracks))

    def step(self, frame: VideoFrame) -> Sighting:
        """Who is in this picture. Pictures come in the order of their time."""
        resized = self._search is not None and self._size != frame.size
        left = self.reset() if resized else ()
        if self._search is None:
            self._size = frame.size
            self._search = Search(*frame.size)
        image, now_ns = frame.image, frame.captured_ns
        change = self._motion.look(image)
        self._tracker.predict(now_ns)
        self._doubt(change)
        judged, ended, cut = self._judge(image, change) if self._doubted else (0, left, resized)
        if cut:
            self._search.restart()
        visible = self._tracker.visible()
        tile = None
        if judged <= LOOKS_WITH_TILE:
            boxes = [t.box for t in visible]
            tile = self._search.next_tile(now_ns, change.samples, boxes, hurry=not visible)
        if tile is not None:
            self._tracker.suspect(look(self._far, image, tile))
        alone = LOOKS_ALONE if len(visible) < MANY_FACES else LOOKS_AMONG_MANY
        again_ns = LOOK_AGAIN_NS if tile is None else LOOK_BESIDE_TILE_NS
        due = self._due(now_ns, again_ns)
        areas, seen = self._take_looks(image, due, (alone if tile is None else LOOKS_WITH_TILE) - judged)
        self._tracker.take(seen, areas)
        self._follow(frame)
        ended += self._tracker.expire()
        faces = tuple(_face_of(image, track) for track in self._tracker.visible())
        return Sighting(frame.source, frame.seq, now_ns, frame.size, faces, cut, ended)

    def _doubt(self, change: Change) -> None:
        # All, after a change of the whole picture; else those in a tile of a call that shows another person.
        visible = self._tracker.visible()
        new = (t.id for t in visible if change.abrupt or self._may_be_replaced(t, visible, change))
        self._doubted = {
            i for i in (*self._doubted, *new) if i is not None and any(i == t.id for t in visible)
        }

    def _may_be_replaced(self, track: Track, visible: Sequence[Track], change: Change) -> bool:
        # Not where faces pass each other or move fast: there everything around them changes, too.
        if not change.abrupt_at(track.box, self._size):
            return False
        still = float(np.hypot(track.steady.vx, track.steady.vy)) < STILL * track.box[2]
        return still and all(t is track or _apart(t.box, track.box) > ALONE for t in visible)

    def _judge(self, image: NDArray[np.uint8], change: Change) -> tuple[int, tuple[int, ...], bool]:
        # Nobody in doubt is believed to be who they were before they were looked at again, a few a picture.
        # Answers how many looks that took, which ids ended, and whether it was a cut.
        doubted = [track for track in self._tracker.visible() if track.id in self._doubted]
        known = [] if change.cut else doubted[:LOOKS_ALONE]
        areas, seen = self._take_looks(image, known, LOOKS_ALONE, anew=True)
        verdicts = [_is_same(track, seen) for track in known]
        self._doubted -= {t.id for t, same in zip(known, verdicts, strict=True) if same is not None and t.id}
        others = [track for track, same in zip(known, verdicts, strict=True) if same is False]
        nobody_left = change.abrupt and bool(known) and True not in verdicts
        nobody_left = nobody_left and (bool(others) or change.novel > NOVEL_PLACE)
        if change.cut or nobody_left:
            places = [_suspect_at(track) for track in self._tracker.visible()]
            ended = self._tracker.end(list(self._tracker.tracks))
            self._tracker.take(seen, areas)
            self._tracker.suspect(places)
            return len(areas), ended, True
        ended = self._tracker.end(others)
        self._tracker.take(seen, areas)
        return len(areas), ended, False

    def _take_looks(
        self, image: NDArray[np.uint8], tracks: Sequence[Track], most: int, *, anew: bool = False
    ) -> tuple[list[Area], list[LikenedFind]]:
        # Who is not known yet, or is to be known anew, is looked at a second time from farther away.
        areas: list[Area] = []
        found: list[tuple[Found, bool]] = []
        spent = 0
        for track in tracks:
            if spent >= most:
                break
            area = close_area(track.box, *self._size)
            if area is None:
                track.misses += 1
                continue
            areas.append(area)
            spent += 1
            finds = look(self._near, image, area)
            nearest = min(finds, key=lambda f: _apart(f.box, track.box), default=None)
            for find in finds:
                twice = (anew or track.id is None) and find is nearest and find.score >= SURE
                spent += twice
                found.append((look_twice(self._near, image, find) if twice else find, twice))
        proven = {id(find): twice for find, twice in found}
        best = one_each([find for find, _ in found])
        return areas, [LikenedFind(f, s, proven[id(f)]) for f in best if (s := _looks(image, f)) is not None]

    def _due(self, now_ns: int, again_ns: int) -> Sequence[Track]:
        # Suspects first: a face is shown as soon as it is confirmed.
        due = []
        for track in self._tracker.tracks:
            lost, age_ns = track.is_lost(now_ns), now_ns - track.looked_ns
            wait_ns = LOOK_FOR_LOST_NS if lost else LOOK_AGAIN_NS if track.id is None else again_ns
            if age_ns >= wait_ns and track.id not in self._doubted:
                due.append((track.id is not None, lost, track.looked_ns, track.id or 0, track))
        return [track for *_, track in sorted(due, key=lambda item: item[:-1])]

    def _follow(self, frame: VideoFrame) -> None:
        visible = self._tracker.visible()
        for number, track in enumerate(visible):
            if track.seen_ns == frame.captured_ns:
                track.template = Template.of(frame.image, track.box)
            elif len(visible) >= MANY_FACES and (number + frame.seq) % 2:
                continue
            elif (
                track.template is not None
                and (place := track.template.find(frame.image, track.box)) is not None
            ):
                self._tracker.follow(track, *place)


def find_in_picture(far: FaceFinder, near: FaceFinder, image: NDArray[np.uint8]) -> list[Face]:
    """All faces of a single picture, thoroughly, best first, numbered from 1."""
    found = [f for f in look_everywhere(far, near, image, sure=SURE) if _looks(image, f) is not None]
    return [
        Face(number, f.box, f.points, (0.0, 0.0), 0, f.score, cut_out(image, f.points))
        for number, f in enumerate(found, 1)
    ]


def _face_of(image: NDArray[np.uint8], track: Track) -> Face:
    assert track.id is not None
    points, velocity = track.pixels, (track.steady.vx, track.steady.vy)
    return Face(track.id, track.box, points, velocity, track.seen_ns, track.score, cut_out(image, points))


def _is_same(track: Track, seen: Sequence[LikenedFind]) -> bool | None:
    # None: no face there at all; it may be hidden, or the picture is another one.
    best = min(seen, key=lambda s: _apart(s.found.box, track.box), default=None)
    if best is None or track.latest is None or _apart(best.found.box, track.box) > SAME_PLACE:
        return None
    return unlikeness(best.looks, track.latest) <= SAME_MOMENT


def _looks(image: NDArray[np.uint8], found: Found) -> NDArray[np.float32] | None:
    # A find whose eyes coincide is no face that a crop could be placed on.
    if not float(np.hypot(*(found.points[1] - found.points[0]))) > 1.0:
        return None
    return likeness(cut_out(image, found.points))


def _apart(one: Box, other: Box) -> float:
    dx, dy = one[0] + one[2] / 2 - other[0] - other[2] / 2, one[1] + one[3] / 2 - other[1] - other[3] / 2
    return float(np.hypot(dx, dy)) / max(1.0, other[2])


def _suspect_at(track: Track) -> Found:
    return Found(track.box, track.pixels, 0.0)
