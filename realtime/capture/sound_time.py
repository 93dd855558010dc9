"""When a sample was captured, estimated from its number: pure arithmetic, no clock, no thread.

A sound device counts samples evenly and stamps blocks badly, so the count is believed and the stamps only
steer it: a two-state Kalman filter holds the offset and the drift of the device's clock. Stamps that are far
off are ignored. If they stay far off, sound was lost when blocks also arrive later than the count says;
otherwise the earlier stamps were wrong: PulseAudio was seen to be 0.6 s off for the first second.
"""

from __future__ import annotations

from liveaffect.realtime.clock import MS, SECOND

_STAMP_NOISE_S = 0.005
"""How far single stamps scatter."""
_DRIFT_PRIOR = 200e-6
"""Cheap crystals are within 200 ppm of each other."""
_MOST_DRIFT = 1000e-6
_DRIFT_WANDER = 1e-6
"""How much the drift itself may change, per square root of a second."""
_OFFSET_WANDER_S = 20e-6
"""How much the offset may change by itself, per square root of a second."""
_FAR_S = 0.04
"""A stamp this far off is not scatter."""
_PERSISTENT_S = 0.5
"""Stamps that stay far off for so long are believed."""
_MOST_BUFFER_NS = 200 * MS
"""A block that is said to have begun longer before it was complete and handed over has a wrong stamp."""
_LAG_LEAK = 0.02
"""How fast the best arrival is forgotten, seconds a second."""
_LOSS_SHARE = 0.7
"""Of what the stamps are off, how much later blocks must arrive for sound to be missing."""
_FLAGGED_S = 0.005
"""When the device says that it lost sound, a stamp this much later is believed at once."""


class SoundTime:
    """Maps the sample numbers of one device to the run's clock. `observe` first, in order."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._sample = 0
        self._at_ns = 0
        """Estimated time of `_sample`."""
        self._drift = 0.0
        self._started = False
        # Covariance of (offset in s, drift).
        self._p_oo, self._p_od, self._p_dd = _STAMP_NOISE_S**2, 0.0, _DRIFT_PRIOR**2
        self._far_since: int | None = None
        self._far_least_s = self._far_lag_s = 0.0
        self._calm_lag_s = float("inf")
        """How late blocks arrive at the best, with which a later lag is compared."""

    @property
    def drift_ppm(self) -> float:
        """How much longer the device's second is than the clock's, in millionths."""
        return self._drift * 1e6

    def time_of(self, sample: float) -> int:
        """When that sample was or will be captured."""
        nominal_s = (sample - self._sample) / self._rate_hz
        return self._at_ns + round(nominal_s * (1.0 + self._drift) * SECOND)

    def observe(
        self, sample: int, count: int, stamp_ns: int, arrived_ns: int, *, flagged: bool = False
    ) -> int:
        """Take in a block of `count` from `sample` on; returns how many samples were lost before it.

        The caller adds those to its count, so that `sample` becomes a later number. `stamp_ns` is the
        device's word on when the block began, `arrived_ns` when it was handed over, and `flagged` says
        that the device itself reported a loss here.
        """
        # Nothing arrives before it was captured, and a device's buffer is short: beyond that, stamps lie.
        latest_ns = arrived_ns - count * SECOND // self._rate_hz
        stamp_ns = min(max(stamp_ns, latest_ns - _MOST_BUFFER_NS), latest_ns)
        if not self._started:
            self._started = True
            self._sample, self._at_ns = sample, stamp_ns
        off_s = (stamp_ns - self.time_of(sample)) / SECOND
        lag_s = (arrived_ns - self.time_of(sample + count)) / SECOND
        if flagged and off_s > _FLAGGED_S:
            return self._jump(off_s)
        if abs(off_s) > _FAR_S:
            return self._far(sample, off_s, lag_s)
        self._far_since = None
        passed_s = (sample - self._sample) / self._rate_hz
        self._calm_lag_s = min(lag_s, self._calm_lag_s + _LAG_LEAK * passed_s)
        self._correct(sample, off_s)
        return 0

    def _far(self, sample: int, off_s: float, lag_s: float) -> int:
        if self._far_since is None or off_s * self._far_least_s < 0:
            self._far_since, self._far_least_s, self._far_lag_s = sample, off_s, lag_s
        self._far_least_s = min(self._far_least_s, off_s, key=abs)
        self._far_lag_s = min(self._far_lag_s, lag_s)
        if sample - self._far_since < _PERSISTENT_S * self._rate_hz:
            return 0
        if self._far_lag_s - self._calm_lag_s > _LOSS_SHARE * self._far_least_s > 0:
            return self._jump(self._far_least_s)
        # Blocks still arrive in step with the count, so nothing is missing: the stamps were wrong before.
        self._at_ns = self.time_of(sample) + round(self._far_least_s * SECOND)
        self._sample, self._drift = sample, 0.0
        self._calm_lag_s = self._far_lag_s - self._far_least_s
        self._p_oo, self._p_od, self._p_dd = _STAMP_NOISE_S**2, 0.0, _DRIFT_PRIOR**2
        self._far_since = None
        return 0

    def _jump(self, off_s: float) -> int:
        self._far_since = None
        return round(off_s * self._rate_hz)

    def _correct(self, sample: int, off_s: float) -> None:
        """One step of the filter, from the last sample to this one."""
        dt = (sample - self._sample) / self._rate_hz
        at_ns = self.time_of(sample)
        p_oo = self._p_oo + 2 * dt * self._p_od + dt * dt * self._p_dd + _OFFSET_WANDER_S**2 * dt
        p_od = self._p_od + dt * self._p_dd
        p_dd = self._p_dd + _DRIFT_WANDER**2 * dt
        gain_o = p_oo / (p_oo + _STAMP_NOISE_S**2)
        gain_d = p_od / (p_oo + _STAMP_NOISE_S**2)
        self._sample, self._at_ns = sample, at_ns + round(gain_o * off_s * SECOND)
        self._drift = min(max(self._drift + gain_d * off_s, -_MOST_DRIFT), _MOST_DRIFT)
        self._p_oo, self._p_od, self._p_dd = p_oo * (1 - gain_o), p_od * (1 - gain_o), p_dd - gain_d * p_od
