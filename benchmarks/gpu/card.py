"""Reads clocks, power, temperature and what holds the clocks down, from the driver's own library (NVML).

A latency means nothing without the clock it was measured at, and a card that throttles has another latency a
minute later. Nothing is ever set: the card is measured as it is found. Where NVML is missing or refuses, the
record says so and the figure stays empty.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass, field
from typing import Any

LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
_SM, _MEMORY = 1, 2
"""NVML's numbers of the two clocks."""
_GPU_SENSOR = 0
_REASONS = {
    0x1: "idle",
    0x2: "clocks set by an application",
    0x4: "power limit",
    0x8: "hardware slowdown",
    0x10: "synchronised with other cards",
    0x20: "temperature, by the driver",
    0x40: "temperature, by the hardware",
    0x80: "power brake",
    0x100: "display clocks",
}
HARMLESS = {"idle", "display clocks"}


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the card; None where the card does not tell."""

    sm_mhz: int | None = None
    memory_mhz: int | None = None
    power_w: float | None = None
    limit_w: float | None = None
    temperature_c: int | None = None
    held_down_by: tuple[str, ...] = ()


class Nvml:
    """The library, for the card with one index. `why_not` says why nothing can be read."""

    def __init__(self, index: int = 0, library: Any = None) -> None:
        self.why_not: str | None = None
        self._device = ctypes.c_void_p()
        try:
            self._library = library or ctypes.CDLL(LIBRARY)
            status = int(self._library.nvmlInit_v2()) or int(
                self._library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(self._device))
            )
        except (OSError, AttributeError) as err:
            self.why_not = f"clocks and power were not read: {err}"
            return
        if status:
            self.why_not = f"clocks and power were not read: NVML answers with error {status}"

    def read(self) -> Reading:
        """A look at the card. Takes a fraction of a millisecond and must not run inside a timed call."""
        if self.why_not:
            return Reading()
        power_mw = self._number("nvmlDeviceGetPowerUsage")
        limit_mw = self._number("nvmlDeviceGetEnforcedPowerLimit")
        reasons = self._reasons()
        return Reading(
            sm_mhz=self._number("nvmlDeviceGetClockInfo", _SM),
            memory_mhz=self._number("nvmlDeviceGetClockInfo", _MEMORY),
            power_w=None if power_mw is None else power_mw / 1000,
            limit_w=None if limit_mw is None else limit_mw / 1000,
            temperature_c=self._number("nvmlDeviceGetTemperature", _GPU_SENSOR),
            held_down_by=tuple(name for bit, name in _REASONS.items() if reasons & bit),
        )

    def fixed(self) -> dict[str, Any]:
        """What does not change during a run."""
        if self.why_not:
            return {"why_not": self.why_not}
        return {
            "sm_mhz_highest": self._number("nvmlDeviceGetMaxClockInfo", _SM),
            "memory_mhz_highest": self._number("nvmlDeviceGetMaxClockInfo", _MEMORY),
            "persistence": self._number("nvmlDeviceGetPersistenceMode"),
            "compute_mode": self._number("nvmlDeviceGetComputeMode"),
        }

    def _number(self, name: str, *selectors: int) -> int | None:
        value = ctypes.c_uint(0)
        given = [ctypes.c_uint(selector) for selector in selectors]
        status = getattr(self._library, name)(self._device, *given, ctypes.byref(value))
        return None if status else value.value

    def _reasons(self) -> int:
        value = ctypes.c_ulonglong(0)
        status = self._library.nvmlDeviceGetCurrentClocksThrottleReasons(self._device, ctypes.byref(value))
        return 0 if status else value.value


@dataclass
class Watch:
    """The range of what was read since it was made; one for each part of the run."""

    nvml: Nvml
    readings: list[Reading] = field(default_factory=list)

    def look(self) -> None:
        """Read once, between two windows."""
        self.readings.append(self.nvml.read())

    def to_json(self) -> dict[str, Any]:
        """Lowest and highest of everything, and what held the clocks down at any look."""
        if self.nvml.why_not:
            return {"why_not": self.nvml.why_not}
        out: dict[str, Any] = {"looks": len(self.readings)}
        for name in ("sm_mhz", "memory_mhz", "power_w", "temperature_c"):
            known = [value for one in self.readings if (value := getattr(one, name)) is not None]
            out[name] = [min(known), max(known)] if known else None
        held = {reason for one in self.readings for reason in one.held_down_by} - HARMLESS
        return {**out, "held_down_by": sorted(held)}
