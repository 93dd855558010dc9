"""Every tunable of a run in one frozen dataclass. Flag over environment over config file over default.

`resolve` does that ranking for all fields alike; the command line only names them. Environment names are
`LIVEAFFECT_` and the field in capitals; the config file is TOML with the fields as keys.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints
from urllib.parse import urlencode

from liveaffect.realtime.endings import names_a_file
from liveaffect.realtime.errors import SettingsError

if TYPE_CHECKING:
    from liveaffect.realtime.wiring import Say, SpokenChoice, Tools
    from liveaffect.spoken_choice import SpokenWish

_LOG = logging.getLogger(__name__)
_ABOUT_ONE = re.compile(r"(face|voice|fusion): ('|scripted )")
ENVIRONMENT_PREFIX = "LIVEAFFECT_"
_NEARLY = 0.9
"""From this likeness on a name is taken for another one with a slip."""
LONGEST_S = 1e8
"""Three years: beyond it no clock of ours counts."""
LEAST_SIDE_PX, MOST_SIDE_PX = 16, 16_384
_MOST_CONFIG_BYTES = 1_000_000
_KINDS = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}
OVERLAY_MODES = ("auto", "locked", "late")
VOICE_CHOICES = ("auto", "small", "full")
ENGINE_CHOICES = ("auto", "tensorrt", "torch-gpu", "onnx", "onnx-int8", "torch", "scripted")
SERVERS = "triton://"
"""Engines that are servers begin like this; `engines/triton_engine.py` reads the rest."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run. The meaning of each field is the string under it."""

    camera: tuple[str, ...] = ("0",)
    """Cameras: index, part of a name, device, file, URL, or 'none'. Several are analysed together."""
    mic: tuple[str, ...] = ("auto",)
    """Microphones: 'default', index, part of a name, or 'none'; 'auto': the default one, none with a film."""
    pair: tuple[str, ...] = ()
    """CAMERA=MICROPHONE: this microphone hears the people before this camera only, as screen=output does."""
    size: str = "640x480"
    """Picture size asked of the camera, WIDTHxHEIGHT."""
    fps: float = 30.0
    """Pictures a second asked of the camera."""
    sink: tuple[str, ...] = ()
    """Outputs: 'window', a file named by its ending (.mp4, .jsonl, .csv, .png), 'camera', a server."""
    engine: str = "auto"
    """Which back end runs the networks: auto, tensorrt, onnx, onnx-int8, torch, scripted, triton://HOST:8001."""
    send_sound: bool = False
    """Let servers of networks have sound as well as face crops; what people say can be understood in it."""
    server_ca: str = ""
    """File with the certificates that servers of networks may show, instead of the system's."""
    server_cert: str = ""
    """File with the certificate that this machine shows to servers of networks."""
    server_key: str = ""
    """File with the key of that certificate."""
    require_gpu: bool = False
    """Refuse to start rather than fall back to the CPU."""
    voice: str = "auto"
    """Which voice network: 'small', 'full' (on Whisper), 'auto': full for files, live where it is carried."""
    words: str = "auto"
    """Whisper for what is said: 'off', 'tiny.en', 'base', a folder; 'auto': tiny.en where it can be used."""
    language: str = "auto"
    """The language that is spoken, such as 'en' or 'de'; 'auto' detects it, which tiny.en cannot."""
    transcript: bool = False
    """Write what was said into the cues."""
    overlay: str = "auto"
    """'locked' draws result N on picture N, 'late' the newest on the newest; 'auto' measures."""
    mirror: bool = False
    """Show the picture as in a mirror; boxes in cues stay unmirrored."""
    threads: int = 1
    """Processor threads of each network."""
    face_model: str = ""
    """Folder with the face detector's files, instead of the user's cache."""
    seconds: float = 0.0
    """Stop after this many seconds; 0 runs until stopped."""
    weights: str = ""
    """Folder with other networks than the ones that come with the program."""
    av_offset: str = "stored"
    """How much later sound is stamped than its picture: 'stored' (measured before), or milliseconds."""
    profile: str = ""
    """Personal profile of the only or largest face; see `liveaffect calibrate baseline`."""
    verbose: bool = False
    """Say why each network runs where it runs."""
    notice: bool = True
    """Mark pictures that leave the process: whoever sees them is told that emotions are being analysed."""
    site: str = ""
    """Name of the place whose cameras are watched by a node: cues by camera to servers, no screen."""
    decoder: str = "auto"
    """What decodes network cameras that have a name: auto, software, cuda, vaapi, qsv."""
    host: str = "127.0.0.1"
    """Where `serve` and a node listen; anything but loopback wants a token."""
    port: int = 8765
    """Port of `serve` and of a node; 0 takes any."""
    token: str = dataclasses.field(default="", repr=False)
    """Secret that pages and programs have to know; best given as LIVEAFFECT_TOKEN, and never logged."""
    log_level: str = "warning"
    """debug, info, warning or error; logs go to standard error."""

    def __post_init__(self) -> None:
        for name, wanted in _wanted_kinds().items():
            value = getattr(self, name)
            # A program may give a folder as a path; what a list of names may hold, its reader says.
            if wanted in _KINDS and not (wanted is str and isinstance(value, os.PathLike)):
                _checked(name, value)
        _ = self.picture_size, self.av_offset_ns  # refuse a bad one here, not at the device
        _one_of("overlay", self.overlay, OVERLAY_MODES)
        if not self.engine.startswith(SERVERS):
            _one_of("engine", self.engine, (*ENGINE_CHOICES, f"{SERVERS}HOST:8001"))
        _one_of("voice", self.voice, VOICE_CHOICES)
        _one_of("decoder", self.decoder, ("auto", "software", "cuda", "vaapi", "qsv"))
        _one_of("log_level", self.log_level, ("debug", "info", "warning", "error"))
        if not re.fullmatch(r"[A-Za-z0-9_-]{0,64}", self.site):
            raise SettingsError(f"site is '{self.site:.80}'; it is letters, digits, - and _")
        if not 1 <= self.fps <= 1000:
            raise SettingsError(f"fps is {self.fps}; a camera gives 1 to 1000 pictures a second")
        if not 1 <= self.threads <= 64:
            raise SettingsError(f"threads is {self.threads}; 1 to 64 make sense")
        if not 0 <= self.port <= 65_535:
            raise SettingsError(f"port is {self.port}; it is 0 to 65535")
        if not 0 <= self.seconds <= LONGEST_S:
            raise SettingsError(
                f"seconds is {self.seconds:g}; it is 0 (no end) or a positive number up to {LONGEST_S:g}"
            )

    @property
    def av_offset_ns(self) -> int | None:
        """The offset as it was named; None where it is the stored one."""
        if self.av_offset == "stored":
            return None
        try:
            ms = float(self.av_offset)
        except ValueError:
            ms = math.nan
        if not abs(ms) <= 1000:
            raise SettingsError(
                f"av_offset is '{self.av_offset}'; it is 'stored' or milliseconds from -1000 to 1000"
            )
        return round(ms * 1_000_000)

    @property
    def picture_size(self) -> tuple[int, int]:
        """Width and height."""
        given = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", self.size)
        if given is None:
            raise SettingsError(f"size is '{self.size:.40}'; it is written WIDTHxHEIGHT, such as 640x480")
        size = int(given[1]), int(given[2])
        if not all(LEAST_SIDE_PX <= side <= MOST_SIDE_PX for side in size):
            raise SettingsError(
                f"size is {self.size}; pictures have {LEAST_SIDE_PX} to {MOST_SIDE_PX} pixels a side"
            )
        return size

    @property
    def microphones(self) -> list[str]:
        """Those to listen to. A film brings its own sound, so 'auto' adds no microphone to one."""
        cameras = [name for name in self.camera if name != "none"]
        films = bool(cameras) and all(map(names_a_file, cameras))
        names = ["none" if films else "default"] if self.mic == ("auto",) else self.mic
        return [name for name in names if name != "none"]

    @property
    def pairs(self) -> dict[str, str]:
        """Names of microphones to names of cameras, as sources are called."""
        found: dict[str, str] = {}
        for pair in self.pair:
            camera, equals, mic = pair.rpartition("=")
            if not equals or camera not in self.camera or mic not in self.microphones:
                raise SettingsError(
                    f"--pair {pair}: it is CAMERA=MIC, with names as they stand behind --camera and --mic, "
                    "such as --camera screen --mic output --pair screen=output"
                )
            found[f"mic:{mic}"] = f"camera:{camera}"
        return found

    @property
    def engine_choice(self) -> str:
        """The engine with all that is asked of its servers, as `engines.load` takes it."""
        if not self.engine.startswith(SERVERS):
            return self.engine
        asked = {"ca": self.server_ca, "cert": self.server_cert, "key": self.server_key}
        asked["sound"] = "yes" if self.send_sound else ""
        given = urlencode({name: value for name, value in asked.items() if value})
        return self.engine + (("&" if "?" in self.engine else "?") + given if given else "")

    @property
    def weights_folder(self) -> Path | None:
        """Where the networks are; None for the package's own."""
        return Path(self.weights) if self.weights else None

    @property
    def face_files(self) -> Path | None:
        """Where the face detectors are; None for the user's cache."""
        return Path(self.face_model) if self.face_model else None

    def check_profile(self) -> None:
        """Refuse a profile that is not there, before anything is opened or loaded."""
        from liveaffect.realtime.profile import load_profile

        if self.profile:
            load_profile(self.profile)

    def folders(self, say: Say, *, live: bool = False) -> dict[str, Path | None]:
        """Where the networks of each kind are; `say` gets why the full voice is not taken."""
        from liveaffect.engines.load import folders_of, voice_folder

        full = None
        if self.engine != "scripted":
            full = voice_folder(self.voice, self.weights_folder, live=live, threads=self.threads, report=say)
        return folders_of(self.weights_folder, full)

    def load_tools(self, say: Say, *, live: bool = False) -> Tools:
        """Networks, finders and profile as these settings name them, warmed up."""
        from liveaffect.realtime.profile import profile_of
        from liveaffect.realtime.wiring import keep_small_voice, load_tools

        self.check_profile()

        def report(line: str) -> None:
            """Why each network runs where it runs is for who asks; what stands in for one, for everybody."""
            about_one = _ABOUT_ONE.match(line) is not None and "stand in" not in line
            (_LOG.info if about_one and not self.verbose else say)(line)

        folders = self.folders(say, live=live)
        tools = load_tools(
            report,
            engine=self.engine_choice,
            folders=folders,
            threads=self.threads,
            require_gpu=self.require_gpu,
            face_files=self.face_files,
        )
        if live and folders["voice"] != self.weights_folder:
            keep_small_voice(
                tools, self.weights_folder, report, engine=self.engine_choice, threads=self.threads
            )
        if not self.verbose:
            say(f"networks: {', '.join(tools.networks.names)} (-v says why)")
        profile = profile_of(self.profile, tools.networks, self.weights_folder)
        return dataclasses.replace(tools, profile=profile, spoken=self.spoken(say, live=live))

    def spoken(self, say: Say, *, live: bool = False) -> SpokenChoice | None:
        """What words are heard with; None where they are not, and `say` gets why unless they are off."""
        from liveaffect.spoken_choice import spoken_choice

        if self.words == "auto" and self.engine == "scripted":
            return None
        return spoken_choice(self.spoken_wish, say, live=live)

    @property
    def spoken_wish(self) -> SpokenWish:
        """What was asked for about words."""
        from liveaffect.spoken_choice import SpokenWish

        return SpokenWish(self.words, self.language, self.transcript, self.threads, self.weights_folder)


