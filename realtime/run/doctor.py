"""`liveaffect doctor`: what works on this machine, what does not, and the command that mends each.

Every section looks for itself and imports what it needs only then, so that one missing library hides
nothing else. Absent is not broken: a machine without a camera or a GPU is healthy. Only what keeps
installed parts from working makes the exit status 1.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TextIO

from realtime.run.settings import Settings, resolve

State = Literal["ok", "absent", "broken"]
VERSION = 1
_MARKS: dict[State, str] = {"ok": "ok", "absent": "-", "broken": "BROKEN"}
_ASIDES: dict[State, str] = {"ok": "note", "absent": "if wanted", "broken": "mend it"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: State
    """'ok', 'absent' (not here and not needed), or 'broken' (needed, and it does not work)."""
    detail: str
    cure: str = ""
    """The command or the step that mends it; empty where there is nothing to mend."""


Section = tuple[str, Callable[[], Iterable[Finding]]]


def doctor(
    as_json: bool = False,
    settings: Settings | None = None,
    out: TextIO | None = None,
    sections: Sequence[Section] | None = None,
) -> int:
    """Write the report to `out` (default: standard output); 0 if nothing is broken, else 1.

    Engines, weights and detectors are those of `settings`; without, those a run without flags would take.
    """
    if sections is None:
        from realtime.run.examination import all_sections

        sections = all_sections(settings or resolve({}))
    stream: TextIO = sys.stdout if out is None else out
    if as_json:
        return _report_json(stream, sections)
    return _report_text(stream, sections)


def examine(look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of one section, the last of which may be that looking itself failed."""
    try:
        yield from look()
    except Exception as error:  # noqa: BLE001  a doctor who dies of the illness is of no use
        yield Finding("examination", "broken", f"{type(error).__name__}: {error}", cure_of(error))


def cure_of(error: Exception) -> str:
    """What mends an error that no section foresaw, as far as the error itself tells."""
    from realtime.run.libraries import explain, install_command, missing

    if isinstance(error, ImportError | OSError) and explain(error) is not None:
        return install_command(missing())
    if isinstance(error, ModuleNotFoundError):
        return "uv sync --inexact"
    return ""


def _report_json(out: TextIO, sections: Sequence[Section]) -> int:
    report = {title: list(examine(look)) for title, look in sections}
    broken = any(finding.state == "broken" for findings in report.values() for finding in findings)
    content = {
        "v": VERSION,
        "ok": not broken,
        "system": platform.platform(),
        "python": platform.python_version(),
        "sections": {title: [asdict(finding) for finding in findings] for title, findings in report.items()},
    }
    json.dump(content, out, indent=1)
    out.write("\n")
    return int(broken)


def _report_text(out: TextIO, sections: Sequence[Section]) -> int:
    broken = 0
    out.write(f"Python {platform.python_version()} on {platform.platform()}\n")
    for title, look in sections:
        out.write(f"\n{title}\n")
        for finding in examine(look):
            broken += finding.state == "broken"
            out.write(f"  {_MARKS[finding.state]:<7} {finding.name}: {finding.detail}\n")
            if finding.cure:
                out.write(f"          {_ASIDES[finding.state]}: {finding.cure}\n")
            out.flush()
    out.write("\n" + ("everything needed works\n" if not broken else f"{broken} broken, see above\n"))
    return int(broken > 0)
