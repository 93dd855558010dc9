"""`liveaffect doctor`: what works on this machine, what does not, and the command that mends each.

Every section looks for itself and imports what it needs only then, so that one missing library hides
nothing else. Absent is not broken: a machine without a camera or a GPU is healthy. Only what keeps
installed parts from working makes the exit status 1.
"""

from __future__ import annotations

import os
import socket
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.metadata import version as metadata_version
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from liveaffect.findings import Finding, Section, State, cure_of, report_json, report_text
from liveaffect.settings import Settings, resolve


def doctor(
    as_json: bool = False,
    settings: Settings | None = None,
    out: TextIO | None = None,
    sections: Sequence[Section] | None = None,
) -> int:
    """Write the report to `out` (default: standard output); 0 if nothing is broken, else 1.

    Engines, weights and detectors are those of `settings`; without, those a run without flags would take.
    """
    if sections is None:
        sections = all_sections(settings or resolve({}))
    stream: TextIO = sys.stdout if out is None else out
    if as_json:
        return report_json(stream, sections)
    return report_text(stream, sections)


PACKAGES = ("numpy", "cv2", "ai_edge_litert.interpreter", "onnxruntime", "av", "sounddevice")
"""Import names of what every installation has."""
CARRIERS = ("mediapipe", "matplotlib")
"""Packages that only carry files for us. Importing them would leave a list of fonts in the user's cache."""
MB = 1_000_000


def libraries() -> Iterator[Finding]:
    """System libraries first, then whether each Python package can be imported with them."""
    from liveaffect.findings import PROGRAMS, install_command, missing_libraries

    absent = missing_libraries()
    for needed in absent:
        state: State = "absent" if needed in PROGRAMS else "broken"
        yield Finding(needed.name, state, f"not here; {needed.purpose} needs it", install_command([needed]))
    if not absent:
        yield Finding("system libraries", "ok", "all here")
    with suppress(ImportError, OSError):
        import_module("liveaffect.engines.onnx_engine")  # first, so that the library sends nothing
    for name in PACKAGES:
        try:
            module = import_module(name)
        except (ImportError, OSError) as error:
            yield Finding(name, "broken", str(error).splitlines()[0], cure_of(error) or "uv sync --inexact")
        else:
            yield Finding(name, "ok", str(getattr(module, "__version__", "installed")))
    for name in CARRIERS:
        if find_spec(name) is None:
            yield Finding(name, "broken", "not installed", "uv sync --inexact")
        else:
            yield Finding(name, "ok", f"{metadata_version(name)}; not imported, only its files are used")


TELEMETRY = Path(".cache") / "Microsoft" / "DeveloperTools" / ".onnxruntime"
"""What ONNX Runtime leaves below the home when nobody tells it not to."""


def sent() -> Iterator[Finding]:
    """What libraries would send or leave behind by themselves, and that they do not."""
    with suppress(ImportError, OSError):
        import_module("liveaffect.engines.onnx_engine")
    if os.environ.get("ORT_DISABLE_TELEMETRY") == "1":
        detail = "switched off before it is loaded; else it asks for mobile.events.data.microsoft.com"
        yield Finding("telemetry of onnxruntime", "ok", detail)
    else:
        yield Finding(
            "telemetry of onnxruntime", "broken", "not switched off", "export ORT_DISABLE_TELEMETRY=1"
        )
    left = Path.home() / TELEMETRY
    if left.exists():
        detail = f"{left} is there: another program, or an older version of this one, let it report"
        yield Finding("traces of onnxruntime", "absent", detail, f"rm -r {left}")
    if find_spec("huggingface_hub") is not None:
        detail = (
            "installed; it asks huggingface.co only when it is told to fetch, which this program never does"
        )
        yield Finding("huggingface-hub", "ok", detail)
    detail = "OpenCV, LiteRT, PyAV and PortAudio were watched in an empty network: they ask for nobody"
    yield Finding("other libraries", "ok", detail)


def cameras() -> Iterator[Finding]:
    """What `--camera` could name."""
    from liveaffect.realtime.devices import list_cameras

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
    from liveaffect.realtime.devices import list_microphones
    from liveaffect.realtime.errors import SourceError

    try:
        found = list_microphones()
    except SourceError as error:
        yield Finding("microphones", "broken", str(error), "restart the sound server")
        return
    for device in found:
        yield Finding(str(device.index), "ok", f"{device.name} ({device.path})")
    if not found:
        yield Finding("microphones", "absent", "none found", "plug one in, or go without: --mic none")