def chosen_settings(settings: object) -> Settings:
    """What a program brought, or the usual ones. Raises SettingsError for anything else."""
    if settings is None:
        return Settings()
    if not isinstance(settings, Settings):
        raise SettingsError(
            f"settings are a Settings, as Settings(engine='onnx'), and this is a {type(settings).__name__}"
        )
    return settings


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SettingsError(f"{name} is '{value}'; it is one of {', '.join(allowed)}")


def resolve(
    flags: Mapping[str, Any], environment: Mapping[str, str] | None = None, config: Path | None = None
) -> Settings:
    """Flag over environment over config file over default; a name nobody knows is refused."""
    known = {field.name for field in dataclasses.fields(Settings)}
    chosen: dict[str, Any] = {}
    if config is not None:
        chosen |= _from_file(config, known)
    for name in known:
        text = (os.environ if environment is None else environment).get(ENVIRONMENT_PREFIX + name.upper())
        if text is not None:
            chosen[name] = _value_from_text(name, text)
    for name, value in flags.items():
        if name in known and value is not None:
            chosen[name] = tuple(value) if isinstance(value, list) else value
    return Settings(**chosen)


def misspelt(environment: Mapping[str, str]) -> list[str]:
    """A line for each variable that is no setting and nearly is one; others may be somebody else's."""
    known = [ENVIRONMENT_PREFIX + field.name.upper() for field in dataclasses.fields(Settings)]
    given = sorted(name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known)
    if not given:
        return []
    import difflib  # Rarely wanted, and a command has to start quickly.

    meant = {name: difflib.get_close_matches(name, known, 1, _NEARLY) for name in given}
    return [
        f"{name} is no setting and changes nothing; {near[0]} is one" for name, near in meant.items() if near
    ]


