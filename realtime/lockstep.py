"""Files, as fast as the machine can and without losing anything: one thread, the media clock, no skipping.

The next picture is read only when everybody has finished with the last one. Before a picture, all grid
points that lie before it are stepped, with exactly the sound and the pictures captured until then, so two
runs are identical and live use is imitated without its haste.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import SECOND, MediaClock
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import EndOfStream, RealtimeError
from liveaffect.realtime.frame import AudioBlock, CountsLosses, Restamped, Sighting, VideoFrame
from liveaffect.realtime.health import amount, losses_in_words
from liveaffect.realtime.replay import MediaFile
from liveaffect.realtime.scheduler import Snapshot
from liveaffect.realtime.screen import RunStatus, Screen
from liveaffect.realtime.sinks import Outputs
from liveaffect.realtime.voice_analyzer import LATE, SHED
from liveaffect.realtime.window import FUSION_STEP_NS
from liveaffect.realtime.wiring import Rings, Tools, Wiring

Progress = Callable[[float], None]
"""Called with the media time in seconds."""


class ItemReader(Protocol):
    """What lock-step needs of a source: items in the order of their time, then EndOfStream."""

    def read(self, timeout_s: float) -> VideoFrame | AudioBlock | None:
        """The next item."""
        ...


@dataclass(slots=True)
class Summary:
    """What a run over one file came to."""

    pictures: int = 0
    media_s: float = 0.0
    cues: int = 0
    tracks: set[int] = field(default_factory=set)
    labels: dict[str, int] = field(default_factory=dict)
    losses: dict[str, int] = field(default_factory=dict)
    """What of the file could not be used, by cause."""
    lost_sound: dict[str, int] = field(default_factory=dict)
    """Pieces of sound that say nothing about anybody, by cause."""
    failures: list[str] = field(default_factory=list)
    """What outputs failed at."""

    def line(self) -> str:
        """One line for the person at the keyboard."""
        most = sorted(self.labels.items(), key=lambda pair: (-pair[1], pair[0]))[:3]
        shares = ", ".join(f"{label} {100 * count / max(self.cues, 1):.0f} %" for label, count in most)
        people = f"{len(self.tracks)} {'person' if len(self.tracks) == 1 else 'people'}"
        pictures, cues = amount(self.pictures, "pictures"), amount(self.cues, "cues")
        return (
            f"{self.media_s:.1f} s, {pictures}, {people}, {cues}"
            + (f": {shares}" if shares else "")
            + losses_in_words({**self.losses, **self.lost_sound})
        )

    def count(self, cues: tuple[Cue, ...]) -> None:
        """Take published cues in."""
        self.cues += len(cues)
        for cue in cues:
            self.labels[cue.label] = self.labels.get(cue.label, 0) + 1
            if cue.track is not None:
                self.tracks.add(cue.track)


class LockStep:
    """Drives the stations over one source. Single-threaded by design."""

    def __init__(self, wiring: Wiring, screen: Screen | None, outputs: Outputs) -> None:
        self._wiring = wiring
        self._screen = screen
        self._outputs = outputs
        self._clock = MediaClock()
        self._next_point = 0
        self._early: deque[AudioBlock] = deque()
        self._notices = () if (caveat := wiring.networks.caveat) is None else (caveat,)
        self.pictures = 0
        self.newest: tuple[VideoFrame, Sighting, Snapshot] | None = None
        """The last picture and what came of it."""

    @classmethod
    def of(
        cls,
        camera: str | None,
        microphone: str | None,
        tools: Tools,
        outputs: Outputs,
        publish: Callable[[tuple[Cue, ...]], None],
    ) -> LockStep:
        """With stations for sources of these names, wired and ready."""
        # What went wrong with the file before says nothing about this one.
        tools.networks.forgive()
        rings = Rings.plain([camera] if camera else [], [microphone] if microphone else [])
        wiring = Wiring(rings, tools.networks, tools.make_finders, publish, pieces=tools.pieces)
        wiring.hear_words(tools.spoken)
        wiring.scheduler.adopt(tools.profile)
        return cls(wiring, Screen(camera, tools.networks.name) if camera else None, outputs)

    @property
    def now_ns(self) -> int:
        """How far it has come."""
        return self._clock.now_ns()

    def run(self, reader: ItemReader, progress: Progress = lambda _: None) -> float:
        """Everything the source has; returns the media time in seconds. Raises if something was skipped."""
        for media_s in self.steps(reader):
            progress(media_s)
        media_s = self.finish()
        self.check_nothing_was_skipped()
        return media_s

    def steps(self, reader: ItemReader) -> Iterator[float]:
        """Take one item after the other, giving the caller a turn after each; yields the media time reached.

        It ends early where nobody is left to tell, because every output failed. `finish` and
        `check_nothing_was_skipped` belong behind the last of them.
        """
        while not self._outputs.all_failed:
            try:
                item = reader.read(1.0)
            except EndOfStream:
                return
            if isinstance(item, AudioBlock):
                self.hear(item)
                yield self.now_ns / SECOND
            elif item is not None:
                self.see(item)
                yield item.captured_ns / SECOND

    def finish(self) -> float:
        """Step all that is left; returns the media time in seconds."""
        end_ns = max([self._clock.now_ns(), *(_end_ns(block) for block in self._early)])
        self.catch_up(end_ns + 1)
        # The end seldom lies on a grid point, and what was said after the last one counts too.
        self._step(end_ns)
        hearing = self._wiring.hearing
        if hearing is not None and hearing.finish():
            # Words that only the end made sure of find their owner at one more grid point.
            self.catch_up(end_ns + FUSION_STEP_NS + 1)
        return end_ns / SECOND

    def hear(self, block: AudioBlock) -> None:
        """Sound counts from when its last sample is captured; until then it waits."""
        self._outputs.hear(block)
        self._early.append(block)
        if not self._wiring.rings.frames:
            self.catch_up(_end_ns(block))

    def see(self, frame: VideoFrame) -> None:
        """Step all grid points before this picture, then the picture itself."""
        self.catch_up(frame.captured_ns)
        self._wiring.rings.take(frame)
        sighting = self._wiring.look(frame)
        snapshot = self._step(frame.captured_ns)
        ledger = self._wiring.health.ledger(frame.source)
        ledger.captured += 1
        if self._screen is not None and self._outputs.want_pictures:
            outputs = self._outputs
            around = RunStatus(
                frame.captured_ns, "locked", notices=self._notices, disclosure=outputs.disclose
            )
            outputs.show(self._screen.draw(frame, sighting, snapshot, around), frame)
        ledger.shown += 1
        self.pictures += 1
        self.newest = frame, sighting, snapshot

    def catch_up(self, until_ns: int) -> None:
        """Step every grid point before `until_ns`."""
        while (point_ns := self._next_point * FUSION_STEP_NS) < until_ns:
            self._step(point_ns)

    def _step(self, now_ns: int) -> Snapshot:
        self._clock.advance_to(now_ns)
        while self._early and _end_ns(self._early[0]) <= now_ns:
            self._wiring.rings.take(self._early.popleft())
        self._next_point = max(self._next_point, now_ns // FUSION_STEP_NS + 1)
        if self._wiring.hearing is not None:
            self._wiring.hearing.catch_up()
        return self._wiring.scheduler.step(now_ns)

    def lost_sound(self) -> dict[str, int]:
        """Pieces of sound that said nothing about anybody, by cause."""
        return dict(self._wiring.scheduler.lost_sound())

    def check_nothing_was_skipped(self) -> None:
        """Raise RealtimeError if a file was not analysed to its last sample."""
        scheduler = self._wiring.scheduler
        lost = scheduler.lost_sound()
        skipped = {
            **scheduler.skipped,
            LATE: lost[LATE],
            SHED: lost[SHED],
            "blocks of sound that were never taken in": len(self._early),
            "pieces of sound that were never heard": scheduler.unheard(),
        }
        if any(skipped.values()):
            raise RealtimeError(f"lock-step skipped {skipped}; this is a defect of the program")
        for ledger in self._wiring.health.ledgers.values():
            ledger.check(in_flight=0)


def _end_ns(block: AudioBlock) -> int:
    return block.captured_ns + len(block.samples) * SECOND // SAMPLE_RATE


@dataclass(slots=True)
class Watched:
    """A source that was opened, and what it delivers."""

    reader: ItemReader
    camera: str | None
    microphone: str | None


def analyse(
    watched: Watched,
    tools: Tools,
    outputs: Outputs,
    on_cues: Callable[[tuple[Cue, ...]], None],
    progress: Callable[[float], None] = lambda _: None,
) -> Summary:
    """One source from its beginning to its end in lock-step; the caller opened it and closes it."""
    summary = Summary()

    def publish(cues: tuple[Cue, ...]) -> None:
        summary.count(cues)
        outputs.tell(cues)
        on_cues(cues)

    run = LockStep.of(watched.camera, watched.microphone, tools, outputs, publish)
    summary.media_s = run.run(watched.reader, progress)
    summary.pictures = run.pictures
    if isinstance(watched.reader, CountsLosses):
        summary.losses = {cause: count for cause, count in watched.reader.losses.items() if count}
    summary.lost_sound = run.lost_sound()
    return summary


def watched(media: MediaFile, later_ns: int = 0) -> Watched:
    """What an opened file delivers."""
    return Watched(
        reader=Restamped(media, later_ns) if later_ns else media,
        camera=media.name if media.has_video else None,
        microphone=media.name if media.has_audio else None,
    )
