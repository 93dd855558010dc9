"""A GPU for tests that is not there: plans of small networks, and memory that can be lost at any moment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engines import manifest as manifests
from engines import scripted_tensorrt
from engines.device.host import HostMemory
from engines.device_memory import DeviceError
from engines.manifest import Manifest

SIZES = (1, 4, 8)


def plan_of(folder: Path, kind: str, sizes: Sequence[int] = SIZES) -> tuple[Manifest, bytes]:
    """The manifest of one network in a folder, and a plan that computes it in fp32."""
    found = manifests.read(folder / f"{kind}.json")
    return found, scripted_tensorrt.plan(manifests.load_bytes(found, folder, "fp32"), sizes)


class LosableMemory(HostMemory):
    """The memory of a GPU that can be unplugged."""

    lost = False

    def _check(self, call: str) -> None:
        if self.lost:
            raise DeviceError(call, "CUDA_ERROR_DEVICE_UNAVAILABLE")
        super()._check(call)