def _from_file(path: Path, known: set[str]) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_CONFIG_BYTES + 1)
        if len(content) > _MOST_CONFIG_BYTES:
            raise SettingsError(f"{path} is larger than a megabyte, or has no end; that is no config file")
        entries = tomllib.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"cannot read the config file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # also bytes that are no text
        raise SettingsError(f"the config file {path} is not TOML: {error}") from error
    if unknown := sorted(set(entries) - known):
        raise SettingsError(
            f"the config file {path} sets {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    return {name: _checked(name, value) for name, value in entries.items()}


@cache
def _wanted_kinds() -> dict[str, Any]:
    return get_type_hints(Settings)


def _checked(name: str, value: Any) -> Any:
    wanted = _wanted_kinds()[name]
    if wanted == tuple[str, ...]:
        items = value if isinstance(value, list) else [value]
        return tuple(str(item) for item in items)
    if wanted is float and isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, Integral if wanted is int else wanted) or (
        wanted is not bool and isinstance(value, bool)
    ):
        raise SettingsError(f"{name} is {value!r}; it wants {_KINDS[wanted]}")
    return value


def _value_from_text(name: str, text: str) -> Any:
    wanted = _wanted_kinds()[name]
    if wanted == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if wanted is bool:
        if text.lower() not in ("0", "1", "true", "false", "yes", "no"):
            raise SettingsError(f"{ENVIRONMENT_PREFIX}{name.upper()} is '{text}'; it wants 1 or 0")
        return text.lower() in ("1", "true", "yes")
    try:
        return wanted(text)
    except ValueError as error:
        raise SettingsError(
            f"{ENVIRONMENT_PREFIX}{name.upper()} is '{text:.40}'; it wants {_KINDS[wanted]}"
        ) from error
