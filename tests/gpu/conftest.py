"""What the tests on a GPU stand on: the card, the shipped networks, and plans built in their own cache.

They need NumPy, pytest, TensorRT or TensorRT-RTX, one package for device memory, and ONNX Runtime to compare
with.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from liveaffect.engines import gpu_load, manifest, plans
from liveaffect.engines.gpu_load import GpuTools
from liveaffect.engines.manifest import SHIPPED, Manifest
from liveaffect.engines.protocol import EngineUnavailable


@pytest.fixture(scope="session")
def card() -> GpuTools:
    """The GPU and what drives it, or a skip that says what is missing."""
    try:
        return gpu_load.find_tools()
    except EngineUnavailable as err:
        pytest.skip(f"needs an NVIDIA GPU that works: {err}")


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", params=["face", "voice"])
def found(request: pytest.FixtureRequest, card: GpuTools) -> Manifest:
    """A shipped network, with a plan in every precision that can be built here."""
    path = SHIPPED / f"{request.param}.json"
    if not path.exists():
        pytest.skip(f"no {request.param} weights are shipped to run on the GPU")
    network = manifest.read(path)
    gpu_load.build_plans(network, SHIPPED, card)
    return network


@pytest.fixture(params=gpu_load.PRECISIONS)
def precision(request: pytest.FixtureRequest, found: Manifest, card: GpuTools) -> str:
    """One that this network has a plan in."""
    name = str(request.param)
    if name not in gpu_load.precisions_of(found):
        pytest.skip(f"the {found.kind} network has no file for a GPU in {name}")
    try:
        plans.read_plan(plans.key_of(found, name, card.backend, card.gpu))
    except plans.PlanMissing as err:
        pytest.skip(f"no plan for this GPU could be built: {err}")
    return name
