"""The shape of the project: imports point one way, files stay small, one module reads time, maps are true."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("engines", "realtime", "calibration", "liveaffect")
"""Each may import itself and those to its left."""

VOCABULARY = ("endings", "clock", "errors", "frame", "cue")
"""Each may import those to its left, and of `engines` only the labels and `recipe`."""

GROUPS = {
    "vocabulary": set(VOCABULARY),
    "rings": {"ring"},
    "planning": {"window"},
    "seeing": {"blazeface", "search", "track", "crop", "face_analyzer"},
    "listening": {"signs", "attribution"},
    "evidence": {"expression", "estimate"},
    "judging": {
        "scheduler",
        "voice_analyzer",
        "people",
        "networks",
        "health",
        "words",
        "utterance",
        "hearing",
        "spoken",
    },
    "drawing": {"overlay", "drawing"},
    "sources": {
        "devices",
        "decode",
        "film_clock",
        "sound_device",
        "camera",
        "stream",
        "microphone",
        "shared_screen",
        "replay",
        "portrait",
        "acting",
    },
    "sinks": {"sinks"},
    "web": {"web"},
    "running": {
        "live",
        "analysis",
        "lockstep",
        "supervisor",
        "feeds",
        "wiring",
        "screen",
        "device_pairs",
        "profile",
    },
    "testing": {"testing"},
}
"""Every file or folder of `realtime`. A new one needs a place here, which is when its imports are decided."""

MAY_IMPORT = {
    "vocabulary": set[str](),
    "rings": {"vocabulary"},
    "planning": {"vocabulary"},
    "seeing": {"vocabulary"},
    "listening": {"vocabulary"},
    "evidence": {"vocabulary"},
    "judging": {"vocabulary", "rings", "planning", "seeing", "listening", "evidence"},
    "drawing": {"vocabulary"},
    "sources": {"vocabulary", "rings"},
    "sinks": {"vocabulary", "rings", "drawing", "web"},
    "web": {"vocabulary", "rings"},
    "running": {*GROUPS} - {"testing"},
    "testing": {*GROUPS},
}
"""Besides its own group."""

OF_ENGINES = {
    "engines",
    "engines.recipe",
    "engines.protocol",
    "engines.user_folders",
}
"""All that a station may know of engines; what wires a run knows how to load them."""

TIMEKEEPERS = {"realtime/clock.py", "engines/stopwatch.py"}
"""The second exists because engines may not import `realtime`; it measures processor time and never waits."""

TORCH = ("engines/model/", "engines/training/", "engines/build/", "engines/torch_engine.py")
MAX_LINES, MAX_FUNCTION, MAX_SAME_NAMES = 700, 60, 10


def files(*folders: str) -> list[Path]:
    """Python files below these folders; the links below `liveaffect/` are not followed."""
    walked = (step for folder in folders for step in os.walk(ROOT / folder))
    return sorted(Path(at) / name for at, _, names in walked for name in names if name.endswith(".py"))


SOURCES = files(*PACKAGES)
EVERYTHING = files(*PACKAGES, "tests", "benchmarks", "examples")


def name_of(path: Path) -> str:
    """Such as `engines.load`: what it is imported by, without the `liveaffect.` that all have in common."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Modules that a file imports, whether ours or foreign; inside functions too."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {plain(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{shown(path)} imports relatively; write the whole name"
            # `from package import module` is an import of the module, not of the package.
            inner = {plain(f"{node.module}.{alias.name}") for alias in node.names} & OURS
            found |= inner
            if len(inner) < len(node.names):
                found.add(plain(node.module or ""))
    return frozenset(found)


def plain(module: str) -> str:
    """The name without the `liveaffect.` of the three packages that lie below it."""
    inner = module.removeprefix("liveaffect.")
    return inner if inner.split(".")[0] in PACKAGES else module


OURS = {name_of(path) for path in SOURCES}


def place_of(module: str) -> str:
    """The group of a module of `realtime`, or '' if it has none."""
    part = module.split(".")[1] if "." in module else "__init__"
    return next((group for group, parts in GROUPS.items() if part in parts), "")


def of_realtime(path: Path) -> set[str]:
    return {m for m in imports_of(path) if m.split(".")[0] == "realtime" and m != "realtime"}


def test_packages_import_themselves_and_those_below_them_only() -> None:
    for path in SOURCES:
        own = PACKAGES.index(name_of(path).split(".")[0])
        for module in imports_of(path):
            top = module.split(".")[0]
            if top in PACKAGES:
                assert PACKAGES.index(top) <= own, f"{shown(path)} imports {module}"
            assert top not in ("tests", "benchmarks"), f"{shown(path)} imports {module}"


def test_every_file_of_realtime_has_a_group() -> None:
    for path in files("realtime"):
        if name_of(path) != "realtime":
            assert place_of(name_of(path)), f"{shown(path)} has no group; decide what it may import"


def test_groups_import_what_they_may_and_nothing_else() -> None:
    wrong = []
    for path in files("realtime"):
        own = place_of(name_of(path))
        for module in of_realtime(path):
            group = place_of(module)
            if own in ("", group) or group in MAY_IMPORT[own]:
                continue
            wrong.append(f"{shown(path)} ({own}) imports {module} ({group})")
    assert not wrong, "\n".join(wrong)


def test_the_vocabulary_is_in_order_and_knows_of_engines_only_labels_and_recipe() -> None:
    for rank, name in enumerate(VOCABULARY):
        for module in imports_of(ROOT / "realtime" / f"{name}.py"):
            if module.startswith("realtime."):
                assert module.split(".")[1] in VOCABULARY[:rank], f"{name} imports {module}"
            elif module.startswith("engines"):
                assert module in ("engines", "engines.recipe"), f"{name} imports {module}"


def test_the_path_knows_of_engines_only_their_protocol_and_the_recipe() -> None:
    for path in files("realtime"):
        if place_of(name_of(path)) in ("running", "testing"):
            continue
        known = {m for m in imports_of(path) if m.split(".")[0] in ("engines", "calibration", "liveaffect")}
        assert known <= OF_ENGINES, f"{shown(path)} imports {sorted(known - OF_ENGINES)}"


def test_nothing_imports_itself_in_a_circle() -> None:
    graph = {name_of(path): imports_of(path) & OURS for path in SOURCES}
    while True:
        free = {name for name, wanted in graph.items() if not (wanted & graph.keys()) - {name}}
        if not free:
            break
        graph = {name: wanted for name, wanted in graph.items() if name not in free}
    assert not graph, f"in or behind a circle: {sorted(graph)}"


def test_only_timekeepers_import_time() -> None:
    for path in SOURCES:
        if shown(path) not in TIMEKEEPERS:
            bad = {m for m in imports_of(path) if m.split(".")[0] in ("time", "datetime")}
            assert not bad, f"{shown(path)} imports {bad}; take a Clock instead"


def test_torch_stays_where_networks_are_defined_trained_and_exported() -> None:
    for path in SOURCES:
        if not shown(path).startswith(TORCH):
            bad = {m for m in imports_of(path) if m.split(".")[0] in ("torch", "torchvision", "torchaudio")}
            assert not bad, f"{shown(path)} imports {bad}"


def test_the_test_kit_is_imported_by_nothing_that_runs() -> None:
    for path in SOURCES:
        if not shown(path).startswith("realtime/testing/"):
            for module in imports_of(path):
                assert not module.startswith("realtime.testing"), f"{shown(path)} imports {module}"
                assert module.split(".")[0] not in ("pytest", "hypothesis"), f"{shown(path)} imports {module}"


def test_no_file_and_no_function_is_too_long_to_read() -> None:
    long = []
    for path in EVERYTHING:
        lines = len(path.read_text("utf-8").splitlines())
        if lines > MAX_LINES:
            long.append(f"{shown(path)} has {lines} lines")
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION:
                    long.append(f"{shown(path)}: {node.name} has {length} lines")
    assert not long, f"at most {MAX_LINES} and {MAX_FUNCTION}: " + "; ".join(long)


def test_hardly_a_name_means_two_things() -> None:
    """Whoever searches for a class or a function finds one; `benchmarks/house.py` lists the others."""
    places: dict[str, set[str]] = {}
    for path in SOURCES:
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                places.setdefault(node.name, set()).add(shown(path))
    twice = {name: sorted(paths) for name, paths in places.items() if len(paths) > 1}
    assert len(twice) <= MAX_SAME_NAMES, f"give one of each a name of its own: {twice}"


def test_every_module_says_what_it_is_for() -> None:
    for path in EVERYTHING:
        assert ast.get_docstring(tree_of(path)), f"{shown(path)} has no docstring"


def test_no_module_has_a_name_that_says_nothing() -> None:
    for path in EVERYTHING:
        vague = {"utils", "util", "helpers", "helper", "manager", "core", "base", "common", "misc"}
        assert not vague & set(path.stem.split("_")), f"{shown(path)}: name it after what it holds"


def test_the_map_of_the_path_names_every_station() -> None:
    text = ast.get_docstring(tree_of(ROOT / "realtime" / "__init__.py")) or ""
    named = set(re.findall(r"\w+", text))
    stations = {path.stem for path in (ROOT / "realtime").glob("*.py")} - {"__init__", "__main__"}
    assert not stations - named, f"the map in realtime/__init__.py lacks {sorted(stations - named)}"


def test_whoever_catches_everything_says_why_on_that_line() -> None:
    for path in SOURCES:
        lines = path.read_text("utf-8").splitlines()
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            if node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"):
                reason = lines[node.lineno - 1].partition("# noqa: BLE001")[2].strip()
                assert len(reason) > 15, (
                    f"{shown(path)}:{node.lineno} catches everything and does not say why"
                )


def test_tests_are_no_package_so_that_they_run_against_what_is_installed() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize(
    "module", ["liveaffect.cli", "liveaffect.realtime.scheduler", "liveaffect.engines.load"]
)
def test_starting_the_run_path_loads_none_of_the_heavy_packages(module: str) -> None:
    code = (
        f"import sys, {module}; heavy = {{'torch', 'mediapipe', 'sounddevice', 'hypothesis', 'pytest'}}; "
        "print(*sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [], f"import {module} loads {ran.stdout}"
