"""All microphones' words: one caller hears them one after the other, so two talk at once at the same cost.

Live it has a thread of its own, as polite as the system allows, which loads Whisper as well: neither the
first picture nor any later one waits for words. Lock-step calls `step` itself. What goes wrong is said once,
and the run goes on without words.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from liveaffect.realtime.clock import MS, Clock
from liveaffect.realtime.ring import AudioRing
from liveaffect.realtime.utterance import Utterance
from liveaffect.realtime.words import WordsAnalyzer, WordTools

_LOG = logging.getLogger(__name__)
_TURN_NS = 50 * MS
"""How often new sound is listened to."""
JOIN_S = 30.0
"""How long `close` waits for a pass or for loading, which take a second or two where a core is free. If the
process ended in the middle of either, CTranslate2 would crash."""
POLITE = 10
"""The thread's niceness: pictures and answers go first."""


class SpeechHearing:
    """What a run hears said. `step` has one caller; `news` and the flags belong to the scheduler."""

    def __init__(
        self,
        sounds: Mapping[str, AudioRing],
        make_tools: Callable[[], WordTools],
        *,
        transcript: bool = False,
    ) -> None:
        self.sources = tuple(sounds)
        self.transcript = transcript
        """Whether cues may hold what was said."""
        self.rarer = self.finished_only = False
        """What is left out at the moment, because the machine is late."""
        self.notices: tuple[str, ...] = ()
        self._sounds, self._make_tools = sounds, make_tools
        self._tools: WordTools | None = None
        self._analyzers: dict[str, WordsAnalyzer] = {}
        self._cursors = dict.fromkeys(sounds, 0)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def load(self) -> None:
        """Load Whisper, unless it is there."""
        if self._tools is None:
            self._tools = tools = self._make_tools()
            self._analyzers = {name: WordsAnalyzer(name, ring, tools) for name, ring in self._sounds.items()}

    def step(self) -> bool:
        """Listen to every microphone, with one pass at most for each; False if none was due."""
        made = [
            analyzer.step(rarer=self.rarer, finished_only=self.finished_only)
            for analyzer in self._analyzers.values()
        ]
        return any(made)

    def catch_up(self) -> None:
        """Every pass that is due, however long it takes: files do not skip."""
        self.load()
        while self.step():
            pass

    def finish(self) -> bool:
        """The sound has ended. Whether there are words that nobody has read."""
        for analyzer in self._analyzers.values():
            analyzer.finish()
        unread = (one.said.read_since(self._cursors[name]).items for name, one in self._analyzers.items())
        return any(form.words for forms in unread for form in forms)

    def news(self, source: str) -> Sequence[Utterance]:
        """What was heard at that microphone since the last call."""
        analyzer = self._analyzers.get(source)
        if analyzer is None:
            return ()
        batch = analyzer.said.read_since(self._cursors[source])
        self._cursors[source] = batch.cursor
        return batch.items

    def judge(self, text: str) -> tuple[float, ...] | None:
        """Which emotion a text tells of, as logits."""
        return None if self._tools is None else self._tools.judge(text)

    def lost(self) -> Counter[str]:
        """What was said and not heard, by cause."""
        return sum((analyzer.lost for analyzer in self._analyzers.values()), Counter[str]())

    def start(self, clock: Clock) -> None:
        """Hear in a thread of its own from now on."""
        self._thread = threading.Thread(target=self._work, args=(clock,), name="hears words", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, which may be in the middle of a pass. Safe to call twice."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(JOIN_S)

    def _work(self, clock: Clock) -> None:
        """The thread's life. An error ends the words and nothing else."""
        _be_polite()
        try:
            if not self._stop.is_set():
                self.load()
            while not self._stop.is_set():
                if not self.step():
                    clock.wait_until(clock.now_ns() + _TURN_NS, self._stop)
        except Exception as error:  # noqa: BLE001  whatever Whisper raises, faces and voices go on
            self.notices = (
                f"no words: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            )
            _LOG.error("words are not heard any more: %s", error)


def _be_polite() -> None:
    """On Linux a thread has a niceness of its own, and what it starts inherits it."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), POLITE)
    except (AttributeError, OSError):
        return
