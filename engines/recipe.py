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

_BAND = np.arange(MEL_BANDS)
PRIOR_MEAN = np.interp(
    _BAND, (0, 3, 6, 10, 16, 24, 44, 56, 63), (-8.2, -4.8, -1.8, -2.7, -4.2, -5.3, -6.5, -8.3, -10.0)
)
"""Log-mel mean, band by band, of a speaker nobody has heard yet: that of acted speech, rounded."""
PRIOR_VARIANCE = np.interp(_BAND, (0, 4, 16, 32, 44, 60, 63), (4.0, 9.0, 12.0, 10.0, 10.0, 9.0, 7.0))
STATISTICS_DECAY_S = 10.0
"""After this many seconds of speech an old frame counts 1/e of a new one."""
PRIOR_WEIGHT_S = 1.0
"""The prior counts as much as this many seconds of speech."""
MIN_VARIANCE = 0.25
COUNTS = ("frames", "pieces")
_PIECE_S = 0.4
"""What one piece brings, where pieces are counted."""
_PRIOR_PIECES, _DECAY_PIECES, _LEAST_VARIANCE_OF_PIECES = 16.0, 300.0, 0.1
_ENOUGH_S = 0.8
"""A piece with so much speech in it counts fully, where pieces are counted."""


def hops_in(piece: int, hop: int) -> int:
    """How many hops a piece reaches over, the oldest of them perhaps in part."""
    return -(-piece // hop)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a voice network keeps of a speaker: how many numbers, and whether of frames or of whole pieces.

    Frames are those of a log-mel of 64 bands, whose priors stand above; what is kept of them moves with the
    speaker. Of pieces a network says features in the measure of its own corpora, so their prior is mean zero
    and deviation one, and they move slowly: a mood that lasts must not be normalised away.
    """

    width: int = MEL_BANDS
    counts: str = "frames"

    def __post_init__(self) -> None:
        if self.counts not in COUNTS or self.width < 1 or (self.by_frames and self.width != MEL_BANDS):
            raise ValueError(
                f"statistics of {self.width} numbers a {self.counts} are not known; of frames there are "
                f"{MEL_BANDS}, of pieces any number"
            )

    @property
    def by_frames(self) -> bool:
        """Whether frames are counted."""
        return self.counts == "frames"

    @property
    def prior_weight(self) -> float:
        """The prior counts as much as so many."""
        return PRIOR_WEIGHT_S / self.unit_s if self.by_frames else _PRIOR_PIECES

    @property
    def decay(self) -> float:
        """After so many an old one counts 1/e of a new one; of pieces: two minutes of speech."""
        return STATISTICS_DECAY_S / self.unit_s if self.by_frames else _DECAY_PIECES

    @property
    def least_variance(self) -> float:
        """No deviation is believed to be smaller than its root."""
        return MIN_VARIANCE if self.by_frames else _LEAST_VARIANCE_OF_PIECES

    @property
    def prior(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance of a speaker nobody has heard yet."""
        if self.by_frames:
            return PRIOR_MEAN, PRIOR_VARIANCE
        return np.zeros(self.width), np.ones(self.width)

    def new(self, hop: int) -> float:
        """How many a piece brings that were in none before it."""
        return hop / STFT_STEP if self.by_frames else 1.0

    def weights(self, shares: NDArray[np.floating], piece: int, hop: int) -> NDArray[np.float32]:
        """(pieces,): how much each piece of a stream counts, by the share of speech in what was new in each.

        Frames count as often as they are speech. A piece counts by all the speech in it, old and new: by its
        newest part alone the end of a sentence would be heard in one piece only, its beginning in all.
        """
        shares = np.asarray(shares, np.float32)
        if self.by_frames:
            return shares
        heard = np.convolve(shares, np.ones(hops_in(piece, hop)))[: len(shares)] * (hop / SAMPLE_RATE)
        return np.asarray(np.clip(heard / min(_ENOUGH_S, piece / SAMPLE_RATE), 0.0, 1.0), np.float32)

    @property
    def in_sum(self) -> float:
        """How many the sums that a network hands out are over."""
        return float(STFT_FRAMES) if self.by_frames else 1.0

    @property
    def unit_s(self) -> float:
        """Seconds of speech that one stands for."""
        return STFT_STEP / SAMPLE_RATE if self.by_frames else _PIECE_S

    @classmethod
    def of_width(cls, width: int) -> Statistics:
        """Those of a network whose inputs are all that is known of it."""
        return cls() if width == MEL_BANDS else cls(width, "pieces")


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


FRAMES = Statistics()
"""Of log-mel, as most networks have it."""


@dataclass(slots=True, eq=False)
class SpeakerStatistics:
    """Running mean and variance of what one speaker's speech is like, with forgetting.

    The voice network normalises with these. They are updated *after* a piece was analysed, so the
    network never sees its own future; training replays the same object from cold.
    """

    weight: float
    """Frames or pieces of speech behind the sums, old ones forgotten."""
    total: NDArray[np.float64]
    total_sq: NDArray[np.float64]
    kept: Statistics = FRAMES

    @classmethod
    def cold(
        cls,
        mean: NDArray[np.floating] | float | None = None,
        variance: NDArray[np.floating] | float | None = None,
        kept: Statistics | None = None,
    ) -> SpeakerStatistics:
        """A speaker nobody has heard yet: the corpus priors, or others, with a small weight."""
        kept = kept or FRAMES
        prior_mean, prior_variance = kept.prior
        weight = kept.prior_weight
        mean_v = np.broadcast_to(np.asarray(prior_mean if mean is None else mean, np.float64), kept.width)
        square = np.broadcast_to(np.asarray(prior_variance if variance is None else variance), kept.width)
        return cls(weight, mean_v * weight, (square + mean_v**2) * weight, kept)

    def normaliser(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`mean` and `istd` (one over the standard deviation) as the voice graph takes them."""
        mean = self.total / self.weight
        variance = np.maximum(self.total_sq / self.weight - mean**2, self.kept.least_variance)
        return mean.astype(np.float32), (1.0 / np.sqrt(variance)).astype(np.float32)

    def add(
        self,
        stat_sum: NDArray[np.floating],
        stat_sumsq: NDArray[np.floating],
        *,
        speech: float,
        new: float,
    ) -> None:
        """Take in one piece: its sums, how much of it was speech (0..1), how many frames or pieces are new.

        Overlapping pieces pass the hop's frames as `new`, so that no frame counts twice. Sums over the
        whole piece are scaled to that share; longer pieces report sums scaled to STFT_FRAMES. A piece with
        a number that is not finite is left out.
        """
        new = float(new) * float(np.clip(speech, 0.0, 1.0))
        if not 0 < new < np.inf or not (np.isfinite(stat_sum).all() and np.isfinite(stat_sumsq).all()):
            return
        keep = float(np.exp(-new / self.kept.decay))
        share = new / self.kept.in_sum
        self.weight = self.weight * keep + new
        self.total = self.total * keep + np.asarray(stat_sum, np.float64) * share
        self.total_sq = self.total_sq * keep + np.asarray(stat_sumsq, np.float64) * share

    def copy(self) -> SpeakerStatistics:
        """An independent copy."""
        return SpeakerStatistics(self.weight, self.total.copy(), self.total_sq.copy(), self.kept)
