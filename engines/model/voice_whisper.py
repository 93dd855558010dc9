"""Voice on the first layers of Whisper's encoder.

Whisper heard hundreds of thousands of hours of people; its first layers, before sound turns into words, know
how somebody speaks. They stay as they are and are not ours: the file of a network that stands on them holds
no tensor of Whisper's, and takes them from the user's own copy when it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.model.voice_statistics import HeadPreset, StatisticsVoice
from liveaffect.engines.model.whisper_front import BANDS, WhisperSound
from liveaffect.engines.whisper import KNOWN, WhisperModel

_POSITIONS = 1500
FOREIGN = "ears."
"""What the names of Whisper's tensors begin with in a network that stands on it."""


@dataclass(frozen=True, slots=True)
class WhisperPreset:
    """How much of which Whisper, and what stands on it."""

    name: str
    sound: WhisperSound
    whisper: str
    """Its size, such as 'tiny.en'."""
    layers: int
    """The first so many of the encoder are computed, and the statistics of each are looked at."""
    head: HeadPreset = field(default_factory=lambda: HeadPreset(hidden=128))


class EncoderLayer(nn.Module):
    """One of Whisper's: attention and feed-forward, each behind a norm, each added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = float((width // heads) ** -0.5)
        self.attention_norm = nn.LayerNorm(width)
        self.attention_in = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed_in = nn.Linear(width, 4 * width)
        self.feed_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention_out(self._attended(self.attention_in(self.attention_norm(x))))
        out: Tensor = x + self.feed_out(functional.gelu(self.feed_in(self.feed_norm(x))))
        return out

    def _attended(self, joined: Tensor) -> Tensor:
        moments, width = joined.shape[1], joined.shape[2] // 3
        apart = joined.reshape(-1, moments, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = apart[0], apart[1], apart[2]
        mixed: Tensor = (query @ key.transpose(2, 3) * self.scale).softmax(3) @ value
        return mixed.transpose(1, 2).reshape(-1, moments, width)


class Ears(nn.Module):
    """Whisper's two convolutions and its first layers: log-mel to the moments after each layer."""

    def __init__(self, model: WhisperModel, layers: int, moments: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(BANDS, model.width, 3, padding=1)
        self.conv2 = nn.Conv1d(model.width, model.width, 3, stride=2, padding=1)
        self.positions = nn.Parameter(torch.zeros(_POSITIONS, model.width))
        self.moments = moments
        self.layers = nn.ModuleList(EncoderLayer(model.width, model.heads) for _ in range(layers))

    def forward(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        x = functional.gelu(self.conv2(functional.gelu(self.conv1(log_mel)))).transpose(1, 2)
        x = x + self.positions[: self.moments]
        found = []
        for layer in self.layers:
            x = layer(x)
            found.append(x)
        return tuple(found)

    def take(self, tensors: Mapping[str, NDArray[np.generic]]) -> None:
        """Put Whisper's tensors, by CTranslate2's names, in their places."""
        state = {
            name: torch.from_numpy(np.array(tensors[theirs], np.float32))
            for name, theirs in foreign_names(self.state_dict()).items()
        }
        self.load_state_dict(state)


class VoiceWhisper(StatisticsVoice):
    """The voice network whose features are Whisper's."""

    def __init__(self, preset: WhisperPreset) -> None:
        model = KNOWN[preset.whisper]
        super().__init__(preset.name, preset.sound, (model.width,) * preset.layers, preset.head)
        self.preset = preset
        self.ears = Ears(model, preset.layers, preset.sound.moments)
        self.ears.requires_grad_(False)

    def features(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = self.ears(log_mel)
        return found


_PARTS = {
    "attention_norm": "self_attention/layer_norm",
    "attention_in": "self_attention/linear_0",
    "attention_out": "self_attention/linear_1",
    "feed_norm": "ffn/layer_norm",
    "feed_in": "ffn/linear_0",
    "feed_out": "ffn/linear_1",
}


def foreign_names(names: Mapping[str, object]) -> dict[str, str]:
    """What each tensor of `Ears` is called in Whisper's file."""
    return {name: _foreign(name) for name in names}


def _foreign(name: str) -> str:
    if name == "positions":
        return "encoder/position_encodings/encodings"
    *path, kind = name.split(".")
    if path[0] != "layers":
        return f"encoder/{path[0]}/{kind}"
    if "norm" in path[2]:
        kind = {"weight": "gamma", "bias": "beta"}[kind]
    return f"encoder/layer_{path[1]}/{_PARTS[path[2]]}/{kind}"
