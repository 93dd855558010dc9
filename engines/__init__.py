"""Networks and what runs them. Imports nothing of the live path; `protocol` is the seam to it.

The labels stand here, and not in `recipe` with the rest that everybody shares, because whoever only reads
cues needs them and should not have to load NumPy for seven words.
"""

from __future__ import annotations

LABELS: tuple[str, ...] = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
"""The seven labels, everywhere in this order."""
