"""Voice networks that judge by statistics over time: what all of them have behind their features.

Mean and deviation of every feature over the moments of a piece say how somebody speaks and little of what.
What the same speaker's pieces have in common is taken away, and a small head says the rest. The statistics
are what a stream keeps running sums of, so the network hands them out as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from liveaffect.engines.model.heads import Network
from liveaffect.engines.model.whisper_front import BANDS, STEP, WhisperFront, WhisperSound, heard_share
from liveaffect.engines.protocol import VECTOR, VOICE_INPUTS, VOICE_OUTPUTS
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE

_FARTHEST = 6.0
"""A statistic counts at most this many of the speaker's deviations."""
_LEAST_VARIANCE = 1e-6
_LEAST_DEVIATION = 1e-3


class StatisticsAnswer(NamedTuple):
    """In the order of the outputs."""

    vector: Tensor
    score: Tensor
    logits: Tensor
    speech: Tensor
    stat_sum: Tensor
    stat_sumsq: Tensor


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

    def features(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        """(n, moments, width) each."""
        raise NotImplementedError

    def forward(self, samples: Tensor, mean: Tensor, istd: Tensor) -> StatisticsAnswer:
        log_mel = self.front(samples)
        features = self.features(log_mel)
        found = self.statistics(log_mel, features)
        vector, score, logits = self.head((found - mean) * istd)
        speech = self.speech(self.newest(log_mel, features[-1]))
        return StatisticsAnswer(vector, score, logits, speech, found, found * found)

    def statistics(self, log_mel: Tensor, features: tuple[Tensor, ...]) -> Tensor:
        """(n, width): mean and deviation over what is heard of the piece.

        In the measure of the corpora: a speaker nobody has heard yet has mean zero and deviation one.
        """
        return (self.raw_statistics(log_mel, features) - self.prior_mean) * self.prior_istd

    def raw_statistics(self, log_mel: Tensor, features: tuple[Tensor, ...]) -> Tensor:
        """(n, width): the same in the features' own measure."""
        share = heard_share(log_mel)[:, :, None]
        return torch.cat([part for one in features for part in _moments(one, share)], dim=1)

    def newest(self, log_mel: Tensor, features: Tensor) -> Tensor:
        """(n, features + bands): means over the newest part of the piece."""
        frames = self.sound.hop // STEP
        return torch.cat([features[:, -(frames // 2) :].mean(1), log_mel[:, :, -frames:].mean(2)], dim=1)


def _moments(features: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    mean = (features * share).sum(1)
    variance = ((features - mean[:, None]) ** 2 * share).sum(1)
    return mean, (variance + _LEAST_VARIANCE).sqrt()
