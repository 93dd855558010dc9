"""Voice networks that judge by statistics over time: a head, and the two kinds of features below it.

Mean and deviation of every feature over the moments of a piece say how somebody speaks and little of what.
What the same speaker's pieces have in common is taken away, and a small head says the rest. The statistics
are what a stream keeps running sums of, so the network hands them out as they are.

`VoiceWhisper` stands on the first layers of Whisper's encoder, which heard hundreds of thousands of hours
of people. They stay as they are and are not ours: the file of such a network holds no tensor of Whisper's.
Over their moments a small network of ours listens for what mean and deviation lose.
`VoiceStudent` is always there: convolutions over Whisper's log-mel that see 0.7 s to either side of a
moment and learned what those layers say from everything that speaks, without labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.model.blocks import ConvNorm
from liveaffect.engines.model.frontend import BANDS, STEP, WhisperFront, WhisperSound, heard_share
from liveaffect.engines.model.heads import Network, VoiceAnswer
from liveaffect.engines.protocol import VECTOR, VOICE_INPUTS, VOICE_OUTPUTS
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE
from liveaffect.engines.whisper import KNOWN, WhisperModel

_FARTHEST = 6.0
"""A statistic counts at most this many of the speaker's deviations."""
_LEAST_VARIANCE = 1e-6
_LEAST_DEVIATION = 1e-3


@dataclass(frozen=True, slots=True)
class HeadPreset:
    """The small network behind the statistics."""

    hidden: int
    """Width between statistics and vector; 0: none."""
    dropout: float = 0.4
    speech_hidden: int = 24


