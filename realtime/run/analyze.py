"""`liveaffect analyze`: files in lock-step, with cues, table, overlay and plot as asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from realtime.capture.restamped import Restamped
from realtime.cue import Cue
from realtime.errors import RealtimeError, SettingsError
from realtime.replay import MediaFile
from realtime.run.loading import Tools
from realtime.run.lockstep import LockStep, Reader, Summary
from realtime.run.outputs import Outputs
from realtime.run.screen import Screen
from realtime.run.wiring import Rings, Wiring
from realtime.sinks import Sink
from realtime.sinks.catalogue import open_sheet, open_sink

STEM = "{stem}"


@dataclass(slots=True)
class Watched:
    """A source that was opened, and what it delivers."""

    reader: Reader
    camera: str | None
    microphone: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Output files of `analyze`; `{stem}` in a name stands for the name of the analysed file."""

    paths: tuple[str, ...] = ()
    sheet: str | None = None
    """The contact sheet: by its ending alone it would be taken for a timeline."""

    def check(self, files: Sequence[Path]) -> None:
        """Refuse to write several results over one another."""
        for name in (*self.paths, *([self.sheet] if self.sheet else [])):
            if len(files) > 1 and STEM not in name:
                raise SettingsError(
                    f"{len(files)} files would all be written to {name}; put {STEM} into the name, "
                    f"such as {Path(name).with_stem(STEM + '-' + Path(name).stem)}"
                )

    def open(self, file: Path) -> list[Sink]:
        """The sinks for one file."""
        sinks: list[Sink] = []
        try:
            for name in self.paths:
                sinks.append(open_sink(name.replace(STEM, file.stem)))
            if self.sheet:
                sinks.append(open_sheet(self.sheet.replace(STEM, file.stem)))
        except RealtimeError:
            Outputs(sinks).close()
            raise
        return sinks


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

    cameras = [watched.camera] if watched.camera else []
    rings = Rings.plain(cameras, [watched.microphone] if watched.microphone else [])
    wiring = Wiring(rings, tools.networks, tools.make_finders, publish, pieces=tools.pieces)
    wiring.scheduler.adopt(tools.habit)
    screen = Screen(watched.camera, tools.networks.name) if watched.camera else None
    run = LockStep(wiring, screen, outputs)
    summary.media_s = run.run(watched.reader, progress)
    summary.pictures = run.pictures
    return summary


def analyse_files(
    files: Sequence[Path], wanted: Wanted, tools: Tools, *, later_ns: int = 0
) -> dict[Path, Summary]:
    """All files, one after the other; `later_ns` as in `Restamped`. Raises on one that cannot be read."""
    wanted.check(files)
    results: dict[Path, Summary] = {}
    for file in files:
        media = MediaFile(file)
        media.open()
        outputs = Outputs([])
        try:
            outputs = Outputs(wanted.open(file))
            bar = ProgressBar(file.name, media.duration_s)
            results[file] = analyse(watch(media, later_ns), tools, outputs, lambda _: None, bar.show)
            bar.finish()
        finally:
            outputs.close()
            media.close()
        results[file].failures.extend(outputs.failures)
    return results


def watch(media: MediaFile, later_ns: int = 0) -> Watched:
    """What an opened file delivers."""
    return Watched(
        reader=Restamped(media, later_ns) if later_ns else media,
        camera=media.name if media.has_video else None,
        microphone=media.name if media.has_audio else None,
    )


class ProgressBar:
    """A line on standard error, only where somebody can see it."""

    def __init__(self, name: str, total_s: float | None) -> None:
        self._name = name
        self._total_s = total_s
        self._last = -1
        self._shown = sys.stderr.isatty()

    def show(self, media_s: float) -> None:
        """The run has reached this time."""
        second = int(media_s)
        if not self._shown or second == self._last:
            return
        self._last = second
        if self._total_s:
            filled = min(int(30 * media_s / self._total_s), 30)
            line = f"[{'#' * filled}{'.' * (30 - filled)}] {media_s:6.1f} of {self._total_s:.1f} s"
        else:
            line = f"{media_s:6.1f} s"
        sys.stderr.write(f"\r{self._name} {line}")
        sys.stderr.flush()

    def finish(self) -> None:
        """End the line."""
        if self._shown:
            sys.stderr.write("\n")
