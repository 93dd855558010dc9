"""The published branch for words: ALBERT, its first token, and one linear layer.

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

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
FILE, OPSET = "words.onnx", 18


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
