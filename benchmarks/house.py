"""How large and how tangled the code is: lines, modules, small files, names defined twice, circles.

    python benchmarks/house.py                    the working tree
    python benchmarks/house.py 79b4995 HEAD .     commits and the working tree (.) side by side

Product is what an installation holds without `realtime/testing`, which is the test kit. A name counts as
defined twice where two or more modules of product and kit have a class or a function of that name at their
top level. A circle is a set of modules that reach each other by imports, those inside functions included.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("engines", "realtime", "calibration", "liveaffect")
KIT = "realtime/testing/"
SMALL = 50

Code = Mapping[str, str]
"""Text by path."""


@dataclass(frozen=True, slots=True)
class House:
    """The figures of one state of the code."""

    product_lines: int
    kit_lines: int
    benchmark_lines: int
    test_lines: int
    modules: int
    """Of product and kit."""
    small: int
    """Files of product and kit with fewer than 50 lines."""
    small_with_content: int
    """Those of them that are not the `__init__.py` of a folder."""
    public_twice: int
    private_twice: int
    circles: int

    def rows(self) -> list[tuple[str, int]]:
        """What a reader is shown, in order."""
        together = self.product_lines + self.kit_lines + self.benchmark_lines
        return [
            ("lines of product, kit and benchmarks", together),
            ("  product", self.product_lines),
            ("  test kit", self.kit_lines),
            ("  benchmarks", self.benchmark_lines),
            ("lines of tests, counted apart", self.test_lines),
            ("modules of product and kit", self.modules),
            (f"files under {SMALL} lines", self.small),
            ("  without __init__.py", self.small_with_content),
            ("names defined in two or more modules", self.public_twice + self.private_twice),
            ("  public", self.public_twice),
            ("  private", self.private_twice),
            ("circles of imports", self.circles),
        ]


def committed(commit: str) -> Code:
    """The Python files of a commit."""
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        wanted = [entry for entry in archive if entry.isfile() and entry.name.endswith(".py")]
        return {entry.name: _text(archive, entry) for entry in wanted}


def _text(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> str:
    opened = archive.extractfile(entry)
    return "" if opened is None else opened.read().decode()


def in_the_tree() -> Code:
    """The Python files of the working tree that git knows or would take in."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    paths = {name: ROOT / name for name in listed.split("\0") if name}
    return {name: path.read_text("utf-8") for name, path in paths.items() if path.is_file()}


def measure_house(code: Code) -> House:
    """All figures."""
    lines = {path: len(text.splitlines()) for path, text in code.items()}
    ours = [path for path in code if path.startswith(tuple(f"{package}/" for package in PRODUCT))]
    kit = [path for path in ours if path.startswith(KIT)]
    small = [path for path in ours if lines[path] < SMALL]
    trees = {path: ast.parse(code[path]) for path in ours}
    twice = defined_twice(trees)
    return House(
        product_lines=sum(lines[path] for path in ours) - sum(lines[path] for path in kit),
        kit_lines=sum(lines[path] for path in kit),
        benchmark_lines=sum(count for path, count in lines.items() if path.startswith("benchmarks/")),
        test_lines=sum(count for path, count in lines.items() if path.startswith("tests/")),
        modules=len(ours),
        small=len(small),
        small_with_content=sum(not path.endswith("__init__.py") for path in small),
        public_twice=sum(not name.startswith("_") for name in twice),
        private_twice=sum(name.startswith("_") for name in twice),
        circles=len(circles(imports_by_module(trees))),
    )


def defined_twice(trees: Mapping[str, ast.Module]) -> dict[str, list[str]]:
    """Names of classes and functions with the modules that define them, where these are several."""
    places: dict[str, set[str]] = defaultdict(set)
    for path, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                places[node.name].add(path)
    return {name: sorted(paths) for name, paths in sorted(places.items()) if len(paths) > 1}


def module_of(path: str) -> str:
    """By what a file is imported, without the `liveaffect.` before the packages below that folder."""
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_by_module(trees: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """The modules of ours that each of ours imports."""
    ours = {module_of(path) for path in trees}

    def plain(name: str) -> str:
        inner = name.removeprefix("liveaffect.")
        return inner if inner in ours else name

    found: dict[str, set[str]] = {}
    for path, tree in trees.items():
        wanted: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                wanted |= {plain(alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inner = {plain(f"{node.module}.{alias.name}") for alias in node.names} & ours
                wanted |= inner if len(inner) == len(node.names) else inner | {plain(node.module or "")}
        found[module_of(path)] = wanted & ours - {module_of(path)}
    return found


def circles(graph: Mapping[str, Iterable[str]]) -> list[set[str]]:
    """Sets of two or more modules that all reach each other."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for other in graph[waiting.pop()]:
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
        return seen

    reach = {name: reached(name) for name in graph}
    found: list[set[str]] = []
    for name in graph:
        circle = {other for other in reach[name] if name in reach[other]} | {name}
        if len(circle) > 1 and circle not in found:
            found.append(circle)
    return found


def table(houses: Mapping[str, House]) -> str:
    """The figures side by side."""
    columns = [house.rows() for house in houses.values()]
    lines = [f"{'':42}" + "".join(f"{name:>12}" for name in houses)]
    for row in zip(*columns, strict=True):
        lines.append(f"{row[0][0]:42}" + "".join(f"{count:>12,}" for _, count in row))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; for the working tree alone also which names are meant."""
    names = list(sys.argv[1:] if arguments is None else arguments) or ["."]
    codes = {name: in_the_tree() if name == "." else committed(name) for name in names}
    print(table({name: measure_house(code) for name, code in codes.items()}))
    if names == ["."]:
        ours = {p: ast.parse(t) for p, t in codes["."].items() if p.split("/")[0] in PRODUCT}
        for name, paths in defined_twice(ours).items():
            print(f"{name:28} {' '.join(paths)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
