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
    from liveaffect import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
