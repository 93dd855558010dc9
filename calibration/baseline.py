"""What one person's neutral face and voice look like to a network, as numbers that set its answers right.

Some faces look sad at rest, some voices angry. The mean log-probabilities m of a neutral stretch say how far
every label stands below neutral on this person; one usual distance holds for everybody. The shift of a
label's logit takes back a share of the difference:

    shift[label] = -trust * clip(m[label] - m[neutral] + usual, -most, most),    shift[neutral] = 0
    trust        = seconds / (seconds + doubt)

So a label that this face pretends is lowered, one that it hides is raised, little evidence moves little, and
nothing moves by more than `most`. With the voice go mean and variance of its sound, so that the network
need not learn them anew in every run. No picture and no sound is in it, and none can be made from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.recipe import LABELS, MEL_BANDS, SAMPLE_RATE, STFT_STEP, SpeakerStatistics

FORMAT = 1
LEAST_S: Mapping[str, float] = {"face": 2.0, "voice": 1.5}
"""Less is refused."""
LEAST_READINGS = 4
SEED_SHARE = 0.5
"""A voice begins half way between an average speaker and what was measured: neutral is not all it does."""

Values = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Terms:
    """The constants of the formula."""

    usual: float
    """So many nats a label stands below neutral when somebody is neutral."""
    most: float
    doubt_s: float
    """Evidence of this length is trusted by half."""


TERMS: Mapping[str, Terms] = {"face": Terms(2.0, 2.0, 3.0), "voice": Terms(1.0, 1.0, 6.0)}
"""Chosen by trial, see docs/personal.md. Voices are judged in their own statistics, so less is left to do."""


class BaselineRefused(ValueError):
    """What was measured or read does not do; the message says why and what would."""


@dataclass(frozen=True, slots=True)
class Side:
    """Face or voice of one person at rest."""

    network: str
    """Which network said it; another one errs in another way."""
    shift: tuple[float, ...]
    """To be added to its logits, in the order of LABELS."""
    seconds: float

    def __post_init__(self) -> None:
        if len(self.shift) != len(LABELS):
            raise BaselineRefused(f"a shift has {len(LABELS)} numbers, not {len(self.shift)}")
        most = max(terms.most for terms in TERMS.values())
        if not all(math.isfinite(value) and abs(value) <= most for value in self.shift):
            raise BaselineRefused(f"a shift lies between -{most} and {most}: {list(self.shift)}")
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise BaselineRefused(f"{self.seconds} s is no length")


@dataclass(frozen=True, slots=True)
class Sound:
    """Mean and variance of a voice, band by band, and how much of it was heard."""

    mean: tuple[float, ...]
    variance: tuple[float, ...]
    seconds: float

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("variance", self.variance)):
            if len(values) != MEL_BANDS or not all(map(math.isfinite, values)):
                raise BaselineRefused(f"the {name} of a voice is {MEL_BANDS} finite numbers")
        if min(self.variance) <= 0 or not (math.isfinite(self.seconds) and 0 < self.seconds <= 60):
            raise BaselineRefused("a variance is positive, and so is the time it was heard")

    def statistics(self) -> SpeakerStatistics:
        """Statistics to begin with, which count as little as those of a speaker nobody has heard yet."""
        begin, heard = SpeakerStatistics.cold(), np.array(self.mean)
        square = np.array(self.variance) + np.square(heard)
        begin.total += SEED_SHARE * (heard * begin.weight - begin.total)
        begin.total_sq += SEED_SHARE * (square * begin.weight - begin.total_sq)
        return begin


@dataclass(frozen=True, slots=True)
class Baseline:
    """All that is kept of one person."""

    sides: Mapping[str, Side] = field(default_factory=dict)
    """'face', 'voice', or both."""
    sound: Sound | None = None

    def __post_init__(self) -> None:
        if not self.sides:
            raise BaselineRefused("a profile holds a face or a voice; this one is empty")

    def check(self, networks: Mapping[str, str]) -> None:
        """Raise BaselineRefused unless these networks made it; a modality that is not judged is no matter."""
        for modality, side in self.sides.items():
            present = networks.get(modality)
            if present is not None and present != side.network:
                raise BaselineRefused(
                    f"it was measured with another {modality} network ({side.network}, this is {present})"
                )

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; rounded, so that the file stays readable."""
        out: dict[str, Any] = {"format": FORMAT}
        for modality, side in self.sides.items():
            shift = [round(value, 4) for value in side.shift]
            out[modality] = {"network": side.network, "shift": shift, "seconds": round(side.seconds, 2)}
        if self.sound is not None:
            mean, variance = ([round(v, 4) for v in band] for band in (self.sound.mean, self.sound.variance))
            out["sound"] = {"mean": mean, "variance": variance, "seconds": round(self.sound.seconds, 2)}
        return out


