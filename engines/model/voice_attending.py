"""What the convolutional voice networks share: attention chooses among cells of what they saw of a piece."""

from __future__ import annotations

from torch import Tensor

from liveaffect.engines.model.frontend import SoundFront
from liveaffect.engines.model.heads import Classifier, PooledVector, SpeechHead, VoiceAnswer, VoiceNetwork


class AttendingVoice(VoiceNetwork):
    """Samples and speaker statistics in; vector, score, logits, speech and sums out."""

    front: SoundFront
    to_vector: PooledVector
    to_logits: Classifier
    to_speech: SpeechHead

    def forward(self, samples: Tensor, mean: Tensor, istd: Tensor) -> VoiceAnswer:
        sound = self.front(samples, mean, istd)
        attended, score = self.attend(sound.picture)
        vector = self.to_vector(attended)
        return VoiceAnswer(
            vector=vector,
            score=score,
            logits=self.to_logits(vector),
            speech=self.to_speech(vector, sound.mean(), sound.spread()),
            stat_sum=sound.stat_sum,
            stat_sumsq=sound.stat_sumsq,
        )

    def attend(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """(n, width) and (n, 1): what attention made of the picture's cells, and the score."""
        raise NotImplementedError
