"""What `liveaffect doctor` looks at, one section a function, each able to fail alone.

A section asks the very code that a run would use: the camera list, the engine loader, the detector.
"""

from __future__ import annotations

import os
import socket
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from realtime.run.doctor import Finding, Section, State, cure_of
from realtime.run.settings import Settings

PACKAGES = ("numpy", "cv2", "ai_edge_litert.interpreter", "onnxruntime", "av", "sounddevice", "mediapipe")
"""Import names of what every installation has."""
OWN = ("realtime", "engines", "calibration")
MB = 1_000_000


def own_packages() -> Iterator[Finding]:
    """Our three packages carry everyday names; another package of that name can stand in their place."""
    folders = {name: _folder_of(name) for name in OWN}
    strangers = [name for name in OWN if folders[name] != home() / name]
    for name in strangers:
        cure = f"uv pip uninstall {name} && uv sync --inexact --reinstall-package liveaffect"
        yield Finding(name, "broken", f"comes from {folders[name]}, not from {home()}", cure)
    if not strangers:
        yield Finding("packages", "ok", f"{', '.join(OWN)} in {home()}")


def libraries() -> Iterator[Finding]:
    """System libraries first, then whether each Python package can be imported with them."""
    from realtime.run.libraries import PROGRAMS, install_command, missing

    absent = missing()
    for needed in absent:
        state: State = "absent" if needed in PROGRAMS else "broken"
        yield Finding(needed.name, state, f"not here; {needed.purpose} needs it", install_command([needed]))
    if not absent:
        yield Finding("system libraries", "ok", "all here")
    for name in PACKAGES:
        try:
            module = import_module(name)
        except (ImportError, OSError) as error:
            yield Finding(name, "broken", str(error).splitlines()[0], cure_of(error) or "uv sync --inexact")
        else:
            yield Finding(name, "ok", str(getattr(module, "__version__", "installed")))


def cameras() -> Iterator[Finding]:
    """What `--camera` could name."""
    from realtime.run.devices import cameras as list_cameras

    found = list_cameras()
    for device in found:
        readable = not device.path or os.access(device.path, os.R_OK | os.W_OK)
        if readable:
            yield Finding(str(device.index), "ok", f"{device.name} {device.path}".strip())
        else:
            cure = 'sudo usermod -aG video "$USER", then log in again'
            yield Finding(str(device.index), "broken", f"{device.name} {device.path} may not be opened", cure)
    if not found:
        detail = "none found" if sys.platform == "linux" else "this platform gives no list; try --camera 0"
        yield Finding(
            "cameras", "absent", detail, "plug one in, or use a file: liveaffect live --camera FILE"
        )


def microphones() -> Iterator[Finding]:
    """What `--mic` could name."""
    from realtime.run.devices import microphones as list_microphones

    found = list_microphones()
    for device in found:
        yield Finding(str(device.index), "ok", f"{device.name} ({device.path})")
    if not found:
        yield Finding("microphones", "absent", "none found", "plug one in, or go without: --mic none")


def sound_and_picture() -> Iterator[Finding]:
    """What `liveaffect calibrate av` measured."""
    from realtime.errors import CalibrationRefused
    from realtime.run.calibrations.device_pairs import CURE, load_pairs

    try:
        pairs = load_pairs()
    except CalibrationRefused as refusal:
        yield Finding("offsets", "broken", str(refusal), CURE)
        return
    for pair in pairs:
        yield Finding("offset", "ok", str(pair))
    if not pairs:
        detail = "no pair of camera and microphone was measured; they are taken to agree"
        yield Finding("offsets", "absent", detail, "liveaffect calibrate av --camera 0 --mic default")


