"""Which emotion a sentence tells of, by the small network that comes with the program. English.

It is no kind of network like face and voice: it takes a sentence of any length, one at a time, and is asked a
few times a second at most. Its manifest says which file it is and how its answers were calibrated; a network
with a vocabulary of its own, such as ALBERT, brings that as a file beside it.

For the own one a word is known by itself and by its runs of three and four letters, each hashed into a row
of one table. So nothing is out of vocabulary, there is no file of words, and training and live use cannot
differ.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.manifest import SHIPPED
from liveaffect.engines.onnx_engine import ort
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import LABELS

ROWS = 1 << 15
"""Of the table; row 0 is nothing."""
PIECES = 16
"""Of a word at most: itself, then runs of letters."""
MOST_WORDS = 40
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[!?]+|\.{2,}|,")
_PLACEHOLDER = re.compile(r"\[[A-Z]+\]")
_DRAWN_OUT = re.compile(r"(.)\1{2,}")
MANIFEST, FILE, TOKENIZER = "words.json", "words.onnx", "tokenizer.json"
MOST_TOKENS = 100
Judge = Callable[[str], "tuple[float, ...] | None"]


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


def load_judge(weights: Path | None = None) -> Judge:
    """What gives the calibrated logits of a text, or None for one without words. Raises EngineFileError."""
    folder = weights if weights is not None and (weights / MANIFEST).is_file() else SHIPPED
    try:
        told = json.loads((folder / MANIFEST).read_text("utf-8"))
        content = (folder / FILE).read_bytes()
        temperature, labels, wanted = float(told["temperature"]), told["labels"], dict(told["files"])
        found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (FILE, *wanted)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineFileError(
            f"the network that judges words cannot be read in {folder}: {error}; install liveaffect again"
        ) from error
    if found != wanted or labels != list(LABELS):
        raise EngineFileError(
            f"{folder / FILE} is not the file that {MANIFEST} describes; install liveaffect again"
        )
    rows_of = token_rows(folder / TOKENIZER) if TOKENIZER in wanted else table_rows
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def judge(text: str) -> tuple[float, ...] | None:
        if not any(word[0].isalnum() for word in words_of(text)):
            return None
        (logits,) = session.run(None, {"rows": rows_of(text)})
        return tuple((np.asarray(logits, np.float64) / temperature).tolist())

    return judge


def token_rows(path: Path) -> Callable[[str], NDArray[np.int64]]:
    """What gives the token numbers of a text by a vocabulary file. Raises EngineFileError."""
    try:
        from tokenizers import Tokenizer

        text = path.read_text("utf-8")
        json.loads(text)  # The package's own complaint about what is no JSON is of no kind one could catch.
    except ImportError as error:
        raise EngineFileError(
            f"the words network in {path.parent} needs tokenizers: pip install 'liveaffect[words]'"
        ) from error
    except (OSError, ValueError) as error:
        raise EngineFileError(f"the vocabulary {path} cannot be read: {error}; copy it again") from error
    found = Tokenizer.from_str(text)
    found.no_padding()
    found.enable_truncation(MOST_TOKENS)

    def rows(text: str) -> NDArray[np.int64]:
        return np.array(found.encode(text).ids, np.int64)

    return rows
