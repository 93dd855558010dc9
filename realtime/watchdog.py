"""Notices within two seconds what has stopped without a word, says so, and has it started again.

Everything of a live run comes round several times a second, so what did not for a second and a half stands
still. Where the whole program was stopped (a laptop slept) or has no processor, the watchdog comes late
itself: by so much everybody is excused, since to start anything again would only make it worse.
"""

from __future__ import annotations

import logging
import threading

from liveaffect.realtime.analysis import STILL_NS, Analysis
from liveaffect.realtime.clock import MS, SECOND, Clock
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.ring import Ring

_LOG = logging.getLogger(__name__)
EVERY_NS = 250 * MS
"""How often it looks."""
LATE_NS = 100 * MS
"""When it comes so much too late itself, the others could not come either."""
SHOWN_NS = 4 * SECOND
"""How long it is still shown what has stood still."""
DISPLAY = "the display has stood still for {:.1f} s: an output (a disk, a window) holds it up"
NO_ANSWERS = (
    "faces are found, but there has been no answer for {:.1f} s: pictures are too old when they arrive"
)


class Watchdog:
    """Looks after one live run in a thread of its own. `check` is one look, for tests."""

    def __init__(self, analysis: Analysis, cues: Ring[tuple[Cue, ...]], clock: Clock) -> None:
        self._analysis = analysis
        self._cues = cues
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._checked_ns = self.turned_ns = self._answered_ns = clock.now_ns()
        self._answers = -1
        self._said: dict[str, tuple[int, str]] = {}

    def start(self) -> None:
        """Begin to look; returns at once."""
        self._checked_ns = self.turned_ns = self._answered_ns = self._clock.now_ns()
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def turned(self) -> None:
        """The display came round."""
        self.turned_ns = self._clock.now_ns()

    @property
    def notices(self) -> tuple[str, ...]:
        """What stands still, or did until a moment ago, for the overlay."""
        now_ns = self._clock.now_ns()
        return tuple(text for at_ns, text in list(self._said.values()) if now_ns - at_ns <= SHOWN_NS)

    def check(self, now_ns: int) -> None:
        """Look at everything once."""
        late_ns = now_ns - self._checked_ns - EVERY_NS
        self._checked_ns = now_ns
        if late_ns > LATE_NS:
            _LOG.debug("the program stood still for %.1f s", late_ns / SECOND)
            self._analysis.excuse(late_ns)
            self.turned_ns += late_ns
            self._answered_ns += late_ns
        for line in self._analysis.mend(now_ns):
            self._say(line, now_ns)
        if now_ns - self.turned_ns >= STILL_NS:
            self._say(DISPLAY.format((now_ns - self.turned_ns) / SECOND), now_ns)
        self._check_answers(now_ns)

    def _check_answers(self, now_ns: int) -> None:
        """Faces in fresh sightings must lead to cues."""
        written, wiring = self._cues.written, self._analysis.wiring
        newest = [] if wiring is None else [ring.newest() for ring in wiring.rings.sightings.values()]
        if written != self._answers or not any(sighting and sighting.faces for sighting in newest):
            self._answers, self._answered_ns = written, now_ns
        elif now_ns - self._answered_ns >= STILL_NS:
            self._say(NO_ANSWERS.format((now_ns - self._answered_ns) / SECOND), now_ns)

    def _say(self, line: str, now_ns: int) -> None:
        """Keep it for the overlay, and log it when it is new; the seconds in it count up."""
        subject = line.split(" for ")[0]
        if now_ns - self._said.get(subject, (-SHOWN_NS, ""))[0] >= SHOWN_NS:
            _LOG.warning("%s", line)
        self._said[subject] = (now_ns, line)

    def _run(self) -> None:
        while self._clock.wait_until(self._clock.now_ns() + EVERY_NS, self._stop):
            self.check(self._clock.now_ns())
