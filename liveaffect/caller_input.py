"""What a caller brings, checked and brought into the form of the path: pictures, sound, times.

Every refusal is an InputRefused that says what was given, what is wanted, and how to get from the one to the
other. Arrays are copied, so the caller may use theirs again at once.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.decode import BLOCK, Resampler
from liveaffect.realtime.errors import InputRefused
from liveaffect.realtime.frame import AudioBlock

LEAST_SIDE_PX = 16
RATES_HZ = (4_000, 384_000)
LONGEST_S = 1e11
"""Three thousand years from the caller's zero; beyond, it is not seconds."""
MOST_CHANNELS = 32
LOUDEST = 16.0
"""Floating sound lies within -1..1 and may overshoot a little; far beyond, it was not scaled."""
_GAP_NS = 100 * MS
"""Times of sound that are this far from the end of the sound before are believed; nearer is jitter."""


def checked_file(file: object) -> Path:
    """A file by its name."""
    if not isinstance(file, str | os.PathLike):
        raise InputRefused(f"a file is named by a string or a Path, and this is a {type(file).__name__}")
    return Path(file)


def checked_picture(image: object, *, bgr: bool = False) -> NDArray[np.uint8]:
    """A copy in RGB."""
    if not isinstance(image, np.ndarray):
        raise InputRefused(f"a picture is a NumPy array, and this is a {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputRefused(
            f"a picture is uint8 of shape (height, width, 3), and this is {image.dtype} of shape "
            f"{image.shape}.{_advice_on(image)}"
        )
    if min(image.shape[:2]) < LEAST_SIDE_PX:
        raise InputRefused(
            f"a picture of {image.shape[1]}x{image.shape[0]} pixels holds no face; "
            f"each side has at least {LEAST_SIDE_PX}"
        )
    return np.array(image[:, :, ::-1] if bgr else image, np.uint8, order="C")


def _advice_on(image: NDArray[Any]) -> str:
    if image.ndim == 1 or (image.ndim == 2 and image.shape[1] <= MOST_CHANNELS):
        return " Sound comes with its rate: predict(samples, rate=48000)."
    if image.ndim == 2:
        return " Grey pictures: numpy.repeat(image[:, :, None], 3, axis=2)."
    if image.ndim == 4:
        return " Several pictures: bring one after the other."
    if image.ndim == 3 and image.shape[2] == 4:
        return " Leave out transparency: image[:, :, :3]."
    if image.ndim == 3 and image.shape[0] == 3:
        return " Colour comes last: image.transpose(1, 2, 0)."
    if image.dtype.kind == "f":
        return " From 0..1: (image * 255).round().astype('uint8')."
    return ""


def checked_time_ns(t: object) -> int:
    """Seconds of the caller as nanoseconds."""
    try:
        seconds = math.nan if isinstance(t, (bool, str)) else float(t)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        seconds = math.nan
    if not abs(seconds) < LONGEST_S:
        raise InputRefused(f"t is {t!r}; it is the time in seconds, counted from any zero of yours")
    return round(seconds * SECOND)


def checked_timeout_s(timeout: object) -> float:
    """How long to wait, from 0 on. What is no number would be waited for without end."""
    if not isinstance(timeout, int | float | np.integer | np.floating) or math.isnan(timeout):
        raise InputRefused(f"timeout is {timeout!r}; it is the number of seconds to wait at most")
    return max(float(timeout), 0.0)


def checked_rate(rate: object) -> int:
    """Samples a second."""
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.integer | np.floating):
        raise InputRefused(f"rate is {rate!r}; it is the number of samples a second, such as 48000")
    low, high = RATES_HZ
    if not low <= rate <= high or rate != round(float(rate)):
        raise InputRefused(
            f"rate is {rate}; sound has a whole number of samples a second, from {low} to {high}"
        )
    return int(rate)


