"""Which output a name means: 'window', or a file whose ending says what is written into it.

The kinds are imported only when they are asked for, because video and windows load large libraries.
"""

from __future__ import annotations

from pathlib import Path

from liveaffect.realtime.errors import SinkError
from liveaffect.realtime.sinks import Sink

VIDEO_ENDINGS = (".mp4", ".mkv", ".mov")
SHEET_ENDING = ".sheet.png"
KINDS = (
    "window",
    "- or .jsonl (cues, one a line)",
    ".csv (cues as a table)",
    ".mp4, .mkv or .mov (the drawn picture with sound)",
    ".sheet.png (a contact sheet)",
    ".png (a timeline)",
)


def open_sink(name: str) -> Sink:
    """The opened output. Raises SinkError for a name that means nothing or a file that cannot be written."""
    ending = Path(name).suffix.lower()
    if name == "window":
        from liveaffect.realtime.sinks.window import Window

        return Window()
    if name == "-" or ending == ".jsonl":
        from liveaffect.realtime.sinks.jsonl import JsonLines

        return JsonLines(name)
    if ending == ".csv":
        from liveaffect.realtime.sinks.csv_file import CsvFile

        return CsvFile(name)
    if ending in VIDEO_ENDINGS:
        from liveaffect.realtime.sinks.video_file import VideoFile

        return VideoFile(name)
    if name.lower().endswith(SHEET_ENDING):
        return open_sheet(name)
    if ending == ".png":
        from liveaffect.realtime.sinks.timeline import Timeline

        return Timeline(name)
    raise SinkError(f"no output is called '{name}'. There are: " + "; ".join(KINDS))


def open_sheet(name: str) -> Sink:
    """A contact sheet, whatever else a .png might be. Raises SinkError."""
    if Path(name).suffix.lower() != ".png":
        raise SinkError(f"a contact sheet is a .png file, and '{name}' is none")
    from liveaffect.realtime.sinks.contact_sheet import ContactSheet

    return ContactSheet(name)
