"""ONNX Runtime with its telemetry off. Every other module takes it from here.

Since 1.31 the library writes a device number and a database below the user's cache and asks for a host of its
vendor, unless it is told not to before it is loaded. Nothing of ours may be sent, so nobody imports it past
this module; a test starts the program in a fresh home and finds no foreign file.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort  # type: ignore[import-untyped]

ort.disable_telemetry_events()
failures: Any = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
"""What it raises; a module in C++ without a description of its types."""

__all__ = ["failures", "ort"]
