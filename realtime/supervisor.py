"""One thread per source: opens it, reads it, and brings it back when it is gone.

What the rest of the path sees is one unbroken stream: pictures and samples keep counting over reopenings,
and sound that passed meanwhile is a gap of its length. Never opened, hanging, lost, black and ended are
different facts with different words, because a frozen picture that nobody explains is the worst of all.
A source is never repaired: it is dropped, and the factory makes a new one.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import MS, SECOND, Clock
from liveaffect.realtime.errors import (
    EndOfStream,
    MissingLibrary,
    SettingsError,
    SourceChanged,
    SourceError,
    SourceLost,
)
from liveaffect.realtime.frame import AudioBlock, CountsLosses, Item, Phase, Source, SourceState, VideoFrame

_LOG = logging.getLogger(__name__)


READ_S = 0.1
"""How long one read waits: the supervisor looks up this often."""
_LOOK_NS = 200 * MS
"""How often it looks, during a pause, whether the device is back."""
_STOPPED_NS = SECOND
"""A read that comes back so much too late: the whole program was stopped, or the laptop slept."""
_MOST_ABANDONED = 4
"""No further attempt while so many closings hang; they hold the device anyway."""
_BLACK_S = 3.0
"""A camera that gives only black is opened again after this; twice as long each further time."""
_LONGEST_BLACK_S = 60.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait before giving up, and before trying again."""

    first_s: float = 5.0
    """For the first item after opening: some microphones take two seconds to wake."""
    stall_s: float = 0.8
    """For the next item; after this the source is called stalled."""
    abandon_s: float = 1.6
    """For the next item; after this the source is dropped and made anew."""
    black_s: float = 0.9
    """Nothing but zeros for so long is named."""
    pause_s: float = 0.25
    """Before the first new attempt; doubled each time, up to `longest_pause_s`."""
    longest_pause_s: float = 5.0
    close_s: float = 0.3
    """A source that takes longer to close is left to a thread of its own."""