def from_json(content: object) -> Baseline:
    """The way back. Raises BaselineRefused, which says what is wrong."""
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise BaselineRefused("it does not say its format")
    if content["format"] != FORMAT:
        raise BaselineRefused(f"it has format {content['format']}, and this version knows {FORMAT}")
    unknown = set(content) - {"format", "sound", *TERMS}
    if unknown:
        raise BaselineRefused(f"it holds {', '.join(sorted(unknown))}, which no profile does")
    try:
        sides = {
            name: Side(str(part["network"]), _numbers(part["shift"]), float(part["seconds"]))
            for name in TERMS
            if (part := content.get(name)) is not None
        }
        sound = content.get("sound")
        if sound is None:
            return Baseline(sides)
        heard = Sound(_numbers(sound["mean"]), _numbers(sound["variance"]), float(sound["seconds"]))
        return Baseline(sides, heard)
    except BaselineRefused:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BaselineRefused(f"something in it is wrong ({type(error).__name__}: {error})") from error


def measure(modality: str, network: str, logits: Sequence[Values], seconds: float) -> Side:
    """The shift that a neutral stretch asks for; `logits` are those of single crops or pieces of sound.

    Raises BaselineRefused for too little, or for numbers that are none.
    """
    if len(logits) < LEAST_READINGS or seconds < LEAST_S[modality]:
        raise BaselineRefused(
            f"only {len(logits)} readings of the {modality} over {seconds:.1f} s; "
            f"{LEAST_READINGS} over {LEAST_S[modality]:.1f} s are needed"
        )
    stacked = np.stack([np.asarray(row, np.float64) for row in logits])
    if stacked.shape[1:] != (len(LABELS),) or not np.isfinite(stacked).all():
        raise BaselineRefused(
            f"the {modality} network gave readings that are no {len(LABELS)} finite numbers"
        )
    return Side(network, shift_of(modality, log_softmax(stacked).mean(axis=0), seconds), seconds)


def shift_of(modality: str, mean_log: Values, seconds: float) -> tuple[float, ...]:
    """The formula above."""
    terms = TERMS[modality]
    trust = seconds / (seconds + terms.doubt_s)
    shift = -trust * np.clip(mean_log - mean_log[0] + terms.usual, -terms.most, terms.most)
    shift[0] = 0.0
    return tuple(shift.tolist())


def sound_of(statistics: SpeakerStatistics) -> Sound:
    """What is kept of a speaker's running statistics."""
    mean, istd = statistics.normaliser()
    variance = 1.0 / np.square(istd.astype(np.float64))
    seconds = statistics.weight * STFT_STEP / SAMPLE_RATE
    return Sound(tuple(map(float, mean)), tuple(map(float, variance)), seconds)


def log_softmax(logits: Values) -> NDArray[np.float64]:
    """Log-probabilities of every row."""
    raised = np.asarray(logits, np.float64)
    raised = raised - raised.max(axis=-1, keepdims=True)
    return np.asarray(raised - np.log(np.exp(raised).sum(axis=-1, keepdims=True)), np.float64)


def _numbers(values: object) -> tuple[float, ...]:
    if not isinstance(values, list) or any(isinstance(value, bool) for value in values):
        raise TypeError(f"{values!r:.40} is no list of numbers")
    return tuple(float(value) for value in values)
