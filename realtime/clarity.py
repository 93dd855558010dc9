"""How clearly a voice stands out of its sound: signal against noise, and clipping.

The counterpart of a face's size and light. Noise is what remains when nobody speaks, even between two
words: the quietest tenth of the last seconds. Nothing is asked of a network, so a voice network that was
fooled by noise cannot vouch for itself. Pure: no clock, one caller.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NOISY_DB, CLEAR_DB = 0.0, 12.0
"""Speech this far above the noise counts nothing, or fully."""
CLIPPED, WHOLE = 0.03, 0.004
"""Share of samples that lie at the peak of their piece. Speech has next to none there; 3 % is a flat top."""
PEAK_SHARE = 0.985
"""From this share of its peak on a sample lies at the peak."""
LITTLE_S, ENOUGH_S = 0.0, 2.0
"""So much speech counts nothing, or fully, when a voice is weighed against a face."""
GOOD_ENOUGH = 0.5
"""Below this a measure is named as the weakness."""
_FRAME = 320
_FRAMES_KEPT = 200
"""Four seconds of 20 ms."""
_QUIET = 0.1
_FLOOR = 1e-10
"""Below 16 bits of silence."""
_PIECES = 5


@dataclass(frozen=True, slots=True)
class Clarity:
    """How much a voice can be trusted."""

    score: float
    """0..1, the worse of its measures."""
    weakness: str | None
    """'voice noisy' or 'voice clipped'; None when nothing is wrong."""


CLEAR = Clarity(1.0, None)
"""As long as nothing speaks against it."""


class ClarityMeter:
    """Judges the pieces of one microphone in their order."""

    def __init__(self) -> None:
        self._powers: deque[float] = deque(maxlen=_FRAMES_KEPT)
        self._judged: deque[tuple[float, float]] = deque(maxlen=_PIECES)

    def hear(self, samples: NDArray[np.floating], new: int, *, speech: bool) -> None:
        """Take in the last `new` samples of a piece, the others were heard before; `speech` is judged."""
        samples = samples[-new:]
        powers = frame_powers(samples)
        self._powers.extend(powers.tolist())
        if speech:
            noise = float(np.quantile(np.fromiter(self._powers, np.float64), _QUIET))
            self._judged.append((signal_to_noise_db(powers, noise), clipped_share(samples)))

    def read(self) -> Clarity:
        """The last second of speech; perfect before the first piece."""
        if not self._judged:
            return CLEAR
        ratio_db, clipped = np.mean(self._judged, axis=0)
        measures = {
            "voice noisy": _share_within(float(ratio_db), NOISY_DB, CLEAR_DB),
            "voice clipped": 1.0 - _share_within(float(clipped), WHOLE, CLIPPED),
        }
        name, worst = min(measures.items(), key=lambda item: item[1])
        return Clarity(worst, name if worst < GOOD_ENOUGH else None)


def evidence_share(speech_s: float) -> float:
    """How much a voice of which so much speech was heard counts beside a face."""
    return _share_within(speech_s, LITTLE_S, ENOUGH_S)


def frame_powers(samples: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean power of every whole 20 ms."""
    whole = len(samples) // _FRAME * _FRAME
    frames = np.asarray(samples[len(samples) - whole :], np.float64).reshape(-1, _FRAME)
    return np.asarray(np.mean(np.square(frames), axis=1), np.float64)


def signal_to_noise_db(powers: NDArray[np.float64], noise: float) -> float:
    """Of the louder half of a piece, its noise taken off."""
    louder = float(np.sort(powers)[len(powers) // 2 :].mean())
    return 10.0 * float(np.log10(max(louder - noise, _FLOOR) / max(noise, _FLOOR)))


def clipped_share(samples: NDArray[np.floating]) -> float:
    """Share of samples that lie at the peak of the piece."""
    height = np.abs(samples)
    peak = float(height.max()) if len(height) else 0.0
    return float(np.mean(height >= PEAK_SHARE * peak)) if peak > 1e-4 else 0.0


def _share_within(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))
