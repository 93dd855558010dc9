"""What TensorRT says while it builds: its log, kept, and its phases, passed on as lines of progress.

The classes derive from those of the module that is installed, so they are made when it is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


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
    """A progress monitor that reports each phase once, with the phase that it belongs to."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Phases nest; each is reported when it starts."""

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            report(f"{phase_name}: {num_steps} steps" if parent_phase is None else f"  {phase_name}")

        def step_complete(self, phase_name: str, step: int) -> bool:
            return True  # False would stop the build.

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()
