"""What a look at this machine finds, and how it is written down for a person or a program."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TextIO

from liveaffect.progress import ProgressBar

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


def examine(look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of one section, the last of which may be that looking itself failed."""
    try:
        yield from look()
    except Exception as error:  # noqa: BLE001  a doctor who dies of the illness is of no use
        yield Finding("examination", "broken", f"{type(error).__name__}: {error}", cure_of(error))


def cure_of(error: Exception) -> str:
    """What mends an error that no section foresaw, as far as the error itself tells."""
    from liveaffect.libraries import explain, install_command, missing_libraries

    if isinstance(error, ImportError | OSError) and explain(error) is not None:
        return install_command(missing_libraries())
    if isinstance(error, ModuleNotFoundError):
        return "uv sync --inexact"
    return ""


def report_json(out: TextIO, sections: Sequence[Section]) -> int:
    """Everything as one JSON object; 1 if anything is broken."""
    bar, report = ProgressBar("", len(sections), "sections"), {}
    for number, (title, look) in enumerate(sections):
        bar.name = title
        bar.show(number)
        report[title] = list(examine(look))
    bar.clear()
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


def report_text(out: TextIO, sections: Sequence[Section]) -> int:
    """A line for each finding as it is found; 1 if anything is broken."""
    bar, broken = ProgressBar("", len(sections), "sections"), 0
    out.write(f"Python {platform.python_version()} on {platform.platform()}\n")
    for number, (title, look) in enumerate(sections):
        out.write(f"\n{title}\n")
        out.flush()
        bar.name = title
        bar.show(number)
        for finding in examine(look):
            bar.clear()
            broken += finding.state == "broken"
            out.write(f"  {_MARKS[finding.state]:<7} {finding.name}: {finding.detail}\n")
            if finding.cure:
                out.write(f"          {_ASIDES[finding.state]}: {finding.cure}\n")
            out.flush()
            bar.show(number)
        bar.clear()
    out.write("\n" + ("everything needed works\n" if not broken else f"{broken} broken, see above\n"))
    return int(broken > 0)
