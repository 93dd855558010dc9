"""Where panels stand: beside the faces, inside the picture, never over a face or each other.

Only rectangles, no pixels. All panels of a picture take the largest form that fits for everybody, so equal
people look equal; where a panel stood in the picture before is tried first, so that it does not jump.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

Rect = tuple[int, int, int, int]
"""x, y, width, height in pixels of the drawn picture."""
Size = tuple[int, int]

FORMS = ("full", "bars", "slim", "label", "name")
"""What a panel can be, from the largest to the smallest."""
_MAIN = (("full", "label"), ("bars", "label"), ("slim", "label"))
"""Forms of the largest face and of the others where one person clearly stands in front."""


@dataclass(frozen=True, slots=True)
class PanelPlace:
    """Where the panel of a track stands: hand it back with the next picture and it stays there."""

    track: int
    form: str
    side: str
    """right, left, below, above, or inside: in a corner of the box that the face does not reach."""
    align: str
    """start, middle or end along that side."""


@dataclass(frozen=True, slots=True)
class WantedPanel:
    """A face that wants a panel, with the size of each form."""

    track: int
    box: Rect
    sizes: Mapping[str, Size]


def overlap(a: Rect, b: Rect) -> bool:
    """Whether two rectangles share a pixel."""
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def grown(rect: Rect, by: int) -> Rect:
    """The rectangle with a margin all around."""
    return rect[0] - by, rect[1] - by, rect[2] + 2 * by, rect[3] + 2 * by


def clearance(box: Rect, gap: int) -> tuple[int, int]:
    """How far things beside and below a face stand off: detectors cut off ears and chins, too."""
    return max(gap, box[2] // 14), max(gap, box[3] // 14)


def face_room(box: Rect) -> Rect:
    """What a panel keeps clear of: the box and the forehead, which detectors cut off."""
    brow = box[3] // 10
    return box[0], box[1] - brow, box[2], box[3] + brow


@dataclass(slots=True)
class FreeSpace:
    """The picture and what already stands in it."""

    width: int
    height: int
    margin: int
    taken: list[Rect]

    def holds(self, rect: Rect) -> bool:
        """Whether the rectangle lies within the margins."""
        x, y, w, h = rect
        edge = self.margin
        return x >= edge and y >= edge and x + w <= self.width - edge and y + h <= self.height - edge

    def is_free(self, rect: Rect) -> bool:
        """Whether the rectangle lies within the picture and touches nothing."""
        return self.holds(rect) and not any(overlap(rect, other) for other in self.taken)

    def take(self, rect: Rect) -> Rect:
        """Note that this place is taken."""
        self.taken.append(rect)
        return rect

    def first_free(self, candidates: Sequence[Rect]) -> Rect | None:
        """The first free candidate, now taken."""
        for rect in candidates:
            if self.is_free(rect):
                return self.take(rect)
        return None

    def corners(self, size: Size, order: Sequence[str]) -> list[Rect]:
        """The rectangle at the named edges: 'bl', 'br', 'tl', 'tr', 'bc', 'tc', 'ml', 'mr'."""
        w, h = size
        across = {"l": self.margin, "c": (self.width - w) // 2, "r": self.width - self.margin - w}
        down = {"t": self.margin, "m": (self.height - h) // 2, "b": self.height - self.margin - h}
        return [(across[name[1]], down[name[0]], w, h) for name in order]


def places(
    box: Rect, size: Size, gap: int, room: FreeSpace, *, flat: bool
) -> Iterator[tuple[str, str, Rect]]:
    """Every place for a panel around a face, best first, pushed inside the picture along the face's side."""
    x, y, w, h = box
    pw, ph = size
    edge = room.margin

    def inside(low: int, length: int, whole: int) -> int:
        return max(edge, min(low, whole - edge - length))

    downs = {"start": y, "middle": y + (h - ph) // 2, "end": y + h - ph}
    overs = {"start": x, "middle": x + (w - pw) // 2, "end": x + w - pw}
    aside, under = clearance(box, gap)
    beyond = {"right": x + w + aside, "left": x - aside - pw}
    beside = [
        (side, align, (px, inside(down, ph, room.height), pw, ph))
        for align, down in downs.items()
        for side, px in beyond.items()
    ]
    levels = {"above": face_room(box)[1] - gap - ph, "below": y + h + under}
    upright = [
        (side, align, (inside(over, pw, room.width), py, pw, ph))
        for align, over in overs.items()
        for side, py in levels.items()
    ]
    # A line of text reads best over the head, a tall panel beside it.
    yield from (*upright, *beside) if flat else (*beside, *upright)


def place_panels(
    guests: Sequence[WantedPanel], room: FreeSpace, gap: int, before: Sequence[PanelPlace] = ()
) -> list[tuple[PanelPlace, Rect]]:
    """A seat for every guest, largest face first; whom no form fits gets none.

    Takes the first scheme in which everybody finds a place. A panel only becomes larger than it was when
    there is some room to spare, so that a face at the limit does not make it flicker.
    """
    guests = sorted(guests, key=lambda g: (-g.box[2] * g.box[3], g.track))
    known = {seat.track: seat for seat in before}
    best: list[tuple[PanelPlace, Rect]] = []
    for first, others in _schemes(guests):
        seated = _try_scheme(guests, (first, others), room, gap, known)
        if len(seated) == len(guests):
            return seated
        best = max(best, seated, key=len)
    return best


def _schemes(guests: Sequence[WantedPanel]) -> list[tuple[str, str]]:
    """The form of the largest face and of all others, best first."""
    schemes = [(form, form) for form in FORMS]
    areas = [guest.box[2] * guest.box[3] for guest in guests[:2]]
    if len(areas) == 2 and areas[0] >= 2 * areas[1]:
        schemes[3:3] = _MAIN
    return schemes


def _try_scheme(
    guests: Sequence[WantedPanel],
    forms: tuple[str, str],
    room: FreeSpace,
    gap: int,
    known: Mapping[int, PanelPlace],
) -> list[tuple[PanelPlace, Rect]]:
    trial = FreeSpace(room.width, room.height, room.margin, list(room.taken))
    out = []
    last_scheme = forms == ("name", "name")
    for index, guest in enumerate(guests):
        form = forms[min(index, 1)]
        found = _try_guest(guest, form, trial, gap, known.get(guest.track))
        if found is None and form == "name":
            found = _inside(guest, guests, trial)
        if found is not None:
            trial.take(grown(found[1], gap // 2))
            out.append(found)
        elif not last_scheme:
            return out
    return out


def _inside(
    guest: WantedPanel, guests: Sequence[WantedPanel], room: FreeSpace
) -> tuple[PanelPlace, Rect] | None:
    """The last resort where a face fills the picture: a corner of its box that the face does not reach."""
    x, y, w, h = guest.box
    pw, ph = guest.sizes["name"]
    if (w - 2 * pw) ** 2 * h * h + (h - 2 * ph) ** 2 * w * w <= w * w * h * h or 2 * pw > w or 2 * ph > h:
        return None
    own = {face_room(guest.box)}
    others = [face_room(other.box) for other in guests if other is not guest]
    standing = [*others, *(rect for rect in room.taken if rect not in own)]
    for align, px in (("start", x), ("end", x + w - pw)):
        for py in (y, y + h - ph):
            rect = px, py, pw, ph
            if room.holds(rect) and not any(overlap(rect, other) for other in standing):
                return PanelPlace(guest.track, "name", "inside", align), rect
    return None


def _try_guest(
    guest: WantedPanel, form: str, room: FreeSpace, gap: int, was: PanelPlace | None
) -> tuple[PanelPlace, Rect] | None:
    growing = was is not None and FORMS.index(form) < FORMS.index(was.form)
    spare = 2 * gap if growing else 0
    found: tuple[PanelPlace, Rect] | None = None
    for side, align, rect in places(guest.box, guest.sizes[form], gap, room, flat=form in ("label", "name")):
        stays = was is not None and (was.side, was.align) == (side, align)
        if (found is not None and not stays) or not room.is_free(rect):
            continue
        if spare and not _has_spare(rect, side, spare, room, face_room(guest.box)):
            continue
        found = PanelPlace(guest.track, form, side, align), rect
        if stays or was is None:
            return found
    return found


def _has_spare(rect: Rect, side: str, spare: int, room: FreeSpace, own: Rect) -> bool:
    """Whether a panel would fit even if the face moved this much towards the panel's side."""
    x, y, w, h = rect
    wide = (x - spare, y, w + 2 * spare, h) if side in ("right", "left") else (x, y - spare, w, h + 2 * spare)
    return room.holds(wide) and not any(overlap(wide, other) for other in room.taken if other != own)