def sound_and_picture() -> Iterator[Finding]:
    """What `liveaffect calibrate av` measured."""
    from liveaffect.realtime.device_pairs import CURE, load_pairs
    from liveaffect.realtime.errors import CalibrationRefused

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


SCRIPTS = {
    "Chinese, Japanese, Korean": ("\u65e5\ud55c", "fonts-noto-cjk"),
    "Devanagari, Tamil, Thai": ("\u0905\u0b95\u0e01", "fonts-noto-core"),
}
"""Scripts that the font of the program lacks: a few characters of each, and the Debian package with them."""


def fonts() -> Iterator[Finding]:
    """What text on pictures is written with, and the scripts in which devices' names would be boxes."""
    import shutil

    from liveaffect.realtime.drawing.text import dejavu, font_of
    from liveaffect.realtime.errors import MissingLibrary

    try:
        yield Finding("DejaVu Sans", "ok", dejavu().path)
    except MissingLibrary as error:
        yield Finding("DejaVu Sans", "broken", str(error), "sudo apt-get install fonts-dejavu-core")
        return
    if sys.platform.startswith("linux") and shutil.which("fc-match") is None:
        detail = "not here; without it other fonts of this machine are not found"
        yield Finding("fontconfig", "absent", detail, "sudo apt-get install fontconfig")
    for script, (characters, package) in SCRIPTS.items():
        found = [font_of(char) for char in characters]
        if all(found):
            yield Finding(script, "ok", ", ".join(dict.fromkeys(font.path for font in found if font)))
        else:
            detail = "no font has all of them; names of devices in these show boxes"
            yield Finding(script, "absent", detail, f"sudo apt-get install {package}")


def files(settings: Settings) -> Iterator[Finding]:
    """The fetched detectors, each checked against its SHA-256."""
    import hashlib

    from liveaffect.realtime.blazeface import COMMAND, FILES, files_dir

    folder = files_dir(Path(settings.face_model) if settings.face_model else None)
    for file in FILES:
        path = folder / file.name
        if not path.is_file():
            yield Finding(file.name, "broken", f"not in {folder}", COMMAND)
        elif hashlib.sha256(path.read_bytes()).hexdigest() != file.sha256:
            yield Finding(file.name, "broken", f"{path} is damaged: its SHA-256 differs", COMMAND)
        else:
            yield Finding(file.name, "ok", str(path))


def voice_choice(settings: Settings) -> Iterator[Finding]:
    """Which voice network a run on files would take, and why not the full one."""
    from liveaffect.engines.load import manifest_path, voice_folder
    from liveaffect.engines.manifest import read
    from liveaffect.engines.protocol import EngineError
    from liveaffect.engines.whisper import tensors
    from liveaffect.realtime.blazeface import COMMAND

    lines: list[str] = []
    try:
        full = voice_folder(settings.voice, settings.weights_folder, report=lines.append)
        if full is not None:
            tensors(read(manifest_path("voice", full)))
    except EngineError as error:
        yield Finding("voice", "broken", str(error), COMMAND)
        return
    if full is not None:
        yield Finding("voice", "ok", f"full, from {full}")
    elif lines:
        yield Finding("voice", "absent", lines[0].removeprefix("voice: "), COMMAND)
    else:
        yield Finding("voice", "ok", "small")


def words_choice(settings: Settings) -> Iterator[Finding]:
    """Which Whisper would hear words, and what it costs here."""
    from liveaffect.engines.protocol import EngineError
    from liveaffect.spoken_choice import OFF, try_to_load, why_no_words

    if settings.words == OFF:
        yield Finding("words", "absent", "switched off", "--words auto")
        return
    if why := why_no_words(settings.spoken_wish.name):
        state: State = "absent" if settings.words == "auto" else "broken"
        yield Finding("words", state, why.partition("; `")[0], _words_cure(why))
        return
    try:
        yield Finding("words", "ok", try_to_load(settings.spoken_wish))
    except EngineError as error:
        yield Finding("words", "broken", str(error), "liveaffect fetch")


def _words_cure(why: str) -> str:
    return why.split("`")[1] if "`" in why else why.rpartition(": ")[2]


def disk() -> Iterator[Finding]:
    """What the installation takes."""
    from liveaffect.engines.manifest import SHIPPED

    packages = Path(sysconfig.get_paths()["purelib"])
    yield Finding("Python packages", "ok", f"{size_of(packages) / MB:.0f} MB in {packages}")
    yield Finding("weights", "ok", f"{size_of(SHIPPED) / MB:.1f} MB in {SHIPPED}")


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


