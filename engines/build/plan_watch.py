"""What TensorRT says while it builds: its log, kept, and its phases, passed on as lines of progress.

The classes derive from those of the module that is installed, so they are made when it is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

_PARTS = 3
"""How deep the phase lies that is gone through once for every profile."""


def listener(trt: Any) -> Any:
    """A logger with `lines`, everything from the information level up, and `complaint()`."""

    class Listener(trt.ILogger):  # type: ignore[misc]
        """Keeps what is said; prints nothing."""

        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []
            self._errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            level = severity.name
            if level == "VERBOSE":
                return
            self.lines.append(f"{level} {msg}")
            if level in ("ERROR", "INTERNAL_ERROR"):
                self._errors.append(msg)

        def complaint(self) -> str:
            """The errors, or that there were none."""
            return "; ".join(self._errors) or "it does not say why"

    return Listener()


def monitor(trt: Any, report: Callable[[str], None]) -> Any:
    """A progress monitor that reports each of the outer phases once, and the long one part by part."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Phases nest and repeat; what repeats under one parent is done once for every profile."""

        def __init__(self) -> None:
            super().__init__()
            self._depth: dict[str | None, int] = {None: -1}
            self._first: dict[str | None, str] = {}
            self._parts: Counter[str | None] = Counter()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            depth = self._depth[phase_name] = self._depth.get(parent_phase, -1) + 1
            if depth < _PARTS:
                report(phase_name)
            elif depth == _PARTS and self._first.setdefault(parent_phase, phase_name) == phase_name:
                self._parts[parent_phase] += 1
                report(f"{parent_phase}, part {self._parts[parent_phase]}")

        def step_complete(self, phase_name: str, step: int) -> bool:
            return True  # False would stop the build.

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()
