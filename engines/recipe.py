"""What live use, training and calibration must do alike: labels, crop, sound pieces, speaker statistics.

NumPy only. Anything that is written a second time elsewhere would drift from what the networks were
trained on, so both sides import it from here. `RECIPE` numbers go into every manifest; changing the
meaning of one of them is a new number, never a silent edit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines import LABELS as LABELS

SUBSETS = ("face", "voice", "face+voice")
"""Which evidence a fused answer can rest on."""

CORPUS_LABELS: dict[str, dict[str, str | None]] = {
    "ravdess": {
        "01": "neutral",
        "02": "neutral",  # calm
        "03": "happy",
        "04": "sad",
        "05": "angry",
        "06": "fearful",
        "07": "disgusted",
        "08": "surprised",
    },
    "nemo": {
        "neutral": "neutral",
        "happiness": "happy",
        "sadness": "sad",
        "anger": "angry",
        "fear": "fearful",
        "surprised": "surprised",
    },
    "emodb": {
        "N": "neutral",
        "F": "happy",
        "T": "sad",
        "W": "angry",
        "A": "fearful",
        "E": "disgusted",
        "L": None,  # boredom
    },
    "crema-d": {
        "NEU": "neutral",
        "HAP": "happy",
        "SAD": "sad",
        "ANG": "angry",
        "FEA": "fearful",
        "DIS": "disgusted",
    },
    "fer+": {
        "neutral": "neutral",
        "happiness": "happy",
        "surprise": "surprised",
        "sadness": "sad",
        "anger": "angry",
        "disgust": "disgusted",
        "fear": "fearful",
        "contempt": None,
        "unknown": None,
        "NF": None,  # no face
    },
}
"""What each corpus calls the seven, in its own file names or, for FER+, in the order of its columns of votes;
None is left out on purpose."""

CROP = 1
"""Version of the crop template below."""
CROP_SIZE = 64
EYE_IMAGE_LEFT = (0.315, 0.39)
"""Where the eye that lies left in the picture is put, as a share of the crop's side."""
EYE_IMAGE_RIGHT = (0.69, 0.39)

SAMPLE_RATE = 16_000
PIECE = 6_600
"""Samples in one piece of sound: 32 STFT frames of 400 samples, 200 apart, uncentred."""
HOP = 3_200
"""Samples between the starts of two pieces."""
STFT_WINDOW = 400
STFT_STEP = 200
STFT_FRAMES = 1 + (PIECE - STFT_WINDOW) // STFT_STEP
MEL_BANDS = 64
LOG_FLOOR = 1e-6
"""Added to the mel power before the logarithm."""

STATISTICS_DECAY_S = 10.0
"""After this many seconds of speech an old frame counts 1/e of a new one."""
_BAND = np.arange(MEL_BANDS)
PRIOR_MEAN = np.interp(
    _BAND, (0, 3, 6, 10, 16, 24, 44, 56, 63), (-8.2, -4.8, -1.8, -2.7, -4.2, -5.3, -6.5, -8.3, -10.0)
)
"""Log-mel mean, band by band, of a speaker nobody has heard yet: that of acted speech, rounded."""
PRIOR_VARIANCE = np.interp(_BAND, (0, 4, 16, 32, 44, 60, 63), (4.0, 9.0, 12.0, 10.0, 10.0, 9.0, 7.0))
PRIOR_WEIGHT_S = 1.0
"""The prior counts as much as this many seconds of speech."""
MIN_VARIANCE = 0.25


def crop_matrix(eye_left: NDArray[np.floating], eye_right: NDArray[np.floating]) -> NDArray[np.float64]:
    """The 2x3 similarity that maps picture coordinates to crop coordinates, eyes level and in place.

    `eye_left` is the eye that lies left in the picture. Raises ValueError if the eyes coincide.
    """
    source = np.asarray(eye_right, np.float64) - np.asarray(eye_left, np.float64)
    length_squared = float(source @ source)
    if not length_squared > 1e-6:
        raise ValueError(f"the eyes {eye_left} and {eye_right} coincide; no crop can be placed on them")
    wanted = (np.subtract(EYE_IMAGE_RIGHT, EYE_IMAGE_LEFT)) * CROP_SIZE
    # The complex quotient wanted / source is the rotation and the scale in one number.
    cos = float(wanted @ source) / length_squared
    sin = float(wanted[1] * source[0] - wanted[0] * source[1]) / length_squared
    turn = np.array([[cos, -sin], [sin, cos]])
    # Pixel centres lie at whole coordinates, so the side 0..1 spans -0.5..size-0.5.
    anchor = np.multiply(EYE_IMAGE_LEFT, CROP_SIZE) - 0.5
    shift = anchor - turn @ np.asarray(eye_left, np.float64)
    return np.column_stack([turn, shift])


@dataclass(slots=True, eq=False)
class SpeakerStatistics:
    """Running mean and variance of one speaker's log-mel, speech frames only, with forgetting.

    The voice network normalises with these. They are updated *after* a piece was analysed, so the
    network never sees its own future; training replays the same object from cold.
    """

    weight: float
    """Frames of speech behind the sums, old ones forgotten."""
    total: NDArray[np.float64]
    total_sq: NDArray[np.float64]

    @classmethod
    def cold(
        cls,
        mean: NDArray[np.floating] | float = PRIOR_MEAN,
        variance: NDArray[np.floating] | float = PRIOR_VARIANCE,
    ) -> SpeakerStatistics:
        """A speaker nobody has heard yet: the corpus priors with a small weight."""
        weight = PRIOR_WEIGHT_S * SAMPLE_RATE / STFT_STEP
        mean_v = np.broadcast_to(np.asarray(mean, np.float64), (MEL_BANDS,))
        square = np.broadcast_to(np.asarray(variance, np.float64), (MEL_BANDS,)) + mean_v**2
        return cls(weight=weight, total=mean_v * weight, total_sq=square * weight)

    def normaliser(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`mean` and `istd` (one over the standard deviation) as the voice graph takes them."""
        mean = self.total / self.weight
        variance = np.maximum(self.total_sq / self.weight - mean**2, MIN_VARIANCE)
        return mean.astype(np.float32), (1.0 / np.sqrt(variance)).astype(np.float32)

    def add(
        self,
        mel_sum: NDArray[np.floating],
        mel_sumsq: NDArray[np.floating],
        *,
        speech: float,
        frames: float,
    ) -> None:
        """Take in one piece: its log-mel sums, how much of it was speech (0..1), and how many frames are new.

        Overlapping pieces pass `frames` = the hop's frames, so that no frame counts twice. Sums over the
        whole piece are scaled to that share; longer pieces report sums scaled to STFT_FRAMES. A piece with
        a number that is not finite is left out.
        """
        new = float(frames) * float(np.clip(speech, 0.0, 1.0))
        if not 0 < new < np.inf or not (np.isfinite(mel_sum).all() and np.isfinite(mel_sumsq).all()):
            return
        keep = float(np.exp(-new * STFT_STEP / SAMPLE_RATE / STATISTICS_DECAY_S))
        share = new / STFT_FRAMES
        self.weight = self.weight * keep + new
        self.total = self.total * keep + np.asarray(mel_sum, np.float64) * share
        self.total_sq = self.total_sq * keep + np.asarray(mel_sumsq, np.float64) * share

    def copy(self) -> SpeakerStatistics:
        """An independent copy."""
        return SpeakerStatistics(self.weight, self.total.copy(), self.total_sq.copy())