def checked_sound(samples: object) -> NDArray[np.float32]:
    """Mono samples within about -1..1; channels are averaged."""
    if not isinstance(samples, np.ndarray):
        raise InputRefused(f"sound is a NumPy array, and this is a {type(samples).__name__}")
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= samples.shape[1] <= MOST_CHANNELS):
        flat = samples.ndim == 2 and samples.shape[0] <= MOST_CHANNELS
        turned = " Channels come last: samples.T." if flat else ""
        raise InputRefused(
            f"sound has the shape (samples,) or (samples, channels), and this has {samples.shape}.{turned}"
        )
    if samples.dtype.kind == "f":
        sound = samples.astype(np.float64)
    elif samples.dtype in (np.int16, np.int32):
        sound = samples / -float(np.iinfo(samples.dtype).min)
    else:
        raise InputRefused(
            f"sound is float within -1..1, int16 or int32, and this is {samples.dtype}; "
            "for unsigned bytes: (samples.astype('float32') - 128) / 128"
        )
    if not np.isfinite(sound).all():
        raise InputRefused(
            f"{int((~np.isfinite(sound)).sum())} of {sound.size} samples are not finite; "
            "a missing stretch is brought by leaving its time out"
        )
    if sound.size and (loudest := float(np.abs(sound).max())) > LOUDEST:
        raise InputRefused(
            f"floating sound lies within -1..1, and the loudest sample here is {loudest:.6g}; "
            "divide by 32768 what was int16"
        )
    return np.asarray(sound if sound.ndim == 1 else sound.mean(axis=1), np.float32)


class SoundStream:
    """Stretches of sound at any rate become numbered blocks at 16 kHz, each at its time. One caller."""

    def __init__(self, source: str) -> None:
        self.lost = 0
        """Samples at 16 kHz that were missing between stretches."""
        self._source = source
        self._resampler: Resampler | None = None
        self._rate_hz = 0
        self._ends_ns = 0
        """When the sound brought so far ends."""
        self._number = 0
        """Number of the next sample to come out."""
        self._base = 0
        """Number of the first sample of this unbroken stretch."""
        self._fed = 0
        """Samples at the caller's rate that went into it."""

    def push(self, samples: NDArray[np.float32], t_ns: int, rate_hz: int) -> list[AudioBlock]:
        """Checked samples whose first was captured at `t_ns`; what is ready."""
        if not len(samples):
            return []
        if self._resampler is not None and t_ns < self._ends_ns - _GAP_NS:
            raise InputRefused(
                f"sound of t={t_ns / SECOND:.3f} comes after sound that reaches to "
                f"t={self._ends_ns / SECOND:.3f}; t is the time of the first sample, and time never goes back"
            )
        blocks: list[AudioBlock] = []
        if self._resampler is None:
            self._begin(rate_hz)
        elif rate_hz != self._rate_hz or t_ns > self._ends_ns + _GAP_NS:
            blocks += self.finish()
            missing = max(0, t_ns - self._ends_ns) * SAMPLE_RATE // SECOND
            self.lost += missing
            self._number += missing
            self._begin(rate_hz)
        assert self._resampler is not None
        # The first of these samples has this number, wherever the resampler has got to.
        number = self._base + self._fed * SAMPLE_RATE / rate_hz
        ready = self._resampler.push(samples, rate_hz)
        first_ns = t_ns + round((self._number - number) * SECOND / SAMPLE_RATE)
        self._fed += len(samples)
        self._ends_ns = t_ns + len(samples) * SECOND // rate_hz
        return [*blocks, *self._blocks(ready, first_ns)]

    def finish(self) -> list[AudioBlock]:
        """What is left in the resampler."""
        rest = np.zeros(0, np.float32) if self._resampler is None else self._resampler.flush()
        self._resampler = None
        return self._blocks(rest, self._ends_ns - len(rest) * SECOND // SAMPLE_RATE)

    def _begin(self, rate_hz: int) -> None:
        self._resampler, self._rate_hz = Resampler(), rate_hz
        self._base, self._fed = self._number, 0

    def _blocks(self, samples: NDArray[np.float32], first_ns: int) -> list[AudioBlock]:
        blocks = []
        for at in range(0, len(samples), BLOCK):
            part = samples[at : at + BLOCK].copy()
            captured_ns = first_ns + at * SECOND // SAMPLE_RATE
            blocks.append(AudioBlock(self._source, self._number, captured_ns, part))
            self._number += len(part)
        return blocks
