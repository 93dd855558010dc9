"""What every network answers with: a vector, the weight it asks for in pooling, logits; for voice, speech.

Logits are affine in the vector. Pooling vectors and then classifying is therefore the same as pooling
logits, so evidence gathered over time never contradicts its own pieces.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from liveaffect.engines.model.frontend import SoundPreset
from liveaffect.engines.protocol import VECTOR, VOICE_INPUTS, VOICE_OUTPUTS, TensorSpec
from liveaffect.engines.recipe import CROP, LABELS, MEL_BANDS, SAMPLE_RATE


class Answer(NamedTuple):
    """In the order of FACE_OUTPUTS."""

    vector: Tensor
    score: Tensor
    logits: Tensor


class VoiceAnswer(NamedTuple):
    """In the order of VOICE_OUTPUTS."""

    vector: Tensor
    score: Tensor
    logits: Tensor
    speech: Tensor
    stat_sum: Tensor
    stat_sumsq: Tensor


class PooledVector(nn.Module):
    """Features, already pooled, to the vector: one linear layer."""

    def __init__(self, features: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.vector = nn.Linear(features, VECTOR)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.vector(self.dropout(features))
        return out


class FlattenedVector(nn.Sequential):
    """The published way: flatten the whole map, linear, ReLU, linear."""

    def __init__(self, cells: int, hidden: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(cells, hidden), nn.ReLU(), nn.Linear(hidden, VECTOR))


class AskedWeight(nn.Module):
    """The log-weight a vector asks for among its neighbours in time."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.look = nn.Linear(VECTOR, hidden)
        self.weigh = nn.Linear(hidden, 1, bias=False)

    def forward(self, vector: Tensor) -> Tensor:
        out: Tensor = self.weigh(self.look(vector).tanh())
        return out


class Classifier(nn.Linear):
    """Vector to the seven logits."""

    def __init__(self) -> None:
        super().__init__(VECTOR, len(LABELS))


class SpeechHead(nn.Module):
    """How likely the piece holds speech.

    It sees the log-mel before any level was removed, because loudness and its unrest are what tells
    speech from the room, and the vector, which knows what the sound is like.
    """

    def __init__(self, hidden: int = 24) -> None:
        super().__init__()
        self.look = nn.Linear(VECTOR + 2 * MEL_BANDS, hidden)
        self.decide = nn.Linear(hidden, 1)

    def forward(self, vector: Tensor, mel_mean: Tensor, mel_spread: Tensor) -> Tensor:
        # Log-mel runs from -13.8 to about 9: a fixed scale keeps the first layer's inputs near one.
        seen = torch.cat([vector, mel_mean / 8.0 + 0.75, mel_spread / 2.0], dim=1)
        return torch.sigmoid(self.decide(self.look(seen).relu()))


class Network(nn.Module):
    """A module whose `forward` takes the tensors of `inputs` and returns those of `outputs`, in order."""

    def __init__(
        self, kind: str, name: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
    ) -> None:
        super().__init__()
        self.kind = kind
        self.name = name
        self.inputs = inputs
        self.outputs = outputs

    def recipe(self) -> dict[str, int]:
        """What the manifest's recipe says of this network; face: the crop template."""
        return {"crop": CROP} if self.kind == "face" else {}


class VoiceNetwork(Network):
    """A network for sound, with the piece and hop it wants."""

    def __init__(self, name: str, sound: SoundPreset) -> None:
        samples, *statistics = VOICE_INPUTS
        super().__init__("voice", name, (replace(samples, shape=(sound.piece,)), *statistics), VOICE_OUTPUTS)
        self.sound = sound

    def recipe(self) -> dict[str, int]:
        return {"sample_rate": SAMPLE_RATE, "piece": self.sound.piece, "hop": self.sound.hop}