def sound_server(environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """PulseAudio or PipeWire, through which most microphones are reached on Linux."""
    if not sys.platform.startswith("linux"):
        return
    runtime = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    places = {"PulseAudio": runtime / "pulse" / "native", "PipeWire": runtime / "pipewire-0"}
    for name, place in places.items():
        if answers(place):
            yield Finding(name, "ok", f"answers at {place}")
            return
    if given := environ.get("PULSE_SERVER"):
        yield Finding("PulseAudio", "ok", f"PULSE_SERVER names {given}; not tried")
        return
    detail = "no PulseAudio or PipeWire answers; microphones of ALSA alone are used"
    yield Finding("sound server", "absent", detail, "pulseaudio --start")


def display(environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Where a window could open."""
    if not sys.platform.startswith("linux"):
        yield Finding("display", "ok", "the platform's own")
        return
    without = "without one, write files: liveaffect live --sink out.mp4"
    name = environ.get("DISPLAY", "")
    number = name.partition(":")[2].partition(".")[0]
    if name.startswith(":") and number:
        if answers(Path(f"/tmp/.X11-unix/X{number}")):
            yield Finding("display", "ok", f"X server {name}")
        else:
            yield Finding("display", "broken", f"DISPLAY is {name}, and no X server answers there", without)
    elif name:
        yield Finding("display", "ok", f"X server {name}; not tried")
    elif wayland := environ.get("WAYLAND_DISPLAY"):
        yield Finding("display", "ok", f"Wayland {wayland}")
    else:
        yield Finding("display", "absent", "DISPLAY and WAYLAND_DISPLAY are not set", without)


def gpu() -> Iterator[Finding]:
    """Driver, cards, TensorRT and what it needs; imported only when its turn comes."""
    from realtime.run import gpu_examination

    yield from gpu_examination.gpu()


def files(settings: Settings) -> Iterator[Finding]:
    """The fetched detectors, each checked against its SHA-256."""
    import hashlib

    from realtime.run.fetch import COMMAND, FILES, files_dir

    folder = files_dir(Path(settings.face_model) if settings.face_model else None)
    for file in FILES:
        path = folder / file.name
        if not path.is_file():
            yield Finding(file.name, "broken", f"not in {folder}", COMMAND)
        elif hashlib.sha256(path.read_bytes()).hexdigest() != file.sha256:
            yield Finding(file.name, "broken", f"{path} is damaged: its SHA-256 differs", COMMAND)
        else:
            yield Finding(file.name, "ok", str(path))


def disk() -> Iterator[Finding]:
    """What the installation takes."""
    packages = Path(sysconfig.get_paths()["purelib"])
    yield Finding("Python packages", "ok", f"{size_of(packages) / MB:.0f} MB in {packages}")
    weights = home() / "engines" / "weights"
    yield Finding("weights", "ok", f"{size_of(weights) / MB:.1f} MB in {weights}")


def home() -> Path:
    """The folder that our three packages lie in: the checkout, or where a wheel was installed."""
    return Path(__file__).resolve().parent.parent.parent


def size_of(folder: Path) -> int:
    """Bytes on disk below `folder`, every file once however many links lead to it."""
    sizes: dict[tuple[int, int], int] = {}
    for path, _, names in os.walk(folder):
        for name in names:
            status = os.lstat(os.path.join(path, name))
            sizes[status.st_dev, status.st_ino] = getattr(status, "st_blocks", 0) * 512 or status.st_size
    return sum(sizes.values())


def answers(place: Path) -> bool:
    """Whether a server accepts connections at this Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(1.0)
        try:
            caller.connect(str(place))
        except OSError:
            return False
    return True


def _folder_of(name: str) -> Path | None:
    spec = find_spec(name)
    return Path(spec.origin).resolve().parent if spec and spec.origin else None


def engines(settings: Settings) -> Iterator[Finding]:
    """Every engine once; imported only when its turn comes."""
    from realtime.run import self_test

    yield from self_test.engines(settings)


def known_face(settings: Settings) -> Iterator[Finding]:
    """A face that must be found."""
    from realtime.run import self_test

    yield from self_test.known_face(settings)


def known_voice(settings: Settings) -> Iterator[Finding]:
    """A voice that must be heard."""
    from realtime.run import self_test

    yield from self_test.known_voice(settings)


def all_sections(settings: Settings) -> tuple[Section, ...]:
    """Everything there is to look at, in the order in which one thing needs another."""
    return (
        ("own packages", own_packages),
        ("libraries", libraries),
        ("files", partial(files, settings)),
        ("cameras", cameras),
        ("microphones", microphones),
        ("sound and picture", sound_and_picture),
        ("sound server", sound_server),
        ("display", display),
        ("GPU", gpu),
        ("engines", partial(engines, settings)),
        ("self-test: face", partial(known_face, settings)),
        ("self-test: voice", partial(known_voice, settings)),
        ("size on disk", disk),
    )