def engines(settings: Settings) -> Iterator[Finding]:
    """Every engine once; imported only when its turn comes."""
    from liveaffect import self_test

    yield from self_test.try_engines(settings)


def known_face(settings: Settings) -> Iterator[Finding]:
    """A face that must be found."""
    from liveaffect import self_test

    yield from self_test.try_known_face(settings)


def known_voice(settings: Settings) -> Iterator[Finding]:
    """A voice that must be heard."""
    from liveaffect import self_test

    yield from self_test.try_known_voice(settings)


def all_sections(settings: Settings) -> tuple[Section, ...]:
    """Everything there is to look at, in the order in which one thing needs another."""
    return (
        ("libraries", libraries),
        ("nothing sent", sent),
        ("files", partial(files, settings)),
        ("cameras", cameras),
        ("microphones", microphones),
        ("sound and picture", sound_and_picture),
        ("sound server", sound_server),
        ("display", display),
        ("fonts", fonts),
        ("GPU", gpu),
        ("engines", partial(engines, settings)),
        ("voice network", partial(voice_choice, settings)),
        ("words", partial(words_choice, settings)),
        ("self-test: face", partial(known_face, settings)),
        ("self-test: voice", partial(known_voice, settings)),
        ("size on disk", disk),
    )


DRIVER = "install NVIDIA's driver for the card; the CPU needs nothing"
PACKAGE = "uv sync --inexact --extra rtx"
PYCUDA = "pip install pycuda, with nvcc and the CUDA headers on the path"
GIB = 1 << 30


def gpu() -> Iterator[Finding]:
    """Everything that a plan needs to run here, in the order in which one thing needs another."""
    yield from cards()
    yield tensorrt()
    yield from memory()
    yield kept_plans()


def cards() -> Iterator[Finding]:
    """The driver and what it offers."""
    from liveaffect.engines.gpu_driver import gpus, why_no_gpu

    if why := why_no_gpu():
        yield Finding("GPU", "absent", why, DRIVER)
        return
    found = gpus()
    if not found:
        yield Finding(
            "GPU", "broken", "the driver counts a GPU and cannot describe it", "restart the machine"
        )
        return
    yield Finding("driver", "ok", "offers CUDA {}.{}".format(*found[0].driver))
    for card in found:
        about = f"{card.name}, compute capability {card.sm}, {card.memory / GIB:.1f} GiB"
        yield Finding(f"GPU {card.index}", "ok", about)


def tensorrt() -> Finding:
    """Which TensorRT is installed, and whether the driver is new enough for it."""
    from liveaffect.engines.gpu_driver import TENSORRT_MODULES, find_backend, oldest_driver, why_too_old
    from liveaffect.engines.protocol import EngineUnavailable

    try:
        backend = find_backend()
    except EngineUnavailable as err:
        is_there = any(find_spec(name) for name in TENSORRT_MODULES)
        return Finding("TensorRT", "broken" if is_there else "absent", str(err), PACKAGE)
    if why := why_too_old(backend.flavour):
        return Finding("TensorRT", "absent", f"{backend}, but {why}", DRIVER)
    (major, minor), release = oldest_driver(backend.flavour)
    needs = f"needs a driver for CUDA {major}.{minor} (release {release} on Linux)"
    return Finding("TensorRT", "ok", f"{backend}; {needs}")


def memory() -> Iterator[Finding]:
    """Each way to the memory of a card; one of them is enough."""
    from liveaffect.engines.device_memory import why_no_memory
    from liveaffect.engines.gpu_driver import why_no_gpu

    without_driver = why_no_gpu()
    for name, cure in (("cuda-python", PACKAGE), ("pycuda", PYCUDA)):
        why = why_no_memory(name)
        if why is None:
            yield Finding(name, "ok", "works")
        else:
            yield Finding(name, "absent", why, DRIVER if why == without_driver else cure)


def kept_plans() -> Finding:
    """How many plans were built for this user."""
    from liveaffect.engines import plans

    found = plans.listed()
    size = sum(plan.size for plan in found)
    where = plans.plans_dir()
    about = f"{len(found)}, {size / 1e6:.1f} MB in {where}" if found else f"none in {where}"
    return Finding("plans", "ok", f"{about}; see 'liveaffect engines list'")
