"""Where panels stand: beside the faces, inside the picture, never over a face or each other.

Only rectangles, no pixels. All panels of a picture take the largest form that fits for everybody, so equal
people look equal; where a panel stood in the picture before is tried first, so that it does not jump.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Rect = tuple[int, int, int, int]
"""x, y, width, height in pixels of the drawn picture."""
Size = tuple[int, int]
PanelForms = tuple[str, str]
"""The form of the largest face and of all others."""

FORMS = ("full", "bars", "slim", "label", "name")
"""What a panel can be, from the largest to the smallest."""
_ONE_IN_FRONT: tuple[PanelForms, ...] = (("full", "label"), ("bars", "label"), ("slim", "label"))
"""Tried too where one person clearly stands in front."""


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

    @property
    def area(self) -> int:
        """Of the face."""
        return self.box[2] * self.box[3]


PlacedPanel = tuple[PanelPlace, Rect]


def overlap(a: Rect, b: Rect) -> bool:
    """Whether two rectangles share a pixel."""
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def clearance(box: Rect, gap: int) -> tuple[int, int]:
    """How far things beside and below a face stand off: detectors cut off ears and chins, too."""
    return max(gap, box[2] // 14), max(gap, box[3] // 14)


def face_room(box: Rect) -> Rect:
    """What a panel keeps clear of: the box and the forehead, which detectors cut off."""
    brow = box[3] // 10
    return box[0], box[1] - brow, box[2], box[3] + brow


class PanelPlacer:
    """The picture and what already stands in it; finds places in what is left."""

    def __init__(self, size: Size, gap: int, taken: Iterable[Rect] = ()) -> None:
        self.size = size
        self.gap = gap
        """Between things, and between them and the edge."""
        self.taken = list(taken)

    def holds(self, rect: Rect) -> bool:
        """Whether the rectangle lies within the margins."""
        x, y, w, h = rect
        edge, (width, height) = self.gap, self.size
        return x >= edge and y >= edge and x + w <= width - edge and y + h <= height - edge

    def is_free(self, rect: Rect, *, apart_from: Rect | None = None) -> bool:
        """Whether the rectangle lies within the picture and touches nothing but what it may."""
        others = list(self.taken)
        if apart_from in others:
            others.remove(apart_from)  # one of them: another face may have the very same box
        return self.holds(rect) and not any(overlap(rect, it) for it in others)

    def take(self, rect: Rect) -> Rect:
        """Note that this place is taken."""
        self.taken.append(rect)
        return rect

    def first_free(self, candidates: Sequence[Rect]) -> Rect | None:
        """The first free candidate, now taken."""
        return next((self.take(rect) for rect in candidates if self.is_free(rect)), None)

    def corners(self, size: Size, order: Sequence[str]) -> list[Rect]:
        """The rectangle at the named edges: 'bl', 'br', 'tl', 'tr', 'bc', 'tc', 'ml', 'mr'."""
        (w, h), (width, height) = size, self.size
        across = {"l": self.gap, "c": (width - w) // 2, "r": width - self.gap - w}
        down = {"t": self.gap, "m": (height - h) // 2, "b": height - self.gap - h}
        return [(across[name[1]], down[name[0]], w, h) for name in order]

    def place(self, panels: Sequence[WantedPanel], before: Sequence[PanelPlace] = ()) -> list[PlacedPanel]:
        """A place for every panel, largest face first; one that fits in no form gets none.

        Takes the largest forms in which everybody finds a place. A panel only becomes larger than it was
        when there is some room to spare, so that a face at the limit does not make it flicker.
        """
        panels = sorted(panels, key=lambda panel: (-panel.area, panel.track))
        known = {place.track: place for place in before}
        best: list[PlacedPanel] = []
        for forms in _forms_to_try(panels):
            placed = self._try_forms(panels, forms, known)
            if len(placed) == len(panels):
                best = placed
                break
            best = max(best, placed, key=len)
        for _, rect in best:
            self.take(rect)
        return best

    def _try_forms(
        self, panels: Sequence[WantedPanel], forms: PanelForms, known: Mapping[int, PanelPlace]
    ) -> list[PlacedPanel]:
        """As many as find a place in these forms, without taking any."""
        trial = PanelPlacer(self.size, self.gap, self.taken)
        out = []
        for index, panel in enumerate(panels):
            form = forms[min(index, 1)]
            found = trial._beside(panel, form, known.get(panel.track))
            if found is None and form == "name":
                found = trial._inside(panel, panels)
            if found is not None:
                x, y, w, h = found[1]
                half = self.gap // 2
                trial.take((x - half, y - half, w + 2 * half, h + 2 * half))
                out.append(found)
            elif forms != ("name", "name"):
                return out
        return out

    def _beside(self, panel: WantedPanel, form: str, was: PanelPlace | None) -> PlacedPanel | None:
        """The best free place around the face, or the one where the panel was if that is still free."""
        growing = was is not None and FORMS.index(form) < FORMS.index(was.form)
        found: PlacedPanel | None = None
        for side, align, rect in self._around(panel.box, panel.sizes[form], flat=form in ("label", "name")):
            stays = was is not None and (was.side, was.align) == (side, align)
            if (found is not None and not stays) or not self.is_free(rect):
                continue
            if growing and not self._has_spare(rect, side, face_room(panel.box)):
                continue
            found = PanelPlace(panel.track, form, side, align), rect
            if stays or was is None:
                return found
        return found

    def _has_spare(self, rect: Rect, side: str, face: Rect) -> bool:
        """Whether a panel would fit even if the face moved a little towards the panel's side."""
        x, y, w, h = rect
        by = 2 * self.gap
        wide = (x - by, y, w + 2 * by, h) if side in ("right", "left") else (x, y - by, w, h + 2 * by)
        return self.is_free(wide, apart_from=face)

    def _inside(self, panel: WantedPanel, panels: Sequence[WantedPanel]) -> PlacedPanel | None:
        """The last resort where a face fills the picture: a corner of its box that it does not reach."""
        x, y, w, h = panel.box
        pw, ph = panel.sizes["name"]
        within_oval = (w - 2 * pw) ** 2 * h * h + (h - 2 * ph) ** 2 * w * w <= w * w * h * h
        if within_oval or 2 * pw > w or 2 * ph > h:
            return None
        others = [face_room(other.box) for other in panels if other is not panel]
        own = face_room(panel.box)
        for align, px in (("start", x), ("end", x + w - pw)):
            for py in (y, y + h - ph):
                rect = px, py, pw, ph
                if self.is_free(rect, apart_from=own) and not any(overlap(rect, it) for it in others):
                    return PanelPlace(panel.track, "name", "inside", align), rect
        return None

    def _around(self, box: Rect, size: Size, *, flat: bool) -> Iterator[tuple[str, str, Rect]]:
        """Every place for a panel around a face, best first, pushed inside the picture along its side."""
        (x, y, w, h), (pw, ph), (width, height) = box, size, self.size

        def inside(low: int, length: int, whole: int) -> int:
            return max(self.gap, min(low, whole - self.gap - length))

        downs = {"start": y, "middle": y + (h - ph) // 2, "end": y + h - ph}
        overs = {"start": x, "middle": x + (w - pw) // 2, "end": x + w - pw}
        aside, under = clearance(box, self.gap)
        beyond = {"right": x + w + aside, "left": x - aside - pw}
        beside = [
            (side, align, (px, inside(down, ph, height), pw, ph))
            for align, down in downs.items()
            for side, px in beyond.items()
        ]
        levels = {"above": face_room(box)[1] - self.gap - ph, "below": y + h + under}
        upright = [
            (side, align, (inside(over, pw, width), py, pw, ph))
            for align, over in overs.items()
            for side, py in levels.items()
        ]
        # A line of text reads best over the head, a tall panel beside it.
        yield from (*upright, *beside) if flat else (*beside, *upright)


def _forms_to_try(panels: Sequence[WantedPanel]) -> list[PanelForms]:
    """Best first: all alike, and a larger one for whoever clearly stands in front."""
    forms: list[PanelForms] = [(form, form) for form in FORMS]
    if len(panels) > 1 and panels[0].area >= 2 * panels[1].area:
        forms[3:3] = _ONE_IN_FRONT
    return forms
