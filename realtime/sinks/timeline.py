"""A whole run as one picture: evenly spaced drawn pictures, or for every person the label over time.

How long a run will be is not known, so pictures are collected ever more sparsely: whenever the store is
full, every second one goes and the distance doubles. Of cues a few numbers each are kept. A person seen for
so long that there are too many loses every second of them, only those seen longest are drawn, and whoever
was seen briefly and is away makes room for who comes: a run of days costs no more memory than one of hours.
matplotlib is imported when the first figure is made, because that takes a third of a second; its index of the
fonts of this machine goes into this program's own cache folder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS
from liveaffect.engines.user_folders import cache_dir
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import MODALITIES, NOT_SURE, Cue
from liveaffect.realtime.drawing.canvas import INK, LABEL_COLOURS, QUIET, TRACK, Canvas, Colour, paste
from liveaffect.realtime.drawing.text import dejavu, font_of, printable
from liveaffect.realtime.errors import SinkError
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.sinks.files import Replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


DPI = 100
"""A point of text is then the same everywhere, and sizes can be given in pixels."""


def new_figure(width_px: int, height_px: int) -> Figure:
    """An empty figure that belongs to no window and to no other figure."""
    os.environ.setdefault("MPLCONFIGDIR", str(cache_dir() / "matplotlib"))
    from matplotlib import rcdefaults
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rcdefaults()  # a user's own style must not make pictures unreadable
    figure = Figure(figsize=(width_px / DPI, height_px / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def figure_picture(figure: Figure) -> NDArray[np.uint8]:
    """The drawn figure as an RGB picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    drawn = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(np.asarray(drawn, np.uint8)[..., :3])


Tile = tuple[int, str, NDArray[np.uint8]]
"""When it was captured, by which source, and the small picture."""

COLUMNS = 4
PICTURES = 16
"""Most pictures on a sheet."""
_STORE = 4 * PICTURES
_FIRST_STEP_NS = 33 * MS
_TILE_WIDTH_PX = 400
_GAP_PX = 10
_CAP_PX = 10
_CAPTION_PX = 28
_SHEET_GROUND = (20, 23, 28)


