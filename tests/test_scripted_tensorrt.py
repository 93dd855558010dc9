"""The stand-in for TensorRT has the names and the parameters of the real one, asked of the real one."""

from __future__ import annotations

import enum
import inspect
import re
from typing import Any

import pytest

from liveaffect.engines.protocol import EngineUnavailable
from liveaffect.engines.tensorrt_backend import find_backend
from liveaffect.realtime.testing import scripted_tensorrt


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
