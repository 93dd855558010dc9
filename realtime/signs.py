"""What picture and sound tell of a talker without a network: two signs of talking, and how clear it is.

People who listen move their mouths too, so how *much* a mouth moves says little. The sign tells talkers
apart: a jaw goes down while its own voice swells and comes up while it fades. So motion is measured as a
signed opening, and sound in the band that follows the opening of the mouth.

Clarity is the counterpart of a face's size and light. Noise is what remains when nobody speaks, even
between two words: the quietest tenth of the last seconds. Nothing is asked of a network, so a voice network
that was fooled by noise cannot vouch for itself. Pure: no clock, one caller.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import MS, SECOND

ENERGY_STEP_NS = 20 * MS
"""Time between two values of `SpeechEnergy`."""
_STEP = SAMPLE_RATE * ENERGY_STEP_NS // SECOND
_WINDOW = 480
_FFT = 512
_BAND = slice(13, 52)
"""FFT bins from 400 to 1600 Hz: where the first two resonances follow the opening of the mouth."""

_CHIN = (22, 42, 52, 61)
_UPPER_FACE = (16, 48, 22, 40)
"""x from, x to, y from, y to in the crop. Eyes and nose bridge move with the head and not with speech."""
_REACH_PX = 3
_POOR_MATCH = 0.5


def mouth_motion(previous: NDArray[np.uint8], crop: NDArray[np.uint8]) -> float:
    """How far the chin moved down against the upper face, in crop pixels; negative when the mouth closes.

    Both crops are aligned RGB faces of one track. Matching by normalised correlation makes it blind to
    brightness and contrast; subtracting the upper face takes out head motion and misalignment. Where
    nothing can be matched (a hand, a flat picture) the answer is 0.
    """
    before = cv2.cvtColor(previous, cv2.COLOR_RGB2GRAY)
    after = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    chin = _shift_down(before, after, _CHIN)
    head = _shift_down(before, after, _UPPER_FACE)
    return 0.0 if chin is None or head is None else chin - head


def _shift_down(before: NDArray[Any], after: NDArray[Any], box: tuple[int, int, int, int]) -> float | None:
    x0, x1, y0, y1 = box
    field = after[y0 - _REACH_PX : y1 + _REACH_PX, x0 - 1 : x1 + 1]
    match = cv2.matchTemplate(field, before[y0:y1, x0:x1], cv2.TM_CCOEFF_NORMED)
    _, best, _, (x, y) = cv2.minMaxLoc(match)
    if not _POOR_MATCH <= best <= 1.01:  # OpenCV answers infinity or 1 for a flat picture
        return None
    if not 0 < y < len(match) - 1:
        return float(y - _REACH_PX)
    above, here, below = (float(v) for v in match[y - 1 : y + 2, x])
    bend = above - 2 * here + below
    return y - _REACH_PX + (0.5 * (above - below) / bend if bend < 0 else 0.0)


class SpeechEnergy:
    """How far sound stands out of the noise in the speech band, one value per 20 ms of one stream."""

    FALL = 0.3
    RISE = math.exp(0.4 * ENERGY_STEP_NS / SECOND)
    """The floor rises at most by 1.7 dB a second, so that speech without pauses does not become the floor."""
    LEAST_FLOOR = 1e-7
    """Power of -70 dB full scale: below that it is the converter, not a voice."""

    def __init__(self) -> None:
        self._tail = np.zeros(0, np.float32)
        self._next_ns: int | None = None
        self._floor: float | None = None
        self._taper = np.hanning(_WINDOW).astype(np.float32)
        self._scale = 2.0 / (_FFT * float(np.square(self._taper).sum()))

    def add(self, captured_ns: int, samples: NDArray[np.float32]) -> list[tuple[int, float]]:
        """Take in the next samples; returns (time of the middle, nats above the floor) per finished 20 ms.

        A jump in `captured_ns` of more than 5 ms starts anew: a stretch across a gap would look like a click.
        Samples that are not finite count as silence.
        """
        if self._next_ns is None or abs(captured_ns - self._next_ns) > 5 * MS:
            self._tail = self._tail[:0]
        start_ns = captured_ns - len(self._tail) * SECOND // SAMPLE_RATE
        self._next_ns = captured_ns + len(samples) * SECOND // SAMPLE_RATE
        sound = np.concatenate([self._tail, np.nan_to_num(samples, posinf=0.0, neginf=0.0)])
        count = max(0, (len(sound) - _WINDOW) // _STEP + 1)
        self._tail = sound[count * _STEP :]
        if not count:
            return []
        pieces = np.lib.stride_tricks.sliding_window_view(sound, _WINDOW)[::_STEP][:count]
        spectrum = np.fft.rfft(pieces * self._taper, _FFT)[:, _BAND]
        power = np.square(np.abs(spectrum)).sum(axis=1) * self._scale
        middle_ns = start_ns + _WINDOW * SECOND // SAMPLE_RATE // 2
        return [(middle_ns + k * ENERGY_STEP_NS, self._above_floor(float(p))) for k, p in enumerate(power)]

    def _above_floor(self, power: float) -> float:
        floor = power if self._floor is None else self._floor
        floor = floor + self.FALL * (power - floor) if power < floor else min(power, floor * self.RISE)
        self._floor = max(floor, self.LEAST_FLOOR)
        return math.log1p(power / self._floor) - math.log(2.0) if power > self._floor else 0.0


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
