"""The driver is asked before anything of TensorRT is made, and each answer says what is missing.

The driver is a small one of our own, compiled here, that answers as it is told by its name and number.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from uuid import UUID

import pytest

from liveaffect.engines import gpu_driver
from liveaffect.engines.gpu_driver import Gpu
from liveaffect.engines.protocol import EngineUnavailable
from liveaffect.realtime.testing.gpu import build_driver

Driver = Callable[..., str]


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    """Makes a driver library that answers as asked; its path."""
    if shutil.which("cc") is None:
        pytest.skip("a stand-in for the NVIDIA driver is compiled here, and there is no cc")

    @cache
    def make(init: int = 0, count: int = 1, version: int = 13000) -> str:
        folder = tmp_path_factory.mktemp("driver")
        return str(build_driver(folder, init=init, count=count, version=version))

    return make


def test_without_a_driver_that_is_what_it_says() -> None:
    why = gpu_driver.why_no_gpu("libnosuchdriver.so.1")
    assert why == "no NVIDIA driver is installed (libnosuchdriver.so.1 is not there)"
    assert gpu_driver.gpus("libnosuchdriver.so.1") == ()


def test_a_library_that_is_no_driver_is_told_apart() -> None:
    why = gpu_driver.why_no_gpu("libc.so.6")
    assert why is not None
    assert why.startswith("libc.so.6 is not an NVIDIA driver (")
    assert gpu_driver.gpus("libc.so.6") == ()


@pytest.mark.parametrize(
    ("init", "count", "version", "words"),
    [
        (100, 0, 12020, "the NVIDIA driver (CUDA 12.2) finds no GPU it can use (cuInit error 100)"),
        (803, 0, 13000, "the NVIDIA driver (CUDA 13.0) finds no GPU it can use (cuInit error 803)"),
        (0, 0, 13010, "the NVIDIA driver (CUDA 13.1) lists no GPU"),
        (0, 1, 13000, None),
    ],
)
def test_a_driver_without_a_gpu_says_so(
    driver: Driver, init: int, count: int, version: int, words: str | None
) -> None:
    library = driver(init, count, version)
    assert gpu_driver.why_no_gpu(library) == words
    assert len(gpu_driver.gpus(library)) == (1 if words is None else 0)


def test_each_gpu_is_described_and_one_that_fails_is_left_out(driver: Driver) -> None:
    assert gpu_driver.gpus(driver(count=3)) == (
        Gpu(0, "NVIDIA Made Up 4090", (8, 9), (13, 0), 24 << 30, "GPU-" + str(UUID(bytes=bytes([10] * 16)))),
        Gpu(1, "NVIDIA Made Up 2080", (7, 5), (13, 0), 24 << 30, "GPU-" + str(UUID(bytes=bytes([11] * 16)))),
    )
    assert [gpu.sm for gpu in gpu_driver.gpus(driver(count=2))] == ["8.9", "7.5"]


@pytest.mark.parametrize(
    ("flavour", "cuda", "version", "needs"),
    [
        ("tensorrt-rtx", 13, 12020, "TensorRT-RTX, which needs one for CUDA 13.0 or newer (release 580 or"),
        ("tensorrt", 12, 12010, "TensorRT, which needs one for CUDA 12.2 or newer (release 535 or newer"),
        ("tensorrt", 12, 12020, ""),
        ("tensorrt-rtx", 13, 14000, ""),
    ],
)
def test_an_old_driver_is_told_with_what_each_flavour_needs(
    driver: Driver, flavour: str, cuda: int, version: int, needs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_driver, "cuda_of", lambda _: cuda)
    why = gpu_driver.why_no_gpu(driver(version=version), flavour)
    assert why is None if not needs else f"is too old for {needs}" in str(why)


@pytest.mark.parametrize(
    ("capability", "runs"),
    [
        *((one, True) for one in ((8, 0), (8, 6), (8, 9), (12, 0), (12, 1), (13, 0))),
        *((one, False) for one in ((7, 5), (8, 7), (9, 0), (10, 0), (11, 0))),
    ],
)
def test_what_rtx_refuses_is_known_by_the_compute_capability(capability: tuple[int, int], runs: bool) -> None:
    card = Gpu(0, "NVIDIA Made Up", capability, (13, 0), 1)
    why = gpu_driver.why_refused("tensorrt-rtx", card)
    assert (why is None) is runs
    assert runs or f"compute capability {card.sm}; it supports 8.0, 8.6, 8.9, 12.0 and above" in str(why)
    assert gpu_driver.why_refused("tensorrt", card) is None


def test_why_no_tensorrt_asks_for_driver_then_package_then_age(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_driver(library: str) -> str | None:
        with monkeypatch.context() as here:
            for name in ("why_no_gpu", "why_too_old"):
                here.setattr(gpu_driver, name, partial(getattr(gpu_driver, name), library=library))
            return gpu_driver.why_driver_refuses()

    assert "finds no GPU" in str(with_driver(driver(init=100)))
    monkeypatch.setattr(gpu_driver, "find_spec", lambda _: None)
    assert str(with_driver(driver(version=12020))).endswith("is installed (pip install 'liveaffect[rtx]')")
    monkeypatch.setattr(gpu_driver, "find_spec", lambda name: name == "tensorrt_rtx")
    assert "(CUDA 12.2) is too old for TensorRT-RTX" in str(with_driver(driver(version=12020)))
    assert with_driver(driver(version=13000)) is None


def test_the_packages_names_say_which_cuda_they_were_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Installed:
        def __init__(self, name: str) -> None:
            self.name = name

    names = ["numpy", "tensorrt", "tensorrt_cu12_libs", "tensorrt_rtx", "tensorrt_rtx_cu13_bindings"]
    monkeypatch.setattr(metadata, "distributions", lambda: map(Installed, names))
    assert gpu_driver.cuda_of("tensorrt") == 12
    assert gpu_driver.cuda_of("tensorrt-rtx") == 13
    monkeypatch.setattr(metadata, "distributions", lambda: ())
    assert gpu_driver.cuda_of("tensorrt") == 13, "the stricter of what is known"


def test_a_tensorrt_that_is_missing_or_lacks_a_library_is_quoted_and_the_other_is_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_trt.py").write_text("raise ImportError('libnvinfer.so.11: cannot open')\n")
    (tmp_path / "good_trt.py").write_text("__version__ = '9.9'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(gpu_driver, "TENSORRT_MODULES", ("no_trt", "broken_trt"))
    with pytest.raises(
        EngineUnavailable, match=r"no_trt is not installed, broken_trt cannot be imported \(libnv.*cannot op"
    ) as refused:
        gpu_driver.find_backend()
    assert "pip install 'liveaffect[rtx]'" in str(refused.value)
    monkeypatch.setattr(gpu_driver, "TENSORRT_MODULES", ("broken_trt", "good_trt"))
    found = gpu_driver.find_backend()
    assert (found.flavour, found.version) == ("good-trt", "9.9")
