"""Reads clocks, power, temperature and what holds the clocks down, from the driver's own library (NVML).

A latency means nothing without the clock it was measured at, and a card that throttles has another latency a
minute later. Nothing is ever set. Where NVML is missing or refuses, the record says so.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
_READINGS: dict[str, tuple[str, tuple[int, ...]]] = {
    "sm_mhz": ("nvmlDeviceGetClockInfo", (1,)),
    "memory_mhz": ("nvmlDeviceGetClockInfo", (2,)),
    "power_mw": ("nvmlDeviceGetPowerUsage", ()),
    "power_limit_mw": ("nvmlDeviceGetEnforcedPowerLimit", ()),
    "temperature_c": ("nvmlDeviceGetTemperature", (0,)),
    "sm_mhz_highest": ("nvmlDeviceGetMaxClockInfo", (1,)),
}
_HELD_DOWN = {
    0x2: "clocks set by an application",
    0x4: "power limit",
    0x8: "hardware slowdown",
    0x20: "temperature, by the driver",
    0x40: "temperature, by the hardware",
    0x80: "power brake",
}


class Watch:
    """Lowest and highest of everything that was read of the card with one UUID, for each part of a run."""

    def __init__(self, uuid: str = "", library: Any = None) -> None:
        self.why_not = ""
        self._device = ctypes.c_void_p()
        self._read: dict[str, list[int]] = {}
        self._held: set[str] = set()
        try:
            self._library = library or ctypes.CDLL(LIBRARY)
            status = int(self._library.nvmlInit_v2()) or int(
                self._library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(self._device))
            )
        except (OSError, AttributeError) as err:
            self.why_not = f"clocks and power were not read: {err}"
            return
        if status:
            self.why_not = f"clocks and power were not read: NVML answers with error {status}"

    def look(self) -> None:
        """Read once. Takes a fraction of a millisecond and must not run inside a timed call."""
        if self.why_not:
            return
        for name, (function, selectors) in _READINGS.items():
            value = ctypes.c_uint(0)
            given = [ctypes.c_uint(one) for one in selectors]
            if not getattr(self._library, function)(self._device, *given, ctypes.byref(value)):
                self._read.setdefault(name, []).append(value.value)
        reasons = ctypes.c_ulonglong(0)
        self._library.nvmlDeviceGetCurrentClocksThrottleReasons(self._device, ctypes.byref(reasons))
        self._held |= {name for bit, name in _HELD_DOWN.items() if reasons.value & bit}

    def taken(self) -> dict[str, Any]:
        """What was read since it was last asked."""
        read, held = self._read, self._held
        self._read, self._held = {}, set()
        if self.why_not:
            return {"clocks": self.why_not}
        return {**{name: [min(all_), max(all_)] for name, all_ in read.items()}, "held_down_by": sorted(held)}