class ContactSheet:
    """Collects pictures while a run goes on and writes the sheet when it is closed."""

    wants_pictures = True
    wants_sound = False

    def __init__(self, path: str) -> None:
        self._file = Replacing(Path(path))
        self._kept: list[Tile] = []
        self._start_ns = 0
        self._step_ns = _FIRST_STEP_NS
        self._next_ns = 0
        self._closed = False

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Keep a small copy if its time has come."""
        if self._closed:
            raise SinkError(f"cannot add to {self._file.path}: this output was closed already")
        if not self._kept:
            self._start_ns = self._next_ns = frame.captured_ns
        if frame.captured_ns < self._next_ns:
            return
        self._kept.append((frame.captured_ns, frame.source, _tile(picture)))
        if len(self._kept) >= _STORE:
            self._kept = self._kept[::2]
            self._step_ns *= 2
        slots = (frame.captured_ns - self._start_ns) // self._step_ns + 1
        self._next_ns = self._start_ns + slots * self._step_ns

    def tell(self, cues: Sequence[Cue]) -> None:
        """Nothing to do: what cues say is drawn on the pictures."""

    def hear(self, block: AudioBlock) -> None:
        """Nothing to do."""

    def close(self) -> str | None:
        """Write the sheet; safe to call twice. Without any picture no file is left, which is said."""
        if self._closed:
            return None
        self._closed = True
        if not self._kept:
            self._file.discard()
            return f"{self._file.path}: there was no picture to draw, so it is not written"
        self._file.write_whole(png(sheet(chosen(self._kept, PICTURES))))
        return None


def chosen(kept: Sequence[Tile], most: int) -> list[Tile]:
    """At most so many of them, evenly spaced, the first and the last among them."""
    if len(kept) <= most:
        return list(kept)
    return [kept[index * (len(kept) - 1) // (most - 1)] for index in range(most)]


def sheet(tiles: Sequence[Tile]) -> NDArray[np.uint8]:
    """Tiles in rows, each with its time below."""
    columns = min(COLUMNS, len(tiles))
    width, height = max(t.shape[1] for _, _, t in tiles), max(t.shape[0] for _, _, t in tiles)
    canvas = Canvas(
        columns * (width + _GAP_PX) + _GAP_PX, -(-len(tiles) // columns) * (height + _CAPTION_PX) + _GAP_PX
    )
    canvas.fill(0, 0, *canvas.size, _SHEET_GROUND)
    several = len({source for _, source, _ in tiles}) > 1
    places = []
    for index, (t_ns, source, tile) in enumerate(tiles):
        x = _GAP_PX + index % columns * (width + _GAP_PX)
        y = _GAP_PX + index // columns * (height + _CAPTION_PX)
        caption = f"{t_ns / SECOND:.2f} s" + (f"  {source}" if several else "")
        canvas.text((x, y + tile.shape[0] + _CAP_PX + 7), caption, _CAP_PX, INK)
        places.append((tile, x, y))
    out = np.zeros((canvas.size[1], canvas.size[0], 3), np.uint8)
    paste(out, canvas.sprite(), 0, 0)
    for tile, x, y in places:
        out[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return out


def png(picture: NDArray[np.uint8]) -> bytes:
    """The picture as a PNG file."""
    import cv2

    done, content = cv2.imencode(".png", picture[..., ::-1])
    if not done:
        raise SinkError("cannot make a PNG of the picture")
    return bytes(content)


def _tile(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture at the width of a tile."""
    import cv2

    height, width = picture.shape[:2]
    if width <= _TILE_WIDTH_PX:
        return picture.copy()
    size = (_TILE_WIDTH_PX, max(1, round(height * _TILE_WIDTH_PX / width)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


PEOPLE = 8
"""Most people on the picture."""
WIDTH_PX = 1600
_TOP_PX, _PERSON_PX, _FOOT_PX = 62, 180, 84
_POINTS = 4_096
_TRACKS = 64
"""People of whom there are points."""
_COUNTED = 20_000
"""People of whom it is known how long they were seen."""
_AWAY_NS = 5 * SECOND
"""Who was not seen for so long may make room for somebody else: a track that is lost comes back sooner."""
_HOLD = 3
"""A point is carried on for this many of a person's usual steps; after that there is a hole."""
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)
_TICKS = 12
Steps = tuple[NDArray[np.float64], NDArray[np.intp]]
"""Times in seconds, and which point holds from each on; -1 where a hole begins."""
_GROUND: Colour = (20, 23, 28)
_EMPTY: Colour = (31, 35, 42)
_WEIGHT_COLOURS: tuple[Colour, ...] = ((236, 238, 240), (120, 140, 165), (74, 92, 116))
"""Of face, voice and words."""


@dataclass(frozen=True, slots=True)
class TimelinePoint:
    """What the timeline shows of one cue."""

    t_ns: int
    label: str
    confidence: float
    fused: tuple[float, ...]
    weights: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class PersonOverTime:
    """One row of the picture, oldest point first; never empty."""

    name: str
    points: tuple[TimelinePoint, ...]


@dataclass(slots=True)
class _Kept:
    """The points of one person, every `step`-th of what came."""

    points: list[TimelinePoint] = field(default_factory=list)
    step: int = 1
    seen: int = 0

    def add(self, point: TimelinePoint) -> None:
        if self.seen % self.step == 0:
            self.points.append(point)
            if len(self.points) >= _POINTS:
                self.points = self.points[::2]
                self.step *= 2
        self.seen += 1


@dataclass(slots=True)
class _Presence:
    """How many cues there were of one person, and when the last one was true."""

    seen: int = 0
    last_ns: int = 0


class Timeline:
    """Collects cues while a run goes on and draws them when it is closed."""

    wants_pictures = False
    wants_sound = False

    def __init__(self, path: str) -> None:
        self._file = Replacing(Path(path))
        self._kept: dict[tuple[str, int | None], _Kept] = {}
        self._presence: dict[tuple[str, int | None], _Presence] = {}
        """Of everybody, also of those without points; seen last, last."""
        self._forgotten = 0
        self._closed = False

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Nothing to do."""

    def tell(self, cues: Sequence[Cue]) -> None:
        """Keep what the picture will show of these cues."""
        if self._closed:
            raise SinkError(f"cannot add to {self._file.path}: this output was closed already")
        for cue in cues:
            who = (cue.source, cue.track)
            presence = self._presence.pop(who, None) or _Presence()
            presence.seen += 1
            presence.last_ns = cue.t_ns
            self._presence[who] = presence
            if who in self._kept or self._has_room(cue.t_ns):
                point = TimelinePoint(cue.t_ns, cue.label, cue.confidence, cue.fused, cue.weights)
                self._kept.setdefault(who, _Kept()).add(point)
        if len(self._presence) > _COUNTED:
            self._forget()

    def _has_room(self, now_ns: int) -> bool:
        """Whether one more can have points: the one seen most briefly of those who are away loses theirs."""
        if len(self._kept) < _TRACKS:
            return True
        away = [who for who in self._kept if now_ns - self._presence[who].last_ns > _AWAY_NS]
        if not away:
            return False
        del self._kept[min(away, key=lambda who: (self._presence[who].seen, self._presence[who].last_ns))]
        return True

    def _forget(self) -> None:
        """Only count those who are away longest and have no points."""
        for who in [who for who in self._presence if who not in self._kept][: _COUNTED // 10]:
            del self._presence[who]
            self._forgotten += 1

    def hear(self, block: AudioBlock) -> None:
        """Nothing to do."""

    def close(self) -> str | None:
        """Draw and write the picture; safe to call twice. Without any cue no file is left, which is said."""
        if self._closed:
            return None
        self._closed = True
        if not self._kept:
            self._file.discard()
            return f"{self._file.path}: there was no cue to draw, so it is not written"
        longest = sorted(self._kept, key=lambda who: -self._presence[who].seen)[:PEOPLE]
        shown = [who for who in self._kept if who in longest]
        several = len({source for source, _ in shown}) > 1
        people = [PersonOverTime(_name(who, several), tuple(self._kept[who].points)) for who in shown]
        left_out = self._forgotten + len(self._presence) - len(shown)
        self._file.write_whole(png(figure_picture(timeline_figure(people, left_out))))
        return None


def _name(who: tuple[str, int | None], several: bool) -> str:
    source, track = who
    name = "nobody in view" if track is None else f"person {track}"
    return f"{name}\n{source}" if several else name


def timeline_figure(people: Sequence[PersonOverTime], left_out: int = 0) -> Figure:
    """Everybody over a common axis of time; `left_out` people are only counted.

    The axes stand in the order label, probabilities, weights, person after person.
    """
    height_px = _TOP_PX + len(people) * _PERSON_PX + _FOOT_PX
    figure = new_figure(WIDTH_PX, height_px)
    figure.set_facecolor(_of(_GROUND))
    grid = figure.add_gridspec(
        4 * len(people), 1, height_ratios=[56, 72, 10, 22] * len(people), hspace=0.25,
        left=190 / WIDTH_PX, right=1 - 30 / WIDTH_PX,
        top=1 - _TOP_PX / height_px, bottom=(_FOOT_PX - 22) / height_px,
    )  # fmt: skip
    start = min(person.points[0].t_ns for person in people) / SECOND
    last = max(person.points[-1].t_ns for person in people) / SECOND
    least_s = (last - start) / WIDTH_PX
    stacks = [_steps(person.points, least_s) for person in people]
    end = max(start + 1, *(float(times[-1]) for times, _ in stacks))
    for index, (person, steps) in enumerate(zip(people, stacks, strict=True)):
        rows = [figure.add_subplot(grid[4 * index + row]) for row in range(3)]
        _draw_person(rows, person, steps)
        for axes in rows:
            _plain_axes(axes, start, end)
    _label_times(figure.axes[-1], end - start)
    _write_text(figure, 24, height_px - 40, "Emotions over time", height_px, fontsize=15, weight="bold")
    if left_out:
        more = f"and {left_out} more, seen more briefly"
        _write_text(figure, WIDTH_PX - 30, height_px - 38, more, height_px, colour=QUIET, ha="right")
    _legends(figure)
    return figure


def _draw_person(rows: Sequence[Axes], person: PersonOverTime, steps: Steps) -> None:
    """Label with confidence, probabilities, weights: stacks of steps with holes where the person was away."""
    times, which = steps
    names = (*LABELS, NOT_SURE)
    held = [point.confidence * np.array([point.label == name for name in names]) for point in person.points]
    shares = [_label_shares(point.fused) for point in person.points]
    weights = [_label_shares(point.weights) for point in person.points]
    stacks = zip(
        rows,
        (held, shares, weights),
        ([LABEL_COLOURS[name] for name in names], [LABEL_COLOURS[name] for name in LABELS], _WEIGHT_COLOURS),
        strict=True,
    )
    for axes, values, colours in stacks:
        heights = np.array(values)[which]
        heights[which < 0] = np.nan
        axes.stackplot(
            times, heights.T, step="post", colors=[_of(colour) for colour in colours], antialiased=False, lw=0
        )
        axes.set_ylim(0, 1)
    captions = (f"{person.name}\n", "probabilities", "weights")
    for axes, caption in zip(rows, captions, strict=True):
        axes.set_ylabel(caption, rotation=0, ha="left", va="center", color=_of(QUIET), fontsize=9)
        axes.yaxis.set_label_coords(-166, 0.5, transform=_pixels_left_of(axes))
    title = rows[0].yaxis.label
    title.set(color=_of(INK), fontsize=12, weight="bold", family=_families(person.name))
    rows[0].text(
        -166, 0.12, "label, confidence", transform=_pixels_left_of(rows[0]), color=_of(QUIET), fontsize=9
    )


def _steps(points: Sequence[TimelinePoint], least_s: float) -> Steps:
    """When which point holds; each for at least so long."""
    begins = np.array([point.t_ns for point in points]) / SECOND
    usual_s = float(np.median(np.diff(begins))) if len(points) > 1 else 0.1
    after = np.append(begins[1:], np.inf)
    holds_until = np.minimum(after, begins + max(_HOLD * usual_s, least_s))
    holds_until[-1] = begins[-1] + max(usual_s, least_s)
    # Where a point stops before the next begins, it is repeated, because the end of a step is not drawn.
    stops = np.flatnonzero(holds_until < after)
    times = np.concatenate([begins, holds_until[stops], holds_until[stops]])
    which = np.concatenate([np.arange(len(points)), stops, np.full(len(stops), -1)])
    order = np.lexsort((-which, times))
    return times[order], which[order]


def _label_shares(values: Sequence[float]) -> NDArray[np.float64]:
    """The values as parts of one; nothing stays nothing."""
    given = np.array(values, np.float64)
    return given / (given.sum() or 1.0)


def _plain_axes(axes: Axes, start: float, end: float) -> None:
    axes.set_facecolor(_of(_EMPTY))
    axes.set_xlim(start, end)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _label_times(axes: Axes, span_s: float) -> None:
    """Times below the last row and lines through all of them, at round distances."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    step_s = next((step for step in _STEPS_S if span_s / step <= _TICKS), _STEPS_S[-1])
    assert axes.figure is not None
    for each in axes.figure.axes:
        each.xaxis.set_major_locator(MultipleLocator(step_s))
        each.grid(axis="x", color=_of(TRACK), lw=0.7, alpha=0.6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda t_s, _: time_text(t_s, step_s)))
    axes.tick_params(axis="x", labelbottom=True, labelcolor=_of(QUIET), labelsize=9, pad=6)


