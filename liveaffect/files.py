"""`liveaffect analyze`: files in lock-step, with cues, table, overlay and plot as asked for.

Folders become the files in them; every file that is passed over, and a folder that cannot be read, is
counted with the reason, so a run over ten thousand files leaves nobody wondering where some of them went.
One file that cannot be read, or an output that fails, costs that file alone, and what failed is known at
the end. What would be overwritten is refused before anything is opened.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from liveaffect.progress import ProgressBar, written_out
from liveaffect.realtime.endings import why_passed_over
from liveaffect.realtime.errors import RealtimeError, SettingsError, SinkError, SourceError
from liveaffect.realtime.lockstep import Summary, analyse, watched
from liveaffect.realtime.replay import MediaFile
from liveaffect.realtime.sinks import Outputs, Sink
from liveaffect.realtime.sinks.catalogue import STDOUT, Named, refuse_overwriting
from liveaffect.realtime.wiring import Tools


@dataclass(slots=True)
class FoundFiles:
    """What there is to do, and what not."""

    files: list[Path] = field(default_factory=list)
    """Those that were named as they are, those in folders by name."""
    failed: dict[Path, str] = field(default_factory=dict)
    """Folders that cannot be read or hold nothing, with the reason."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """Files in folders that are not worked on, by reason."""

    def line(self) -> str | None:
        """What was passed over, in words; None if nothing was."""
        total = self.passed_over.total()
        causes = ", ".join(f"{count} {why}" for why, count in sorted(self.passed_over.items()) if count)
        return f"{total} {'file' if total == 1 else 'files'} passed over: {causes}" if total else None


def expand(paths: Sequence[Path], wanted: tuple[str, ...]) -> FoundFiles:
    """Files as they are; folders as all files in them and below whose ending is wanted."""
    found = FoundFiles()
    for path in paths:
        if is_folder(path):
            _look_into(path, wanted, found)
        else:
            found.files.append(path)
    return found


def is_folder(path: Path) -> bool:
    """Whether it is one; what the system refuses to look at is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _look_into(folder: Path, wanted: tuple[str, ...], found: FoundFiles) -> None:
    def refused(error: OSError) -> None:
        where = Path(error.filename) if error.filename else folder
        found.failed[where] = f"the folder cannot be read: {error.strerror}"

    before = len(found.files), len(found.failed)
    for parent, folders, names in os.walk(folder, onerror=refused):
        folders.sort()
        # Not followed, because links can lead round in a circle.
        found.passed_over["linked folders"] += sum(Path(parent, name).is_symlink() for name in folders)
        for name in sorted(names):
            path = Path(parent, name)
            if (why := why_passed_over(path, wanted)) is None:
                found.files.append(path)
            else:
                found.passed_over[why] += 1
    if before == (len(found.files), len(found.failed)):
        found.failed[folder] = f"there is nothing to work on in it; {_list_of(wanted)} would be"


def _list_of(endings: tuple[str, ...]) -> str:
    return ", ".join(ending.removeprefix(".") for ending in endings)


def table_of_failures(failed: dict[Path, str], total: int) -> list[str]:
    """One line for each file that failed, below one that counts them. None for a single file, whose
    failure says everything by itself.
    """
    if not failed:
        return []
    if total == 1 and len(failed) == 1:
        return [f"liveaffect: {why}" for why in failed.values()]
    width = max(len(str(path)) for path in failed)
    heading = f"liveaffect: {len(failed)} of {total} failed:"
    return [heading, *(written_out(f"  {path!s:{width}}  {why}") for path, why in failed.items())]


STEM = "{stem}"


@dataclass(frozen=True, slots=True)
class OutputFiles:
    """Outputs of `analyze`; `{stem}` in a name stands for the name of the analysed file."""

    outputs: tuple[Named, ...] = ()
    notice: bool = True
    """Pictures carry the mark that emotions are being analysed."""

    def check(self, files: Sequence[Path]) -> None:
        """Refuse to write a result over another one or over what is to be read."""
        for output in self.outputs:
            if len(files) > 1 and STEM not in output.name and output.name != STDOUT:
                raise SettingsError(
                    f"{len(files)} files would all be written to {output.name}; put {STEM} into the name, "
                    f"such as {Path(output.name).with_stem(STEM + '-' + Path(output.name).stem)}"
                )
            self._check_stems(output, files)
        names = [one.name for one in self.outputs if STEM not in one.name]
        names += [
            one.name.replace(STEM, file.stem) for one in self.outputs if STEM in one.name for file in files
        ]
        refuse_overwriting(names, files)

    def of(self, file: Path) -> list[Named]:
        """The outputs for one file."""
        return [Named(one.kind, one.name.replace(STEM, file.stem)) for one in self.outputs]

    def open(self, file: Path, *, sound: bool) -> list[Sink]:
        """The sinks for one file."""
        sinks: list[Sink] = []
        try:
            sinks.extend(one.open(sound=sound) for one in self.of(file))
        except RealtimeError:
            Outputs(sinks).close()
            raise
        return sinks

    def _check_stems(self, output: Named, files: Sequence[Path]) -> None:
        if STEM not in output.name:
            return
        of_stem: dict[str, Path] = {}
        for file in files:
            other = of_stem.setdefault(file.stem, file)
            if other is not file:
                raise SettingsError(
                    f"'{other}' and '{file}' would both be written to "
                    f"{output.name.replace(STEM, file.stem)}; name each in a run of its own"
                )


@dataclass(slots=True)
class Analysed:
    """What became of the files."""

    summaries: dict[Path, Summary] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)
    """Files that could not be analysed, or whose outputs failed, with the reason."""


def analyse_files(
    files: Sequence[Path],
    wanted: OutputFiles,
    tools: Tools,
    *,
    later_ns: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Analysed:
    """All files, one after the other; `later_ns` as in `Restamped`, `say` is given a line about each."""
    wanted.check(files)
    done, numbers = Analysed(), Counter[str]()
    for file in files:
        numbers[file.name] += 1
        try:
            summary = _analyse_file(MediaFile(file, number=numbers[file.name]), file, wanted, tools, later_ns)
        except (SourceError, SinkError) as error:
            done.failed[file] = str(error)
            continue
        done.summaries[file] = summary
        say(written_out(f"{file}: {summary.line()}"))
        if summary.failures:
            done.failed[file] = "; ".join(summary.failures)
    return done


def _analyse_file(media: MediaFile, file: Path, wanted: OutputFiles, tools: Tools, later_ns: int) -> Summary:
    media.open()
    outputs = Outputs([])
    bar = ProgressBar(file.name, media.duration_s)
    try:
        outputs = Outputs(wanted.open(file, sound=media.has_audio), notice=wanted.notice)
        summary = analyse(watched(media, later_ns), tools, outputs, lambda _: None, bar.show)
        bar.done(summary.media_s)
    finally:
        bar.finish()
        outputs.close()
        media.close()
    summary.failures.extend(outputs.failures)
    return summary
