"""Which emotion a sentence tells of: the small network of this project, and the published branch, ALBERT.

The small one has sub-word vectors, two narrow convolutions that see five words, enough for "not happy at
all", and two ways of pooling. Its weights are kept in 2 MB: nearly all of them are rows of the table, which
deployment keeps as INT8.

ALBERT comes from a folder, through `transformers`, never from a network; live it runs as an ONNX file with
the folder's own `tokenizer.json` beside it. As published a text was padded to 100 tokens; here it has the
length that it has, which gives the same answer for less.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from liveaffect.engines.protocol import EngineFileError, EngineUnavailable
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.word_emotions import ROWS

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
FILE, OPSET = "words.onnx", 18
WIDTH = 64
CHANNELS = 128


class AlbertWords(nn.Module):
    """Token numbers (n, tokens) and which are there to logits (n, 7)."""

    learning_share = 0.1
    """Of the rate at which everything else learns: it was taught before."""

    def __init__(self, folder: Path) -> None:
        """Raises EngineUnavailable without `transformers`, EngineFileError for a folder without ALBERT."""
        super().__init__()
        self.folder = folder
        self.albert = _open_albert(folder)
        self.to_logits = nn.Linear(self.albert.config.hidden_size, len(LABELS))

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        out: Tensor = self.to_logits(self.albert(tokens, attention_mask=present).last_hidden_state[:, 0])
        return out


def _open_albert(folder: Path) -> Any:
    if not (folder / "config.json").exists() or not any((folder / name).exists() for name in WEIGHTS):
        raise EngineFileError(
            f"{folder} holds no ALBERT: wanted are config.json, tokenizer.json and "
            f"{' or '.join(WEIGHTS)}, as albert-base-v2 is published; docs/papers.md says how to get it"
        )
    try:
        from transformers import AlbertModel
    except ImportError as err:
        raise EngineUnavailable(
            f"ALBERT needs the package transformers ({err}): uv sync --inexact --extra papers"
        ) from err
    try:
        return AlbertModel.from_pretrained(
            folder, local_files_only=True, add_pooling_layer=False, attn_implementation="eager"
        )
    except (OSError, ValueError, RuntimeError, KeyError) as err:
        raise EngineFileError(f"cannot read ALBERT in {folder}: {err}; copy it again") from err


class _OneSentence(nn.Module):
    def __init__(self, words: AlbertWords) -> None:
        super().__init__()
        self.words = words

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = self.words(rows[None])[0]
        return out


def words_onnx(words: AlbertWords) -> bytes:
    """One sentence's token numbers `rows` (tokens,) to `logits` (7,), as live use asks."""
    sample = torch.tensor([2, 5, 6, 7, 3])
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # What the tracer takes for fixed is: one sentence, all of it there.
        torch.onnx.export(
            _OneSentence(words).eval(),
            (sample,),
            target := Path(scratch) / FILE,
            input_names=["rows"],
            output_names=["logits"],
            dynamic_axes={"rows": {0: "tokens"}},
            opset_version=OPSET,
            dynamo=False,
        )
        return target.read_bytes()


class WordEmotions(nn.Module):
    """Rows (n, words, pieces) to logits (n, 7) and fine labels (n, `fine`), which help in training alone."""

    def __init__(self, fine: int = 28, dropout: float = 0.4) -> None:
        super().__init__()
        self.table = nn.Embedding(ROWS, WIDTH, padding_idx=0)
        nn.init.normal_(self.table.weight, std=0.1)
        self.near = nn.Conv1d(WIDTH, CHANNELS, 3, padding=1)
        self.far = nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1)
        self.score = nn.Linear(CHANNELS, 1)
        self.head = nn.Linear(2 * CHANNELS + WIDTH, len(LABELS))
        self.fine = nn.Linear(2 * CHANNELS + WIDTH, fine)
        self.drop = nn.Dropout(dropout)

    def vectors(self, rows: Tensor) -> Tensor:
        """One vector a word."""
        count = (rows > 0).sum(-1, keepdim=True).clamp(min=1)
        summed: Tensor = self.table(rows).sum(-2) / count
        return summed

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the seven labels and of the fine ones."""
        there = (rows[..., 0] > 0).unsqueeze(1)
        words = self.drop(self.vectors(rows)).transpose(1, 2)
        near = torch.relu(self.near(words)) * there
        far = torch.relu(self.far(near)) * there + near
        score = self.score(far.transpose(1, 2)).squeeze(-1).masked_fill(~there.squeeze(1), -1e4)
        mean = torch.einsum("nct,nt->nc", far, torch.softmax(score, 1))
        plain = (words * there).sum(2) / there.sum(2).clamp(min=1)
        pooled = self.drop(torch.cat([far.amax(2), mean, plain], 1))
        return self.head(pooled), self.fine(pooled)
