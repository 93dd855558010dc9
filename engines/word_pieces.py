"""Cuts a sentence into words and words into pieces, for the network that judges what was said.

A word is known by itself and by its runs of three and four letters, each hashed into a row of one table. So
nothing is out of vocabulary, there is no file of words, and training and live use cannot differ.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

ROWS = 1 << 15
"""Of the table; row 0 is nothing."""
PIECES = 16
"""Of a word at most: itself, then runs of letters."""
MOST_WORDS = 40
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[!?]+|\.{2,}|,")
_PLACEHOLDER = re.compile(r"\[[A-Z]+\]")
_DRAWN_OUT = re.compile(r"(.)\1{2,}")


def words_of(text: str) -> list[str]:
    """Words in small letters and the marks that carry a tone; what is drawn out is shortened."""
    plain = _PLACEHOLDER.sub(" somebody ", text).replace("\u2019", "'").lower()
    return [_DRAWN_OUT.sub(r"\1\1", word) for word in _WORD.findall(plain)][:MOST_WORDS]


@lru_cache(maxsize=20_000)
def letters_of(word: str) -> tuple[int, ...]:
    """The rows of one word, at most PIECES of them."""
    edged = f"<{word}>"
    runs = [edged[at : at + length] for length in (4, 3) for at in range(len(edged) - length + 1)]
    return tuple(1 + zlib.crc32(piece.encode()) % (ROWS - 1) for piece in [f"={word}", *runs][:PIECES])


def table_rows(text: str) -> NDArray[np.int64]:
    """Rows of (word, piece), filled with 0; at least one word, which may be nothing."""
    words = words_of(text)
    rows = np.zeros((max(len(words), 1), PIECES), np.int64)
    for at, word in enumerate(words):
        pieces = letters_of(word)
        rows[at, : len(pieces)] = pieces
    return rows
