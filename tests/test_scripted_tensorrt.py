"""The stand-in for TensorRT has the real one's names and parameters, and is strict where that is vague."""

from __future__ import annotations

import enum
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from liveaffect.engines import manifest as manifests
from liveaffect.engines.device.host import HostMemory
from liveaffect.engines.device_memory import DeviceError
from liveaffect.engines.protocol import EngineUnavailable
from liveaffect.engines.tensorrt_backend import find_backend
from liveaffect.realtime.testing import scripted_tensorrt, tiny_networks


@pytest.fixture(scope="module")
def real() -> Any:
    try:
        return find_backend().module
    except EngineUnavailable as err:
        pytest.skip(f"needs tensorrt_rtx: {err}")


def members(kind: type) -> list[str]:
    own = [name for name in vars(kind) if not name.startswith("_")]
    return own + (list(vars(kind())) if kind is scripted_tensorrt.IRuntimeConfig else [])


def parameters(documented: str) -> set[tuple[str, ...]]:
    """The parameters of every overload that the bindings document."""
    found = set()
    for listed in re.findall(r"^(?:\d+\. )?\w+\(self: [\w.]+(?:, )?(.*)\) ->", documented, re.MULTILINE):
        found.add(tuple(re.findall(r"(\w+): ", listed)))
    return found


@pytest.mark.parametrize("name", scripted_tensorrt.NAMES)
def test_every_name_is_one_of_the_real_module_with_its_parameters(name: str, real: Any) -> None:
    scripted, wanted = getattr(scripted_tensorrt, name), getattr(real, name)
    if not isinstance(scripted, type):
        assert callable(wanted)
        return
    if issubclass(scripted, enum.Enum):
        assert {member.name for member in scripted} <= set(wanted.__members__)
        return
    for member in members(scripted):
        if member.startswith("_"):
            continue
        assert hasattr(wanted, member), f"{name}.{member}"
        function = vars(scripted).get(member)
        documented = parameters(getattr(wanted, member).__doc__ or "")
        if inspect.isfunction(function) and documented:
            given = tuple(inspect.signature(function).parameters)[1:]
            assert given in documented, f"{name}.{member}{given}, the real one takes {documented}"


def test_the_comparison_sees_parameters(real: Any) -> None:
    assert "execute_async_v3" in members(scripted_tensorrt.IExecutionContext)
    assert ("stream_handle",) in parameters(real.IExecutionContext.execute_async_v3.__doc__)
    assert ("profile_index", "stream_handle") in parameters(
        real.IExecutionContext.set_optimization_profile_async.__doc__
    )


@pytest.fixture
def context(tmp_path: Path) -> scripted_tensorrt.IExecutionContext:
    path = tiny_networks.write_tiny(tmp_path, "face")
    content = manifests.load_bytes(manifests.read(path), tmp_path, "fp32")
    engine = scripted_tensorrt.Runtime(scripted_tensorrt.ILogger()).deserialize_cuda_engine(
        scripted_tensorrt.plan(content, (1, 4))
    )
    assert engine is not None
    return engine.create_execution_context()


def ready(context: scripted_tensorrt.IExecutionContext, memory: HostMemory) -> int:
    stream = memory.stream()
    assert context.set_optimization_profile_async(1, stream)
    assert context.set_input_shape("crop", (2, 64, 64, 3))
    for name in ("crop", "vector", "score", "logits"):
        assert context.set_tensor_address(name, memory.allocate(64 * 1024))
    return stream


def test_what_is_not_set_or_does_not_fit_is_refused(context: scripted_tensorrt.IExecutionContext) -> None:
    memory = HostMemory()
    with memory.active():
        assert not context.execute_async_v3(memory.stream())
        assert not context.set_optimization_profile_async(2, memory.stream())
        assert not context.set_input_shape("crop", (2, 64, 64, 3))
        ready(context, memory)
        assert not context.set_input_shape("crop", (5, 64, 64, 3))
        assert not context.set_input_shape("crop", (2, 64, 64, 1))
        assert not context.set_tensor_address("crop", 17)


def test_a_graph_of_a_context_that_was_changed_since_is_an_error(
    context: scripted_tensorrt.IExecutionContext,
) -> None:
    memory = HostMemory()
    with memory.active():
        stream = ready(context, memory)
        memory.begin_capture(stream)
        assert context.execute_async_v3(stream)
        graph = memory.end_capture(stream)
        memory.launch(graph, stream)
        memory.synchronise(stream)
        context.set_input_shape("crop", (3, 64, 64, 3))
        memory.launch(graph, stream)
        with pytest.raises(DeviceError, match="ILLEGAL_ADDRESS"):
            memory.synchronise(stream)
