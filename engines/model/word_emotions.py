"""Which emotion a sentence tells of: sub-word vectors, two narrow convolutions, two ways of pooling.

The convolutions see five words, enough for "not happy at all". Weights are kept in 2 MB: nearly all of them
are rows of the table, which deployment keeps as INT8.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from liveaffect.engines.recipe import LABELS
from liveaffect.engines.word_pieces import ROWS

WIDTH = 64
CHANNELS = 128


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
