"""For programs that have pictures and sound already: push them in, fetch cues, draw the overlay.

The times that the caller brings are the only clock, so a run over recorded material is no different from a
live one. Analysis is that of lock-step: every grid point is stepped with what was captured until then. When
it cannot keep up, whole pictures are left out before it and counted; nothing waits longer for that.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.caller_input import (
    SoundStream,
    checked_picture,
    checked_rate,
    checked_sound,
    checked_time_ns,
    checked_timeout_s,
)
from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import InputRefused, RealtimeError
from liveaffect.realtime.frame import AudioBlock, Face, VideoFrame
from liveaffect.realtime.lockstep import LockStep
from liveaffect.realtime.replay import Item
from liveaffect.realtime.ring import Ring
from liveaffect.realtime.screen import RunStatus, Screen
from liveaffect.realtime.sinks import Outputs
from liveaffect.realtime.window import FUSION_STEP_NS
from liveaffect.settings import Settings, chosen_settings

SOURCE = "caller"
PICTURES_WAITING = 4
"""So many pictures wait for the analysis at most; then the oldest goes."""
SOUND_WAITING_S = 10
CUES_WAITING = 4096
"""Grid points whose cues wait to be fetched, seven minutes of them; then the oldest go."""
AHEAD_NS = 500 * MS
"""Sound waits no longer than this for a picture of the same time: the camera may have been switched off."""
BEHIND_NS = 2 * SECOND
"""Sound this far behind the pictures says nothing about them any more."""
LONGEST_PAUSE_NS = 3600 * SECOND
_EVER_S = 1e6
TOO_FAST = "pictures that came faster than the analysis"
TOO_LATE = "pictures that came after their time"
SOUND_TOO_FAST = "samples of sound that came faster than the analysis"
SOUND_TOO_LATE = "samples of sound that came long after its pictures"
MISSING = "samples missing between stretches of sound"
UNFETCHED = "grid points whose cues nobody fetched"

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PictureAnswer:
    """What is known right after a picture, ten or thirty times a second; cues come on their grid."""

    t: float
    """When the picture was captured, on the caller's scale."""
    size: tuple[int, int]
    faces: tuple[Face, ...]
    cues: tuple[Cue, ...]
    """One for every person in view, and one without a track for a voice of nobody in view."""
    level: float
    """Loudness of the newest sound, 0..1."""


