"""Where the command line begins: `liveaffect`, or `python -m liveaffect`.

Until the command heeds Ctrl-C by itself, and again after its end, Ctrl-C ends the process without a word; a
traceback out of half-loaded libraries would help nobody.
"""

from __future__ import annotations

# The module in C: `signal` itself takes a moment to load, in which Ctrl-C could come.
import _signal  # type: ignore[import-not-found]
import sys

_LAST_S = 3.0
"""What taking the process apart may take."""


def main() -> int:
    """Run the command that was given; returns the exit code."""
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from liveaffect import cli

    code = cli.main()
    if hasattr(_signal, "setitimer"):
        # A library that hangs while the process is taken apart must not hold it: the system ends it then.
        _signal.setitimer(_signal.ITIMER_REAL, _LAST_S)
    return code


if __name__ == "__main__":
    sys.exit(main())
