"""`liveaffect analyze`: files in lock-step, with cues, table, overlay and plot as asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from liveaffect.realtime.errors import RealtimeError, SettingsError
from liveaffect.realtime.lockstep import Summary, analyse, watch
from liveaffect.realtime.replay import MediaFile
from liveaffect.realtime.sinks import Sink
from liveaffect.realtime.sinks.catalogue import open_sheet, open_sink
from liveaffect.realtime.sinks.outputs import Outputs
from liveaffect.realtime.wiring import Tools

STEM = "{stem}"


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