class Analyzer:
    """Says which emotion people show in the pictures and the sound that you push.

    Loads the networks at once, which takes about a second; raises EngineError or MissingFile. By default one
    thread analyses behind your back, pushing never waits, and what comes faster than the analysis is lost and
    counted in `losses`. With `wait=True` there is no thread: every push returns when it has been analysed,
    nothing is lost, and the same pushes always give the same cues. The methods may be called from any thread.

    >>> import numpy as np
    >>> picture = np.zeros((240, 320, 3), np.uint8)
    >>> with Analyzer(sound=False, wait=True) as analyzer:
    ...     for k in range(10):
    ...         analyzer.push_frame(picture, t=k / 25)
    ...     analyzer.pictures, analyzer.cues()
    (10, ())
    """

    def __init__(
        self,
        *,
        pictures: bool = True,
        sound: bool = True,
        wait: bool = False,
        settings: Settings | None = None,
    ) -> None:
        """`pictures` and `sound` say what will be pushed; of the settings those for networks are used."""
        if not (pictures or sound):
            raise InputRefused("an Analyzer of neither pictures nor sound has nothing to analyse")
        self._wants = {"pictures": pictures, "sound": sound}
        self._wait = wait
        tools = chosen_settings(settings).load_tools(_LOG.info, live=not wait)
        self._networks = tools.networks
        self.on_picture: Callable[[PictureAnswer], None] = lambda answer: None
        """Called with the answer to every picture, in the thread that analyses; it must not wait."""
        self._cues: Ring[tuple[Cue, ...]] = Ring(CUES_WAITING)
        sources = SOURCE if pictures else None, SOURCE if sound else None
        try:
            self._run = LockStep.of(*sources, tools, Outputs([]), self._publish)
        except RealtimeError:
            tools.networks.close()
            raise
        self._screen = Screen(SOURCE, tools.networks.name)
        self._sound = SoundStream(SOURCE)
        self._losses: Counter[str] = Counter()
        self._zero_ns: int | None = None
        self._last_ns: dict[str, int] = {}
        self._seq = self._cursor = 0
        self._size: tuple[int, int] | None = None
        self._waiting: deque[Item] = deque()
        self._pictures_waiting = self._samples_waiting = 0
        self._finished = self._closed = False
        self._failed: Exception | None = None
        self._changed = threading.Condition()
        self._fetching = threading.Lock()
        self._thread = threading.Thread(target=self._analyse, name="liveaffect analyzer", daemon=True)
        if not wait:
            self._thread.start()

    @property
    def losses(self) -> Mapping[str, int]:
        """What was pushed or found and lost, by cause; pictures, samples at 16 kHz, grid points of cues."""
        with self._changed:
            found = {**self._losses, MISSING: self._sound.lost}
        return {cause: count for cause, count in found.items() if count}

    @property
    def engine(self) -> str:
        """What runs the networks, in words."""
        return ", ".join(self._networks.names)

    @property
    def pictures(self) -> int:
        """How many pictures have been analysed."""
        return self._run.pictures

    def push_frame(self, image: NDArray[Any], t: float, *, bgr: bool = False) -> None:
        """A picture, captured at `t` in seconds from your own zero. It is copied.

        uint8 of shape (height, width, 3), RGB unless `bgr` says that it comes from OpenCV. Raises
        InputRefused for anything else, for a time that goes back, and after `close`.
        """
        picture, t_ns = checked_picture(image, bgr=bgr), checked_time_ns(t)
        with self._changed:
            t_ns = self._admit("pictures", "push_frame", t_ns)
            frame = VideoFrame(SOURCE, self._seq, t_ns, picture)
            self._seq, self._size = self._seq + 1, frame.size
            self._hand_over(frame)

    def push_sound(self, samples: NDArray[Any], t: float, rate: int) -> None:
        """Sound whose first sample was captured at `t` in seconds, with `rate` samples a second.

        float within -1..1, int16 or int32; shape (samples,) or (samples, channels). What does not join on to
        the sound before leaves a hole of its length. Raises InputRefused as `push_frame` does.
        """
        mono, t_ns, rate_hz = checked_sound(samples), checked_time_ns(t), checked_rate(rate)
        with self._changed:
            self._admit("sound", "push_sound", t_ns)
            for block in self._sound.push(mono, t_ns, rate_hz):
                self._hand_over(self._rebased(block))

    def cues(self, timeout: float = 0.0) -> tuple[Cue, ...]:
        """The cues since the last call, oldest first; waits up to `timeout` seconds for the first of them.

        Empty if none came in that time, or if everything was fetched after `finish` or `close`. Raises what
        the analysis failed at.
        """
        wait_s = min(checked_timeout_s(timeout), _EVER_S)
        with self._fetching:
            batch = self._cues.wait_since(self._cursor, wait_s)
            self._cursor = batch.cursor
        if batch.missed:
            with self._changed:
                self._losses[UNFETCHED] += batch.missed
        if not batch.items and self._failed is not None:
            raise self._failed
        return tuple(cue for cues in batch.items for cue in cues)

    def draw(self, image: NDArray[Any], *, bgr: bool = False) -> NDArray[np.uint8]:
        """A copy of `image` with the newest answer drawn on it, in the same order of colours.

        It has the size of the pictures that were pushed last, and is as a rule the last of them.
        """
        picture = checked_picture(image, bgr=bgr)
        with self._changed:
            self._check_open("draw")
            newest, size, now_ns = self._run.newest, self._size, max(self._last_ns.values(), default=0)
            if size is not None and size != (picture.shape[1], picture.shape[0]):
                raise InputRefused(
                    f"the picture to draw on has {picture.shape[1]}x{picture.shape[0]} pixels, and those "
                    f"that were pushed have {size[0]}x{size[1]}; boxes would stand in the wrong place"
                )
            frame = VideoFrame(SOURCE, self._seq, now_ns, picture)
            around = RunStatus(now_ns, "late", dropped=self._losses[TOO_FAST] + self._losses[TOO_LATE])
            sighting, snapshot = (None, None) if newest is None else newest[1:]
            drawn = self._screen.draw(frame, sighting, snapshot, around)
        return np.ascontiguousarray(drawn[:, :, ::-1]) if bgr else drawn

    def finish(self) -> None:
        """No more will be pushed: wait until all of it is analysed. Fetch the last cues afterwards."""
        with self._changed:
            self._check_open("finish")
            if self._thread is threading.current_thread():
                raise InputRefused("finish() would wait for itself inside on_picture; call it from elsewhere")
            if not self._finished:
                for block in self._sound.finish():
                    self._hand_over(self._rebased(block))
            self._finished = True
            if self._wait and not self._cues.closed:
                self._run.finish()
                self._cues.close()
            elif not self._wait:
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._cues.closed)
        if self._failed is not None:
            raise self._failed

    def close(self) -> None:
        """End the thread and free the networks; what was not analysed yet is given up. Safe to call twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._changed:
            self._cues.close()
            self._networks.close()

    def __enter__(self) -> Analyzer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self, call: str) -> None:
        if self._closed:
            raise InputRefused(f"{call}() after close(): the networks are gone; make a new Analyzer")
        if self._failed is not None:
            raise self._failed

    def _admit(self, what: str, call: str, t_ns: int) -> int:
        """The caller's time on the scale of the run, which begins on its grid where the caller begins."""
        self._check_open(call)
        if self._finished:
            raise InputRefused(f"{call}() after finish(), which says that no more comes; make a new Analyzer")
        if not self._wants[what]:
            raise InputRefused(f"{call}() on an Analyzer that was made with {what}=False")
        zero_ns = t_ns // FUSION_STEP_NS * FUSION_STEP_NS if self._zero_ns is None else self._zero_ns
        at_ns = t_ns - zero_ns
        last_ns = self._last_ns.get(what, at_ns)
        if what == "pictures" and at_ns < last_ns:
            raise InputRefused(
                f"a picture of t={t_ns / SECOND:.6f} comes after one of "
                f"t={(last_ns + zero_ns) / SECOND:.6f}; time never goes back"
            )
        jump_ns = at_ns - max(self._last_ns.values(), default=at_ns)
        if jump_ns > LONGEST_PAUSE_NS:
            raise InputRefused(
                f"t={t_ns / SECOND:.6f} lies {jump_ns / SECOND:.0f} s after what came before; t counts "
                "seconds, not milliseconds. After a pause of hours, make a new Analyzer"
            )
        self._zero_ns = zero_ns
        self._last_ns[what] = max(at_ns, last_ns)
        return at_ns

    def _rebased(self, block: AudioBlock) -> AudioBlock:
        return dataclasses.replace(block, captured_ns=block.captured_ns - (self._zero_ns or 0))

    def _hand_over(self, item: Item) -> None:
        """To the thread, leaving out the oldest if too much waits; without one, analyse it here."""
        if self._wait:
            self._take(item)
            return
        self._count(item, 1)
        self._waiting.append(item)
        if self._pictures_waiting > PICTURES_WAITING:
            self._losses[TOO_FAST] += 1
            self._leave_out(next(one for one in self._waiting if isinstance(one, VideoFrame)))
        while self._samples_waiting > SOUND_WAITING_S * SAMPLE_RATE:
            oldest = next(one for one in self._waiting if isinstance(one, AudioBlock))
            self._losses[SOUND_TOO_FAST] += len(oldest.samples)
            self._leave_out(oldest)
        self._changed.notify_all()

    def _leave_out(self, item: Item) -> None:
        self._waiting.remove(item)
        self._count(item, -1)

    def _count(self, item: Item, sign: int) -> None:
        if isinstance(item, VideoFrame):
            self._pictures_waiting += sign
        else:
            self._samples_waiting += sign * len(item.samples)

    def _analyse(self) -> None:
        """The thread: one item after the other until `finish` or `close`."""
        try:
            while (item := self._next()) is not None:
                self._take(item)
            if not self._closed:
                self._run.finish()
        except Exception as error:  # noqa: BLE001  the one place that records why this thread ended
            self._failed = error
            _LOG.error("the analysis ended: %s", error, exc_info=error)
        finally:
            with self._changed:
                self._cues.close(self._failed)
                self._changed.notify_all()

    def _next(self) -> Item | None:
        """The oldest that waits; None when no more is to be analysed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._finished or self._closed)
            if self._closed or not self._waiting:
                return None
            item = self._waiting.popleft()
            self._count(item, -1)
            return item

    def _take(self, item: Item) -> None:
        """Analyse one item, unless its time is over."""
        if isinstance(item, VideoFrame):
            if item.captured_ns >= self._run.now_ns:
                self._run.see(item)
                self._answer()
            else:
                self._lose(TOO_LATE, 1)
        elif self._run.now_ns - item.captured_ns > BEHIND_NS:
            self._lose(SOUND_TOO_LATE, len(item.samples))
        else:
            self._run.hear(item)
            if self._wants["pictures"]:
                self._run.catch_up(item.captured_ns - AHEAD_NS)

    def _answer(self) -> None:
        if self._run.newest is not None:
            frame, sighting, snapshot = self._run.newest
            at_s = (frame.captured_ns + (self._zero_ns or 0)) / SECOND
            cues = tuple(map(self._on_the_callers_scale, snapshot.cues))
            self.on_picture(PictureAnswer(at_s, frame.size, sighting.faces, cues, snapshot.level))

    def _lose(self, cause: str, count: int) -> None:
        with self._changed:
            self._losses[cause] += count

    def _publish(self, cues: tuple[Cue, ...]) -> None:
        self._cues.push(tuple(map(self._on_the_callers_scale, cues)))

    def _on_the_callers_scale(self, cue: Cue) -> Cue:
        return dataclasses.replace(cue, t_ns=cue.t_ns + (self._zero_ns or 0))