class Supervisor:
    """Runs one source in one daemon thread, which is the one that calls `on_item` and `on_end`.

    `live` sources are opened again for ever; anything else ends with its first failure. `watch` returns
    something that changes when devices come or go; a change cuts a pause short.
    """

    def __init__(
        self,
        make: Callable[[], Source],
        clock: Clock,
        on_item: Callable[[Item], None],
        *,
        live: bool = True,
        patience: Patience | None = None,
        watch: Callable[[], object] | None = None,
    ) -> None:
        self._make = make
        self._clock = clock
        self._on_item = on_item
        self._live = live
        self._patience = patience or Patience()
        self._watch = watch
        self._stop = threading.Event()
        self._source: Source = make()
        self._numbering = Numbering()
        self._gone: Counter[str] = Counter()
        self._closings: list[threading.Thread] = []
        self._delivered = self._restarts = 0
        self._dropped = False
        self._black = Blackness()
        self._black_tries = 0
        self._phase: tuple[Phase, int, str] = ("opening", clock.now_ns(), "")
        self._error: Exception | None = None
        self._on_end: Callable[[Exception | None], None] | None = None
        self._thread = threading.Thread(target=self._run, name=f"source {self._source.name}", daemon=True)

    @property
    def state(self) -> SourceState:
        """How the source is doing, at this moment."""
        phase, since_ns, message = self._phase
        losses = self._losses()
        return SourceState(
            name=self._source.name,
            phase=phase,
            since_ns=since_ns,
            message=message,
            restarts=self._restarts,
            delivered=self._delivered,
            lost=sum(losses.values()),
            losses=losses,
        )

    @property
    def error(self) -> Exception | None:
        """Why the source is not running, or None."""
        return self._error

    @property
    def hanging(self) -> int:
        """How many dropped sources have not let go of their device yet."""
        return sum(thread.is_alive() for thread in self._closings)

    def start(self, on_end: Callable[[Exception | None], None] | None = None) -> None:
        """Begin. Returns at once; `state` tells what came of it.

        `on_end` is called once at the end, with the failure that ended it or None.
        """
        self._on_end = on_end
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Begin to end, without waiting; so several end together."""
        self._stop.set()

    def stop(self) -> bool:
        """End, also in the middle of a wait. False if the source hangs and was left to its thread."""
        self._stop.set()
        if self._thread.ident is None:
            return True
        self._thread.join(1.5 * READ_S)
        if self._thread.is_alive():
            self._close(self._source)
            self._thread.join(0.5)
        return not self._thread.is_alive()

    def _run(self) -> None:
        error: Exception | None = None
        try:
            self._supervise()
        except EndOfStream:
            pass
        except Exception as failure:  # noqa: BLE001  the one place where this thread's failure is recorded
            error = failure
            _LOG.error("%s ended: %s", self._source.name, failure)
        self._error = error
        self._close(self._source)
        self._enter("ended", "" if error is None else str(error))
        if self._on_end is not None:
            self._on_end(error)

    def _supervise(self) -> None:
        attempt = -1
        while not self._stop.is_set():
            before = self._delivered
            try:
                self._source.open()
                self._pump()
                return
            except (SettingsError, MissingLibrary):
                raise
            except SourceError as failure:
                if self._stop.is_set():
                    return
                if not self._live:
                    raise
                attempt = 0 if self._delivered > before else attempt + 1
                self._drop(failure)
                # A source that merely changed its format is there: nothing is gained by waiting.
                if not (isinstance(failure, SourceChanged) and attempt == 0):
                    self._pause(attempt, failure)
            self._renew()

    def _pump(self) -> None:
        """Read until the end, a failure, or `stop`."""
        began_ns = last_ns = self._clock.now_ns()
        first = excusable = True
        while not self._stop.is_set():
            asked_ns = self._clock.now_ns()
            item = self._source.read(READ_S)
            now_ns = self._clock.now_ns()
            if excusable and now_ns - asked_ns > round(READ_S * SECOND) + _STOPPED_NS:
                # It was this program that stood still; the device had nobody to deliver to.
                excusable = False
                _LOG.info("%s was not read for %.1f s", self._source.name, (now_ns - asked_ns) / SECOND)
                last_ns = now_ns
            item = None if item is None else self._numbering.renumber(item)
            if item is None:
                self._wait_on(now_ns - last_ns, first=first)
                continue
            last_ns, first, excusable = now_ns, False, True
            self._on_item(item)
            self._delivered += 1
            self._black.note(item, now_ns)
            self._judge(began_ns, now_ns)

    def _wait_on(self, silent_ns: int, *, first: bool) -> None:
        """Nothing came: say so, and in the end give up."""
        patience, name = self._patience, self._source.name
        if not self._live:
            return
        if silent_ns > (patience.first_s if first else patience.abandon_s) * SECOND:
            what = "opened but delivered nothing" if first else "stopped delivering: nothing"
            raise SourceLost(
                f"{name} {what} for {silent_ns / SECOND:.1f} s (after {self._delivered} items). "
                "It was unplugged, it hangs, or another program took it. Trying again; stop with Ctrl-C."
            )
        if not first and silent_ns > patience.stall_s * SECOND and self._phase[0] != "stalled":
            self._enter("stalled", f"{name} has delivered nothing for {silent_ns / SECOND:.1f} s")

    def _judge(self, began_ns: int, now_ns: int) -> None:
        """Something came: running, unless it has been nothing but zeros."""
        since_ns = self._black.since_ns
        if since_ns is None:
            self._black_tries = 0
        if since_ns is None or not self._live or now_ns - since_ns <= self._patience.black_s * SECOND:
            if self._phase[0] != "running":
                self._error = None
                self._enter("running", "")
            return
        name = self._source.name
        if not self._black.is_video:
            # Opening it again would not unmute it.
            self._enter("stalled", f"{name} delivers nothing but silence: is it muted?")
            return
        self._enter("stalled", f"{name} delivers nothing but black pictures: is the lens covered?")
        if now_ns - began_ns > min(_BLACK_S * 2**self._black_tries, _LONGEST_BLACK_S) * SECOND:
            self._black_tries += 1
            raise SourceLost(f"{name} delivers nothing but black pictures. It is opened again.")

    def _drop(self, failure: SourceError) -> None:
        self._error = failure
        self._enter("lost", str(failure))
        self._gone.update(self._own_losses())
        self._dropped = True
        self._close(self._source)

    def _pause(self, attempt: int, failure: SourceError) -> None:
        """Wait before the next attempt, but not longer than until a device comes or goes."""
        pause_s = min(self._patience.pause_s * 2 ** min(attempt, 10), self._patience.longest_pause_s)
        seen = self._watch() if self._watch else None
        until_ns = self._clock.now_ns() + round(pause_s * SECOND)
        while (now_ns := self._clock.now_ns()) < until_ns or self.hanging >= _MOST_ABANDONED:
            if now_ns >= until_ns:
                until_ns = now_ns + _LOOK_NS
                self._enter("lost", f"{failure} {self.hanging} earlier attempts still hang.")
            if not self._clock.wait_until(min(until_ns, now_ns + _LOOK_NS), self._stop):
                return
            if self._watch and self._watch() != seen and self.hanging < _MOST_ABANDONED:
                return

    def _renew(self) -> None:
        if self._stop.is_set():
            return
        self._restarts += 1
        self._source = self._make()
        self._dropped = False
        self._numbering.reopened()

    def _close(self, source: Source) -> None:
        """Close it on the side: a driver that hangs in closing must not take this thread with it."""
        thread = threading.Thread(target=source.close, name=f"closing {source.name}", daemon=True)
        thread.start()
        thread.join(self._patience.close_s)
        self._closings = [earlier for earlier in (*self._closings, thread) if earlier.is_alive()]

    def _own_losses(self) -> Mapping[str, int]:
        if self._dropped or not isinstance(self._source, CountsLosses):
            return {}
        return self._source.losses

    def _losses(self) -> dict[str, int]:
        total = self._gone + Counter(self._own_losses())
        counts_itself = isinstance(self._source, CountsLosses)
        return {**total, **self._numbering.losses(gaps=not counts_itself)}

    def _enter(self, phase: Phase, message: str) -> None:
        if self._phase[0] != phase or self._phase[2] != message:
            since_ns = self._phase[1] if self._phase[0] == phase else self._clock.now_ns()
            self._phase = (phase, since_ns, message)
            level = logging.INFO if phase in ("running", "ended") else logging.WARNING
            _LOG.log(level, "%s is %s. %s", self._source.name, phase, message)


_SPARSE = 16
"""Every so many pixels are looked at to see whether a picture is black."""
_EARLY_NS, _LATE_NS = 20 * MS, 40 * MS
"""How far before and behind its place, as the sample count has it, a block of sound may be stamped."""
_LOST_NS = SECOND
"""A stamp this far behind its place means that sound was lost."""


class Numbering:
    """Makes one stream out of several openings: numbers rise, time never falls, losses are counted."""

    def __init__(self) -> None:
        self._next_seq = self._next_sample = 0
        self._seq_offset = self._sample_offset = 0
        self._video_ns = self._sound_ns = self._sound_end_ns = 0
        self._fresh_sound = False
        self._begun = False
        self.missed_samples = 0
        """Samples that passed while the source was away."""
        self._jumped = 0
        self._again = {VideoFrame: 0, AudioBlock: 0}
        self._gaps = {VideoFrame: 0, AudioBlock: 0}

    def reopened(self) -> None:
        """What comes next counts from 0 again."""
        self._seq_offset = self._next_seq
        self._fresh_sound = self._next_sample > 0

    def renumber(self, item: VideoFrame | AudioBlock) -> VideoFrame | AudioBlock | None:
        """The item with its number in the published stream; None if that number was there before."""
        return self._picture(item) if isinstance(item, VideoFrame) else self._block(item)

    def losses(self, *, gaps: bool) -> dict[str, int]:
        """Pictures and samples that are missing, by cause; `gaps` unless the source counts those itself."""
        found = {
            "samples while it was away": self.missed_samples,
            "samples that its clock passed over": self._jumped,
            "pictures that came again": self._again[VideoFrame],
            "samples that came again": self._again[AudioBlock],
        }
        if gaps:
            found["pictures missing in its numbers"] = self._gaps[VideoFrame]
            found["samples missing in its numbers"] = self._gaps[AudioBlock]
        return {cause: count for cause, count in found.items() if count}

    def _picture(self, frame: VideoFrame) -> VideoFrame | None:
        seq = frame.seq + self._seq_offset
        if seq < self._next_seq:
            self._again[VideoFrame] += 1
            return None
        self._gaps[VideoFrame] += seq - self._next_seq
        self._next_seq = seq + 1
        self._video_ns = max(self._video_ns, frame.captured_ns)
        return replace(frame, seq=seq, captured_ns=self._video_ns)

    def _block(self, block: AudioBlock) -> AudioBlock | None:
        captured_ns = block.captured_ns
        if self._fresh_sound:
            self._fresh_sound = False
            away_ns = max(0, captured_ns - self._sound_end_ns)
            gap = away_ns * SAMPLE_RATE // SECOND
            self.missed_samples += gap
            self._sample_offset = self._next_sample + gap - block.first
            self._next_sample += gap
            self._sound_end_ns += gap * SECOND // SAMPLE_RATE
        first = block.first + self._sample_offset
        if self._begun:
            if first < self._next_sample:
                self._again[AudioBlock] += len(block.samples)
                return None
            gap = first - self._next_sample
            self._gaps[AudioBlock] += gap
            place_ns = self._sound_end_ns + gap * SECOND // SAMPLE_RATE
            if captured_ns > place_ns + _LOST_NS:
                jump = (captured_ns - place_ns) * SAMPLE_RATE // SECOND
                self._jumped += jump
                self._sample_offset += jump
                first += jump
            else:
                # The place of sound is its time: a stamp that strays from it is followed in small steps.
                captured_ns = min(max(captured_ns, place_ns - _EARLY_NS), place_ns + _LATE_NS)
            captured_ns = max(captured_ns, self._sound_ns)
        self._begun = True
        self._sound_ns = captured_ns
        self._next_sample = first + len(block.samples)
        self._sound_end_ns = captured_ns + len(block.samples) * SECOND // SAMPLE_RATE
        return replace(block, first=first, captured_ns=captured_ns)


class Blackness:
    """Since when a source has delivered nothing but zeros, which a working sensor never does."""

    def __init__(self) -> None:
        self.since_ns: int | None = None
        self.is_video = False

    def note(self, item: VideoFrame | AudioBlock, now_ns: int) -> None:
        """Take in what came."""
        self.is_video = isinstance(item, VideoFrame)
        values = item.image[::_SPARSE, ::_SPARSE] if isinstance(item, VideoFrame) else item.samples
        if np.any(values):
            self.since_ns = None
        elif self.since_ns is None:
            self.since_ns = now_ns
