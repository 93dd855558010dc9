"""`python -m liveaffect` is the `liveaffect` command."""

from __future__ import annotations

import sys

from liveaffect.cli import main

sys.exit(main())
