"""Packs what a GPU machine without internet needs, in parts of at most 45 MB with checksums and an unpacker.

    python benchmarks/gpu/pack.py OUT --networks FOLDER [--wheel FILE]... [--python 3.12] [--also onnxruntime]

Three archives: `runtime` (TensorRT-RTX and device memory, unpacked wheels for the Python over there, and
further wheels from files, such as a built pycuda), `networks` (what `prepare.py` wrote) and `project` (this
checkout as committed). They are separate so that what has to cross a narrow link can cross it one by one.
Wheels are unpacked before they are packed: the libraries inside shrink to a third that way.
"""

from __future__ import annotations

import argparse
import json
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BENCHMARKS))

from gpu.unpack import LIST, sha256_of

PART_BYTES = 45_000_000
WHEELS = (
    "tensorrt-rtx-cu13-libs",
    "tensorrt-rtx-cu13-bindings",
    "cuda-bindings",
    "cuda-pathfinder",
)
"""What runs plans; NumPy is expected over there, as every GPU image has it (`--also numpy` if not)."""
FRONT = "tensorrt-rtx-cu13"
"""A few lines that import the bindings; comes as source only, and is built here."""
PLATFORMS = (
    "manylinux_2_28_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux_2_24_x86_64",
    "manylinux_2_17_x86_64",
)
_DICTIONARY = 256 << 20
Filters = list[dict[str, int]]


def pip(*words: str) -> None:
    """Run pip of this Python; what it says goes to the terminal."""
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *words], check=True)


def download(names: Sequence[str], python: str, folder: Path) -> list[Path]:
    """Wheels of these packages for another Python, without what they require."""
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    pip(
        "download", "--quiet", "--no-deps", "--only-binary=:all:", "--implementation", "cp",
        "--python-version", python, *platforms, "--dest", str(folder), *names,
    )  # fmt: skip
    return sorted(folder.glob("*.whl"))


def front_wheel(libraries: Path, folder: Path) -> Path:
    """The front package of the same version as the libraries, built from its source."""
    version = libraries.name.split("-")[1]
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), f"{FRONT}=={version}")
    return next(folder.glob(f"{FRONT.replace('-', '_')}-*.whl"))


def unzip(wheels: Sequence[Path], site: Path) -> None:
    """Unpack wheels into one folder and drop what only a debugger wants."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as content:
            content.extractall(site)
    strip = shutil.which("strip")
    for library in sorted(site.rglob("*.so*")) if strip else []:
        subprocess.run([str(strip), "--strip-unneeded", str(library)], check=False, capture_output=True)


def project(folder: Path) -> None:
    """This checkout as it is committed."""
    with tempfile.TemporaryFile() as archive:
        subprocess.run(["git", "archive", "HEAD"], cwd=BENCHMARKS.parent, stdout=archive, check=True)
        archive.seek(0)
        with tarfile.open(fileobj=archive) as tar:
            tar.extractall(folder, filter="data")


def compressor(*, libraries: bool, fast: bool) -> Filters:
    """For libraries a dictionary as large as the largest and x86 jumps made alike, which saves a tenth there.

    Weights hardly shrink, whatever is tried.
    """
    if fast or not libraries:
        return [{"id": lzma.FILTER_LZMA2, "preset": 1}]
    best = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": _DICTIONARY}
    return [{"id": lzma.FILTER_X86}, best]


def pack(
    name: str, folder: Path, out: Path, filters: Filters, part_bytes: int = PART_BYTES
) -> dict[str, Any]:
    """One folder as parts; its entry for the list. The same folder gives the same bytes."""
    whole = out / f"{name}.tar.xz"
    with (
        lzma.open(whole, "wb", filters=filters) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted(folder.rglob("*")):
            tar.add(path, path.relative_to(folder).as_posix(), recursive=False, filter=_anonymous)
    parts: list[dict[str, Any]] = []
    with whole.open("rb") as file:
        while content := file.read(part_bytes):
            part = out / f"{name}.part-{len(parts):02d}"
            part.write_bytes(content)
            parts.append({"file": part.name, "bytes": len(content), "sha256": sha256_of(part)})
    whole.unlink()
    raw = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"name": name, "bytes_unpacked": raw, "parts": parts}


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def write_list(archives: Sequence[dict[str, Any]], out: Path) -> None:
    """The list of all parts, and the unpacker beside them."""
    (out / LIST).write_text(json.dumps({"archives": list(archives)}, indent=1) + "\n", "utf-8")
    shutil.copyfile(Path(__file__).with_name("unpack.py"), out / "unpack.py")


def table(archives: Sequence[dict[str, Any]]) -> list[str]:
    """What came out, for a person."""
    lines = [f"{'archive':<10}{'unpacked':>12}{'packed':>12}  parts"]
    for archive in archives:
        sizes = [part["bytes"] for part in archive["parts"]]
        mb = f"{archive['bytes_unpacked'] / 1e6:>9.1f} MB{sum(sizes) / 1e6:>9.1f} MB"
        lines.append(f"{archive['name']:<10}{mb}  {', '.join(f'{size / 1e6:.1f}' for size in sizes)} MB")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Gather, pack, list."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--networks", type=Path, help="what prepare.py wrote")
    parser.add_argument("--wheel", type=Path, action="append", default=[], help="one more wheel, from a file")
    parser.add_argument("--also", default="", help="further packages for over there, with commas")
    parser.add_argument("--leave-out", default="", help="packages that are over there already, with commas")
    parser.add_argument("--python", default="3.12", help="the Python over there (default 3.12)")
    parser.add_argument("--no-runtime", action="store_true", help="leave TensorRT-RTX out: it is there")
    parser.add_argument("--fast", action="store_true", help="pack libraries quickly instead of small")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    for old in given.out.glob("*.part-*"):
        old.unlink()
    with tempfile.TemporaryDirectory() as scratch:
        folders = _gather(given, Path(scratch))
        archives = [
            pack(name, folder, given.out, compressor(libraries=name == "runtime", fast=given.fast))
            for name, folder in folders.items()
        ]
    write_list(archives, given.out)
    print("\n".join(table(archives)))
    return 0


def _gather(given: argparse.Namespace, scratch: Path) -> dict[str, Path]:
    """The folders to pack, by the name of their archive."""
    wheels, site, checkout = scratch / "wheels", scratch / "site", scratch / "project"
    for folder in (wheels, site, checkout):
        folder.mkdir()
    files = list(given.wheel)
    there = given.leave_out.split(",")
    ours = [] if given.no_runtime else [name for name in WHEELS if name not in there]
    names = [*ours, *filter(None, given.also.split(","))]
    if names:
        files += download(names, given.python, wheels)
    if not given.no_runtime:
        libraries = next(wheels.glob(f"{WHEELS[0].replace('-', '_')}-*.whl"))
        files.append(front_wheel(libraries, scratch / "front"))
    unzip(files, site)
    project(checkout)
    folders = {"runtime": site, "networks": given.networks, "project": checkout}
    return {name: folder for name, folder in folders.items() if folder and any(folder.iterdir())}


if __name__ == "__main__":
    sys.exit(main())
