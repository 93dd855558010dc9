"""Where the command line begins: `liveaffect`, or `python -m liveaffect`.

Until the command heeds Ctrl-C by itself, and again after its end, Ctrl-C ends the process without a word; a
traceback out of half-loaded libraries would help nobody.
"""

from __future__ import annotations

# The module in C: `signal` itself takes a moment to load, in which Ctrl-C could come.
import _signal  # type: ignore[import-not-found]
import sys


def main() -> int:
    """Run the command that was given; returns the exit code."""
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    import contextlib
    import os

    from liveaffect import cli
    from liveaffect.cli import ENDED

    code = cli.main()
    if code == ENDED:
        # Everything is finished. A library that hangs while the process is taken apart must not hold its end.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