def time_text(t_s: float, step_s: float) -> str:
    """A time on the axis: seconds below two minutes, then minutes and hours."""
    if step_s < 1:
        return f"{t_s:.1f} s"
    whole = round(t_s)
    if whole < 120 and step_s < 60:
        return f"{whole} s"
    hours, minutes, left = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def _legends(figure: Figure) -> None:
    """The labels to the left, the weights to the right."""
    from matplotlib.patches import Patch

    labels = [Patch(color=_of(LABEL_COLOURS[name]), label=name) for name in (*LABELS, NOT_SURE)]
    weights = [
        Patch(color=_of(colour), label=f"weight of {name}")
        for name, colour in zip(MODALITIES, _WEIGHT_COLOURS, strict=True)
    ]
    style: dict[str, Any] = {"frameon": False, "labelcolor": _of(INK), "fontsize": 9, "handlelength": 1.2}
    figure.legend(handles=labels, ncol=len(labels), loc="lower left", bbox_to_anchor=(0.112, 0), **style)
    figure.legend(handles=weights, ncol=len(weights), loc="lower right", bbox_to_anchor=(0.985, 0), **style)


def _write_text(
    figure: Figure, x: int, y: int, text: str, height_px: int, *, colour: Colour = INK, **style: Any
) -> None:
    style.setdefault("fontsize", 9)
    figure.text(x / WIDTH_PX, y / height_px, text, color=_of(colour), **style)


def _pixels_left_of(axes: Axes) -> Any:
    """x in pixels from the left edge of the axes, y in shares of their height."""
    from matplotlib.transforms import Affine2D, blended_transform_factory

    assert axes.figure is not None
    left_px = axes.get_position().x0 * WIDTH_PX
    return blended_transform_factory(Affine2D().translate(left_px, 0), axes.transAxes)


def _families(text: str) -> list[str]:
    """The fonts that the text needs, DejaVu first."""
    from matplotlib.font_manager import FontProperties, fontManager

    files = {font.path for char in printable(text) if (font := font_of(char)) is not None}
    names = ["DejaVu Sans"]
    for path in sorted(files - {dejavu().path}):
        fontManager.addfont(path)
        names.append(FontProperties(fname=path).get_name())
    return names


def _of(colour: Colour) -> tuple[float, float, float]:
    """A colour as matplotlib wants it."""
    red, green, blue = colour
    return red / 255, green / 255, blue / 255
