"""Flags to settings to the function that does it; no logic of its own.

The commands themselves are in `liveaffect/commands/`, in groups. Errors written for the user end the
program with their text and exit code 1; a defect of the program keeps its traceback.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import version

from liveaffect.commands import Run, say
from liveaffect.commands.calibrate import add_calibration
from liveaffect.commands.machine import add_machine
from liveaffect.commands.train import add_training
from liveaffect.commands.watch import add_watching
from liveaffect.engines.protocol import EngineError
from liveaffect.realtime.errors import RealtimeError
from liveaffect.settings import resolve

LIBRARIES = {"OPENCV_LOG_LEVEL": "ERROR", "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "1"}
"""What OpenCV reads when it is loaded: its warnings are said by us; a stalled camera is let go after 1 s."""
GROUPS = (add_watching, add_machine, add_training, add_calibration)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = _parser().parse_args(arguments)
    for name, value in LIBRARIES.items():
        os.environ.setdefault(name, value)
    if threading.current_thread() is threading.main_thread():
        # A run that is ended from outside finishes its files, as after Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    run: Run = given.command
    try:
        settings = resolve(vars(given), config=given.config)
        logging.basicConfig(
            level=settings.log_level.upper(),
            stream=sys.stderr,
            format="%(levelname)s %(name)s: %(message)s",
        )
        return run(given, settings)
    except (RealtimeError, EngineError) as error:
        say(f"liveaffect: {error}")
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except BrokenPipeError:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="liveaffect",
        description="Watches cameras, listens to microphones, and shows which emotion each person shows "
        "and how sure it is. Nothing leaves the machine.",
    )
    parser.add_argument("--version", action="version", version=f"liveaffect {version('liveaffect')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add_group in GROUPS:
        add_group(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
