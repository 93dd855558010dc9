"""What other programs call: `predict` for a whole, `analyze` for a file as it runs, `watch` for what is live.

All three work in the caller's thread. Only `watch` has threads besides, one for each camera, microphone and
analysis, and they end with it. `predict` keeps the networks of its last call, since loading them takes longer
than judging a picture.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from liveaffect.analyzer import UNFETCHED
from liveaffect.caller_input import SoundStream, checked_file, checked_picture, checked_rate, checked_sound
from liveaffect.engines.gpu_start import GpuStart
from liveaffect.prediction import Prediction, predict_file, predict_picture, predict_sound
from liveaffect.realtime.clock import MonotonicClock
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.endings import PICTURES
from liveaffect.realtime.errors import InputRefused, SettingsError, SinkError
from liveaffect.realtime.lockstep import LockStep
from liveaffect.realtime.lockstep import watched as delivered
from liveaffect.realtime.replay import MediaFile, Picture
from liveaffect.realtime.sinks import Outputs, Sink
from liveaffect.realtime.wiring import Tools
from liveaffect.settings import Settings, chosen_settings
from liveaffect.webcam import feeds_of, make_run

File = str | os.PathLike[str]
_LOG = logging.getLogger(__name__)


class Cues(Iterator[Cue]):
    """Cues as they come, one for each person in view and grid point. Threads that ask take turns.

    Files, devices and threads are let go at the end, by `close`, when a `with` block is left, and when nobody
    holds it any longer. A failure is raised where the next cue was wanted.
    """

    def __init__(
        self,
        cues: Generator[Cue],
        outputs: Outputs,
        losses: Callable[[], Mapping[str, int]],
        stop: threading.Event,
    ) -> None:
        """`cues` looks at `stop` often, also while there is no cue."""
        self._cues = cues
        self._outputs = outputs
        self._losses = losses
        self._stop = stop
        self._asking = threading.RLock()

    @property
    def losses(self) -> Mapping[str, int]:
        """What was lost so far, by cause: damaged pictures of a file; live, what came too fast."""
        return {cause: count for cause, count in self._losses().items() if count}

    def __iter__(self) -> Cues:
        return self

    def __next__(self) -> Cue:
        with self._asking:
            return next(self._cues)

    def close(self) -> None:
        """End early. Safe to call twice, and from any thread: whoever waits for a cue is told the end."""
        self._stop.set()
        with self._asking:
            if inspect.getgeneratorstate(self._cues) == inspect.GEN_RUNNING:
                return  # asked by an output in the middle of it all: it ends with the next turn
            self._cues.close()
            self._outputs.close()  # where no cue was ever asked for, nothing else did

    def __enter__(self) -> Cues:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def predict(
    what: File | NDArray[Any],
    *,
    rate: int | None = None,
    bgr: bool = False,
    cropped: bool = False,
    settings: Settings | None = None,
) -> Prediction:
    """The answer for a picture, a piece of sound or a video as a whole.

    `what` is a file, a picture as an array (uint8, height x width x 3, RGB unless `bgr`), or sound as an
    array with `rate` samples a second. `cropped` says that the picture is a face and nothing else. Raises
    SourceError for a file that cannot be read, InputRefused for an array that is neither. Calls from several
    threads wait for each other.

    >>> found = predict("portrait.jpg")
    >>> found.kind, len(found.faces), found.voice
    ('picture', 1, None)
    """
    with _predicting:
        tools = _tools_of(chosen_settings(settings))
        if isinstance(what, str | os.PathLike):
            return predict_file(Path(what), tools, cropped=cropped)
        if rate is None:
            return predict_picture(Picture(checked_picture(what, bgr=bgr)), tools, cropped=cropped)
        stream = SoundStream("sound")
        blocks = [*stream.push(checked_sound(what), 0, checked_rate(rate)), *stream.finish()]
        if not blocks:
            raise InputRefused("there is not a single sample in this sound")
        return predict_sound(blocks, tools)


def analyze(file: File, *, sinks: Sequence[Sink] = (), settings: Settings | None = None) -> Cues:
    """The cues of a video or sound file, made as they are asked for: lock-step, nothing skipped, no thread.

    `sinks` are shown the drawn pictures, with the mark of `Settings.notice`, and told the same cues; they are
    closed at the end. Raises SourceError at once for a file that cannot be read.

    >>> cues = list(analyze("talk.mp4"))
    >>> cues[0].source, cues[-1].t
    ('file:talk.mp4', 2.0)
    """
    path = checked_file(file)
    if path.suffix.lower() in PICTURES:
        raise SettingsError(
            f"{path} is a picture; analyze() is for what has a duration, predict() for pictures"
        )
    media = MediaFile(path)
    media.open()
    chosen = chosen_settings(settings)
    outputs = Outputs(sinks, notice=chosen.notice)
    stop = threading.Event()
    return Cues(_file_cues(media, outputs, chosen, stop), outputs, lambda: media.losses, stop)


def watch(
    camera: str | int | None = 0,
    mic: str | int | None = "default",
    *,
    sinks: Sequence[Sink] = (),
    settings: Settings | None = None,
) -> Cues:
    """The cues of a camera and a microphone, live, until you stop or every source has ended.

    Each is named by index, name, device, file or URL; None for none. It begins with the first cue asked for;
    `sinks` are served while you wait for cues. Devices that vanish are opened again; one that was never there
    raises SourceNotFound.

    >>> with watch("talk.mp4", mic=None) as cues:
    ...     next(cues).source
    'file:talk.mp4'
    """
    names = [() if name is None else (str(name),) for name in (camera, mic)]
    chosen = dataclasses.replace(chosen_settings(settings), camera=names[0], mic=names[1])
    clock = MonotonicClock()
    feeds = feeds_of(chosen, clock)
    if not feeds:
        raise SettingsError("watch() of neither a camera nor a microphone has nothing to watch")
    outputs, gpu = Outputs(sinks, notice=chosen.notice), GpuStart(_LOG.info)
    run = make_run(feeds, chosen, clock, outputs, gpu, _LOG.info)
    unfetched, stop = Counter[str](), threading.Event()

    def cues() -> Generator[Cue]:
        cursor = 0
        try:
            with closing(run.turns()) as turns:
                for ended in turns:
                    batch = run.cues.read_since(cursor)
                    cursor = batch.cursor
                    unfetched[UNFETCHED] += batch.missed
                    if stop.is_set():
                        return
                    yield from (cue for group in batch.items for cue in group)
                    _raise_failure(outputs)
                    if ended:
                        return
        finally:
            gpu.stop()

    def losses() -> Mapping[str, int]:
        found = unfetched.copy()
        for supervisor in run.supervisors:
            found.update(supervisor.state.losses)
        wiring = run.analysis.wiring
        if wiring is not None:
            found.update(wiring.health.left_out + wiring.scheduler.lost_sound())
        return found

    return Cues(cues(), outputs, losses, stop)


def _file_cues(
    media: MediaFile, outputs: Outputs, settings: Settings, stop: threading.Event
) -> Generator[Cue]:
    ready: deque[Cue] = deque()

    def publish(cues: tuple[Cue, ...]) -> None:
        outputs.tell(cues)
        ready.extend(cues)

    with closing(media), closing(outputs):
        tools = settings.load_tools(_LOG.info)
        with closing(tools.networks):
            watched = delivered(media, settings.av_offset_ns or 0)
            run = LockStep.of(watched.camera, watched.microphone, tools, outputs, publish)
            for _ in run.steps(watched.reader):
                _raise_failure(outputs)
                if stop.is_set():
                    return
                while ready:
                    yield ready.popleft()
            run.finish()
            run.check_nothing_was_skipped()
            yield from ready
    _raise_failure(outputs)


def _raise_failure(outputs: Outputs) -> None:
    """An output that failed was closed and the others go on; a program hears of it as an error."""
    if outputs.failures:
        raise SinkError("; ".join(outputs.failures))


_predicting = threading.Lock()
_kept: list[tuple[Settings, Tools]] = []
"""The networks of the last `predict`, at most one entry."""


def _tools_of(settings: Settings) -> Tools:
    if not _kept or _kept[0][0] != settings:
        tools = settings.load_tools(_LOG.info)
        while _kept:
            _kept.pop()[1].networks.close()
        _kept.append((settings, tools))
    return _kept[0][1]
