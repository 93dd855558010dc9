"""`python -m realtime` is the `liveaffect` command."""

from __future__ import annotations

import sys

from realtime.run.cli import main

sys.exit(main())
