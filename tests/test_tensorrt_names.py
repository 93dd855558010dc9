"""Every name of TensorRT that the code uses exists in the installed one, and is called as it wants to be.

Its objects carry no types for a checker, so the uses are collected from the source and compared with what the
module says about itself. The scripted runtime, on which the GPU path runs here, is held to the same.
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from liveaffect.engines.gpu_driver import find_backend
from liveaffect.engines.protocol import EngineUnavailable

ROOT = Path(__file__).resolve().parent.parent
BUILDING = {
    "engines/plans.py": {
        "builder": "Builder",
        "network": "INetworkDefinition",
        "config": "IBuilderConfig",
        "parser": "OnnxParser",
        "fault": "ParserError",
        "profile": "IOptimizationProfile",
        "tensor": "ITensor",
        "layer": "ILayer",
        "severity": "ILogger.Severity",
    },
}
RUNNING = {
    "engines/tensorrt_engine.py": {
        "_runtime": "Runtime",
        "_engine": "ICudaEngine",
        "engine": "ICudaEngine",
        "_cache": "IRuntimeCache",
        "config": "IRuntimeConfig",
        "context": "IExecutionContext",
        "_context": "IExecutionContext",
    },
}
ROLES = {**BUILDING, **RUNNING}
"""Which variables of which module hold an object of which class. A module that touches one and is not listed
here is found by `test_no_other_module_touches_tensorrt`."""
MODULE_NAMES = {"trt", "module"}
"""What TensorRT itself is called: `trt`, or `backend.module`."""


@dataclass(frozen=True)
class Signature:
    """One way to call something."""

    names: tuple[str, ...]
    needed: int
    """How many of them have no default."""
    returns: str

    def takes(self, positional: int, keywords: set[str]) -> bool:
        """Whether a call with so many positions and these keywords fits."""
        given = set(self.names[:positional]) | keywords
        fits = positional + len(keywords) == len(given) <= len(self.names) and keywords <= set(self.names)
        return fits and set(self.names[: self.needed]) <= given


@pytest.fixture(scope="session")
def trt() -> Any:
    try:
        return find_backend().module
    except EngineUnavailable as err:
        pytest.skip(str(err))


def split(arguments: str) -> list[str]:
    """At commas that are in no bracket."""
    parts, depth = [""], 0
    for sign in arguments:
        depth += (sign in "([<") - (sign in ")]>")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def signatures(found: Any, name: str) -> list[Signature]:
    """Every way to call it, out of what pybind writes into the docstring, or of Python itself."""
    if inspect.isfunction(found):
        parameters = [p for p in inspect.signature(found).parameters.values() if p.name != "self"]
        needed = sum(p.default is inspect.Parameter.empty for p in parameters)
        return [Signature(tuple(p.name for p in parameters), needed, "")]
    ways = []
    for line in re.findall(rf"^(?:\d+\. )?{name}\((.*)\) -> (.*)$", found.__doc__ or "", re.MULTILINE):
        arguments = [part for part in split(line[0]) if not part.startswith("self:")]
        if arguments == ["*args", "**kwargs"]:
            continue
        names = tuple(part.partition(":")[0] for part in arguments)
        needed = sum(" = " not in part for part in arguments)
        ways.append(Signature(names, needed, re.split(r"[.:]+", line[1])[-1]))
    return ways


def resolve(trt: Any, path: str) -> Any:
    for part in path.split("."):
        trt = getattr(trt, part)
    return trt


@dataclass(frozen=True)
class Use:
    """One place where an attribute of TensorRT, or of one of its objects, is named."""

    where: str
    of: str
    """The class, or '' for the module itself."""
    name: str
    call: ast.Call | None
    stored: bool


class Collector:
    """Goes through one module; knows what a variable holds by its name, and what a call returns."""

    def __init__(self, trt: Any, path: str, roles: dict[str, str]) -> None:
        self._trt, self._path, self._roles = trt, path, dict(roles)
        self._tree = ast.parse((ROOT / path).read_text("utf-8"))
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                of = self._holds(node.value)
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    name = target.id if isinstance(target, ast.Name) else getattr(target, "attr", "")
                    if name and of:
                        assert self._roles.setdefault(name, of) == of, f"{path}: {name} holds two classes"
        self._calls = {id(n.func): n for n in ast.walk(self._tree) if isinstance(n, ast.Call)}

    def uses(self) -> Iterator[Use]:
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Attribute) and (of := self._holds(node.value)) is not None:
                where = f"{self._path}:{node.lineno}"
                stored = isinstance(node.ctx, ast.Store)
                yield Use(where, of, node.attr, self._calls.get(id(node)), stored)

    def _holds(self, node: ast.expr) -> str | None:
        """The class of what an expression gives, '' for the module, None for anything else."""
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if name in MODULE_NAMES:
            return ""
        if name in self._roles:
            return self._roles[name]
        if isinstance(node, ast.Attribute) and (of := self._holds(node.value)) is not None:
            inner = f"{of}.{node.attr}".lstrip(".")
            return inner if inspect.isclass(resolve(self._trt, inner)) else None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = self._holds(node.func.value)
            if of is not None:
                ways = signatures(resolve(self._trt, f"{of}.{node.func.attr}".lstrip(".")), node.func.attr)
                returned = ways[0].returns if ways else ""
                return returned if inspect.isclass(getattr(self._trt, returned or " ", None)) else None
        return None


@cache
def collected(trt: Any) -> tuple[Use, ...]:
    return tuple(use for path, roles in ROLES.items() for use in Collector(trt, path, roles).uses())


def is_public(name: str) -> bool:
    return not name.startswith("_")


def test_every_name_exists_and_is_called_as_it_wants(trt: Any) -> None:
    wrong = []
    for use in collected(trt):
        owner = resolve(trt, use.of) if use.of else trt
        found = getattr(owner, use.name, None)
        if found is None:
            wrong.append(f"{use.where}: there is no {use.of}.{use.name}")
        elif use.stored and not (isinstance(found, property) and found.fset):
            wrong.append(f"{use.where}: {use.of}.{use.name} cannot be set")
        elif use.call is not None:
            positional, keywords = len(use.call.args), {k.arg or "**" for k in use.call.keywords}
            asked, name = (found.__init__, "__init__") if inspect.isclass(found) else (found, use.name)
            if not any(way.takes(positional, keywords) for way in signatures(asked, name)):
                wrong.append(f"{use.where}: {use.of}.{use.name} is not called like that: {found.__doc__}")
    assert not wrong, "\n".join(wrong)


def test_the_collection_sees_what_matters(trt: Any) -> None:
    seen = {(use.of, use.name) for use in collected(trt)}
    assert seen >= {
        ("", "Builder"),
        ("BuilderFlag", "TF32"),
        ("OnnxParser", "parse"),
        ("ParserError", "node_name"),
        ("IBuilderConfig", "clear_flag"),
        ("IOptimizationProfile", "set_shape"),
        ("", "Runtime"),
        ("Runtime", "deserialize_cuda_engine"),
        ("IExecutionContext", "execute_async_v3"),
        ("IExecutionContext", "set_tensor_address"),
        ("IExecutionContext", "is_stream_capturable"),
        ("IExecutionContext", "set_device_memory"),
        ("IRuntimeConfig", "create_runtime_cache"),
    }
    for path, roles in ROLES.items():
        used = {use.of for use in collected(trt) if use.where.startswith(f"{path}:")}
        assert set(roles.values()) <= used, f"{path} has no {set(roles.values()) - used} any more"


def test_what_our_classes_override_is_declared_like_that(trt: Any) -> None:
    checked = []
    for path in ROLES:
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
            bases = [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
            for base in (name.removeprefix("trt.") for name in bases if name.startswith("trt.")):
                for method in (m for m in ast.walk(node) if isinstance(m, ast.FunctionDef)):
                    declared = signatures(getattr(getattr(trt, base), method.name, None), method.name)
                    if declared and is_public(method.name):
                        names = tuple(argument.arg for argument in method.args.args[1:])
                        assert names == declared[0].names, f"{path}: {base}.{method.name}"
                        checked.append((base, method.name))
    assert ("ILogger", "log") in checked


def test_no_other_module_touches_tensorrt(trt: Any) -> None:
    distinctive = {use.name for use in collected(trt) if use.of and use.call and use.name.count("_") > 1}
    assert "execute_async_v3" in distinctive
    scripted = "realtime/testing/gpu.py"
    for path in [*(ROOT / "engines").rglob("*.py"), *(ROOT / "benchmarks" / "gpu").rglob("*.py")]:
        shown = path.relative_to(ROOT).as_posix()
        if shown in ROLES or shown == scripted:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            named = (
                node.attr
                if isinstance(node, ast.Attribute)
                else node.id
                if isinstance(node, ast.Name)
                else ""
            )
            assert named not in distinctive | {"trt"}, f"{shown} uses {named}; list it in ROLES"


def test_the_scripted_runtime_has_what_the_engine_uses(trt: Any) -> None:
    scripted = pytest.importorskip("liveaffect.realtime.testing.gpu")
    for use in collected(trt):
        if use.where.split(":")[0] in RUNNING:
            owner = resolve(scripted, use.of) if use.of else scripted
            held = hasattr(made(owner) or owner, use.name)
            assert held, f"{use.where} uses {use.of}.{use.name}, which the scripted runtime has not"


def made(kind: Any) -> Any:
    """One of it where that takes nothing, to see what it sets on itself."""
    if inspect.isclass(kind) and issubclass(kind, enum.Enum):
        return next(iter(kind))
    try:
        return kind()
    except TypeError:
        return None


def test_the_scripted_runtime_has_nothing_that_the_real_one_has_not(trt: Any) -> None:
    scripted = pytest.importorskip("liveaffect.realtime.testing.gpu")
    of_it = [n for n, one in vars(scripted).items() if getattr(one, "__module__", "") == scripted.__name__]
    stands_in = {name for name in of_it if is_public(name) and hasattr(trt, name)}
    assert {"Runtime", "ICudaEngine", "IExecutionContext", "IRuntimeConfig"} <= stands_in
    for name in stands_in:
        ours, real = getattr(scripted, name), getattr(trt, name)
        if inspect.isfunction(ours):
            assert signatures(ours, name)[0].names == signatures(real, name)[0].names
            continue
        if issubclass(ours, enum.Enum):
            assert {m.name: m.value for m in ours} == {m.name: int(getattr(real, m.name)) for m in ours}, name
            continue
        own = {**vars(ours), **getattr(made(ours), "__dict__", {})}
        for part in filter(is_public, own):
            assert hasattr(real, part), f"{name}.{part} is made up"
            if inspect.isfunction(own[part]):
                (way,) = signatures(own[part], part)
                assert any(
                    way.names == other.names[: len(way.names)] and other.needed <= len(way.names)
                    for other in signatures(getattr(real, part), part)
                ), f"{name}.{part}{way.names} is not like {getattr(real, part).__doc__}"
            else:
                assert isinstance(getattr(real, part), property) or inspect.isclass(own[part]), (
                    f"{name}.{part}"
                )
