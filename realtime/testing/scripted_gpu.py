"""A GPU for tests that is not there: plans of small networks, and memory that can be lost at any moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from engines import manifest as manifests
from engines import scripted_tensorrt
from engines.build.plan import BuiltPlan
from engines.device.host import HostMemory
from engines.device_memory import DeviceError
from engines.gpu_driver import Gpu
from engines.gpu_load import GpuTools
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


def tools(memory: Callable[[], HostMemory] = HostMemory, flavour: str = "tensorrt-rtx") -> GpuTools:
    """What running plans takes, on a card that is not there."""
    card = Gpu(0, "Scripted", (8, 9), (13, 0), 1 << 30)
    return GpuTools(scripted_tensorrt.backend(flavour), card, memory)


def build(content: bytes, **_rest: object) -> BuiltPlan:
    """In the place of `build_plan`: a plan that computes the file as it is, for fewer sizes, to be quick."""
    return BuiltPlan(scripted_tensorrt.plan(content, (1, 16)), ("scripted",), 0.5)
