"""Every kind of device memory keeps the contract: on the host, and through a stand-in driver."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from liveaffect.engines import device_memory, gpu_driver
from liveaffect.engines.device_memory import NAMES, DeviceError, HostMemory, open_memory, why_no_memory
from liveaffect.engines.protocol import EngineUnavailable
from liveaffect.realtime.testing import gpu
from liveaffect.realtime.testing.contracts import check_memory

PACKAGES = {"cuda-python": "cuda", "pycuda": "pycuda"}
PROGRAM = """
import ctypes, sys
from liveaffect.engines.device_memory import open_memory
from liveaffect.realtime.testing.contracts import check_memory
check_memory(lambda: open_memory(sys.argv[1]))
driver = ctypes.CDLL("libcuda.so.1")
print("left behind:", driver.standInLive(), driver.standInUsers())
"""


def test_host_memory_keeps_the_contract() -> None:
    check_memory(HostMemory)


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_package_keeps_the_contract_through_a_stand_in_driver(name: str, tmp_path: Path) -> None:
    spec = find_spec(PACKAGES[name])
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip(f"needs {name}, which is installed where there is CUDA")
    if sys.platform != "linux" or shutil.which("cc") is None or shutil.which("nm") is None:
        pytest.skip("builds a stand-in for the NVIDIA driver with cc and nm, on Linux")
    links = [
        p for root in spec.submodule_search_locations for p in Path(root).parent.glob("pycuda/_driver*.so")
    ]
    gpu.build_driver(tmp_path, links[0] if name == "pycuda" else None)
    paths = os.pathsep.join([str(tmp_path), os.environ.get("LD_LIBRARY_PATH", "")])
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, name],
        env={**os.environ, "LD_LIBRARY_PATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.strip() == "left behind: 0 0"
    assert not ran.stderr


def test_on_the_host_nothing_is_done_before_somebody_waits_and_a_stray_address_is_an_error() -> None:
    memory = HostMemory()
    with memory.active():
        array, address, stream = memory.pinned(8), memory.allocate(8), memory.stream()
        array[:] = 7
        memory.copy_in(address, array, stream)
        assert not (memory.view(address, 8) == 7).any()
        array[:] = 8  # As on a GPU: whoever overwrites what is still being copied, copies that.
        memory.synchronise(stream)
        assert (memory.view(address, 8) == 8).all()
        with pytest.raises(DeviceError, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
            memory.copy_in(address + 1, np.zeros(8, np.uint8), stream)
    with pytest.raises(DeviceError, match="1 memory, 1 pinned memory, 1 streams"):
        memory.close()


def test_each_missing_piece_is_named_with_what_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_no_memory("host") is None
    with pytest.raises(EngineUnavailable, match=f"no device memory 'core'; known are {', '.join(NAMES)}"):
        why_no_memory("core")
    monkeypatch.setattr(gpu_driver, "why_no_gpu", lambda: None)
    monkeypatch.setattr(
        device_memory, "_PACKAGES", {"pycuda": "no_such.thing", "cuda-python": "json.nothing"}
    )
    assert "published as source only" in str(why_no_memory("pycuda"))
    with pytest.raises(EngineUnavailable, match=r"cuda-python cannot be.*; pycuda is not installed"):
        open_memory()
    monkeypatch.setattr(gpu_driver, "why_no_gpu", lambda: "no NVIDIA driver is installed")
    assert why_no_memory("cuda-python") == "no NVIDIA driver is installed"