class StatisticsHead(nn.Module):
    """Statistics in a speaker's measure to vector, score and logits."""

    def __init__(self, statistics: int, preset: HeadPreset) -> None:
        super().__init__()
        self.drop = nn.Dropout(preset.dropout)
        self.hidden = nn.Linear(statistics, preset.hidden) if preset.hidden else None
        self.vector = nn.Linear(preset.hidden or statistics, VECTOR)
        self.look = nn.Linear(VECTOR, VECTOR // 2)
        self.weigh = nn.Linear(VECTOR // 2, 1, bias=False)
        self.decide = nn.Linear(VECTOR, len(LABELS))

    def forward(self, statistics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        known = self.drop(statistics.clamp(-_FARTHEST, _FARTHEST))
        if self.hidden is not None:
            known = self.drop(torch.relu(self.hidden(known)))
        vector = self.vector(known)
        return vector, self.weigh(self.look(vector).tanh()), self.decide(vector)


class SpeechJudge(nn.Module):
    """How much of the newest part of a piece is speech: by its features and its loudness, band by band."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.look = nn.Linear(features, hidden)
        self.decide = nn.Linear(hidden, 1)

    def forward(self, newest: Tensor) -> Tensor:
        return torch.sigmoid(self.decide(torch.relu(self.look(newest))))


class StatisticsVoice(Network):
    """Samples and speaker statistics in; vector, score, logits, speech and the piece's statistics out.

    A network of this family brings `features`: log-mel to one or more sequences of moments.
    """

    def __init__(self, name: str, sound: WhisperSound, widths: tuple[int, ...], head: HeadPreset) -> None:
        self.width = 2 * sum(widths)
        samples, *statistics = VOICE_INPUTS
        inputs = (
            replace(samples, shape=(sound.piece,)),
            *(replace(one, shape=(self.width,)) for one in statistics),
        )
        outputs = tuple(
            replace(one, name=one.name.replace("mel_", "stat_"), shape=(self.width,))
            if one.name.startswith(("mel_", "stat_"))
            else one
            for one in VOICE_OUTPUTS
        )
        super().__init__("voice", name, inputs, outputs)
        self.sound = sound
        self.head_preset = head
        self.front = WhisperFront(sound)
        self.prior_mean: Tensor
        self.prior_istd: Tensor
        self.register_buffer("prior_mean", torch.zeros(self.width))
        self.register_buffer("prior_istd", torch.ones(self.width))
        self.head = StatisticsHead(self.width, head)
        self.speech = SpeechJudge(widths[-1] + BANDS, head.speech_hidden)

    @property
    def listened(self) -> int:
        """So many of the statistics, the first ones, are of features that learnt from labels."""
        return 0

    def believe(self, mean: Tensor, deviation: Tensor) -> None:
        """Take over what the statistics of the corpora are: the prior of every speaker."""
        self.prior_mean.copy_(mean)
        self.prior_istd.copy_(1.0 / deviation.clamp(min=_LEAST_DEVIATION))

    def recipe(self) -> dict[str, int]:
        """What the manifest says of the sound."""
        sound = self.sound
        return {
            "sample_rate": SAMPLE_RATE,
            "piece": sound.piece,
            "hop": sound.hop,
            "lead": sound.lead,
        }

    def layers(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        """(n, moments, width) each: what stands still while everything behind it learns."""
        raise NotImplementedError

    def features(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        """(n, moments, width) each: what statistics are of."""
        return self.layers(log_mel)

    def forward(self, samples: Tensor, mean: Tensor, istd: Tensor) -> VoiceAnswer:
        log_mel = self.front(samples)
        features = self.features(log_mel)
        found = self.statistics(log_mel, features)
        vector, score, logits = self.head((found - mean) * istd)
        speech = self.speech(self.newest(log_mel, features[-1]))
        return VoiceAnswer(vector, score, logits, speech, found, found * found)

    def statistics(self, log_mel: Tensor, features: tuple[Tensor, ...]) -> Tensor:
        """(n, width): mean and deviation over what is heard of the piece.

        In the measure of the corpora: a speaker nobody has heard yet has mean zero and deviation one.
        """
        return (self.raw_statistics(log_mel, features) - self.prior_mean) * self.prior_istd

    def raw_statistics(self, log_mel: Tensor, features: tuple[Tensor, ...]) -> Tensor:
        """(n, width): the same in the features' own measure."""
        return over_time(features, heard_share(log_mel))

    def newest(self, log_mel: Tensor, features: Tensor) -> Tensor:
        """(n, features + bands): means over the newest part of the piece."""
        frames = self.sound.hop // STEP
        return torch.cat([features[:, -(frames // 2) :].mean(1), log_mel[:, :, -frames:].mean(2)], dim=1)


def over_time(features: Sequence[Tensor], share: Tensor) -> Tensor:
    """(n, width): mean and deviation of each under the shares (n, moments) of the moments."""
    return torch.cat([part for one in features for part in _moments(one, share[:, :, None])], dim=1)


def _moments(features: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    mean = (features * share).sum(1)
    variance = ((features - mean[:, None]) ** 2 * share).sum(1)
    return mean, (variance + _LEAST_VARIANCE).sqrt()


@dataclass(frozen=True, slots=True)
class StudentPreset:
    """A student as a table."""

    name: str
    sound: WhisperSound
    stem: int
    """Width at 10 ms."""
    width: int
    """Width at 20 ms, of every block and of the features."""
    dilations: tuple[int, ...]
    """One block each."""
    reach: int = 9
    """Moments that a block's depth-wise kernel sees, apart by its dilation."""
    grow: int = 3
    head: HeadPreset = field(default_factory=lambda: HeadPreset(hidden=128))


class StudentBlock(nn.Module):
    """Along time channel by channel, then across channels, added to what was there."""

    def __init__(self, width: int, grow: int, reach: int, dilation: int) -> None:
        super().__init__()
        along = nn.Conv2d(
            width,
            width,
            (1, reach),
            padding=(0, dilation * (reach // 2)),
            dilation=(1, dilation),
            groups=width,
            bias=False,
        )
        self.along = ConvNorm(along, relu=False)
        self.wide = nn.Conv2d(width, grow * width, 1)
        self.narrow = nn.Conv2d(grow * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.narrow(torch.relu(self.wide(self.along(x))))
        return out


class StudentTrunk(nn.Module):
    """(n, 80, frames) of log-mel to (n, moments, width)."""

    def __init__(self, preset: StudentPreset) -> None:
        super().__init__()
        stem, width = preset.stem, preset.width
        self.stem = nn.Sequential(
            ConvNorm(nn.Conv2d(BANDS, stem, (1, 5), padding=(0, 2), bias=False)),
            # As Whisper's second convolution: moment t sees frames 2t - 1 to 2t + 1.
            ConvNorm(nn.Conv2d(stem, width, (1, 3), (1, 2), padding=(0, 1), bias=False)),
        )
        self.blocks = nn.Sequential(
            *(StudentBlock(width, preset.grow, preset.reach, dilation) for dilation in preset.dilations)
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        found: Tensor = self.blocks(self.stem(log_mel[:, :, None]))
        return found[:, :, 0].transpose(1, 2)


class VoiceStudent(StatisticsVoice):
    """The voice network whose features are learnt from Whisper's."""

    def __init__(self, preset: StudentPreset) -> None:
        super().__init__(preset.name, preset.sound, (preset.width,), preset.head)
        self.preset = preset
        self.trunk = StudentTrunk(preset)

    def layers(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        return (self.trunk(log_mel),)


_POSITIONS = 1500
FOREIGN = "ears."
"""What the names of Whisper's tensors begin with in a network that stands on it."""


@dataclass(frozen=True, slots=True)
class ListenerPreset:
    """A listener as a table."""

    width: int = 128
    blocks: int = 2
    reach: int = 9
    grow: int = 2


class ListenerBlock(nn.Module):
    """As a block of the student, behind a norm of every moment."""

    def __init__(self, preset: ListenerPreset) -> None:
        super().__init__()
        width = preset.width
        self.norm = nn.LayerNorm(width)
        self.along = nn.Conv1d(width, width, preset.reach, padding=preset.reach // 2, groups=width)
        self.wide = nn.Linear(width, preset.grow * width)
        self.narrow = nn.Linear(preset.grow * width, width)

    def forward(self, x: Tensor) -> Tensor:
        along = self.along(self.norm(x).transpose(1, 2)).transpose(1, 2)
        out: Tensor = x + self.narrow(functional.gelu(self.wide(along)))
        return out


class Listener(nn.Module):
    """(n, moments, width) of all of Whisper's layers to fewer features that know what is around them."""

    def __init__(self, inputs: int, preset: ListenerPreset) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, preset.width)
        self.blocks = nn.Sequential(*(ListenerBlock(preset) for _ in range(preset.blocks)))

    def forward(self, moments: Tensor) -> Tensor:
        found: Tensor = self.blocks(self.enter(moments))
        return found


@dataclass(frozen=True, slots=True)
class WhisperPreset:
    """How much of which Whisper, and what stands on it."""

    name: str
    sound: WhisperSound
    whisper: str
    """Its size, such as 'tiny.en'."""
    layers: int
    """The first so many of the encoder are computed, and the statistics of each are looked at."""
    listener: ListenerPreset = field(default_factory=ListenerPreset)
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
        widths = (preset.listener.width, *(model.width,) * preset.layers)
        super().__init__(preset.name, preset.sound, widths, preset.head)
        self.preset = preset
        self.ears = Ears(model, preset.layers, preset.sound.moments)
        self.ears.requires_grad_(False)
        self.listener = Listener(model.width * preset.layers, preset.listener)

    def layers(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = self.ears(log_mel)
        return found

    def features(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        return self.heard(self.layers(log_mel))

    @property
    def listened(self) -> int:
        return 2 * self.preset.listener.width

    def heard(self, layers: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The listener's features before those of the layers."""
        return (self.listener(torch.cat(layers, dim=2)), *layers)


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
