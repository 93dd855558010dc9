"""Nothing leaves the machine and nothing foreign is left on it."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from liveaffect import cli
from liveaffect.realtime.acting import tone_voice, write_wav
from liveaffect.realtime.blazeface import FULL_RANGE, model_path
from liveaffect.realtime.errors import MissingFile
from liveaffect.realtime.testing.sealed import Witness, missing, sealed

ROOT = Path(__file__).resolve().parent.parent


def commands(parser: argparse.ArgumentParser, name: str = "") -> Iterator[str]:
    """Every command that can be given."""
    subs = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not subs:
        yield name
    for sub in subs:
        for part, child in sub.choices.items():
            yield from commands(child, f"{name} {part}".strip())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run: a voice, a picture and a film."""
    if (why := missing()) is not None:
        pytest.skip(why)
    made = tmp_path_factory.mktemp("sealed")
    write_wav(made / "voice.wav", tone_voice(3.0))
    picture = np.full((240, 320, 3), 90, np.uint8)
    cv2.imwrite(str(made / "picture.png"), picture)
    with av.open(str(made / "film.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=10, width=160, height=120)
        for _ in range(20):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture[:120, :160], format="bgr24")))
        file.mux(stream.encode())
    return made


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    """Where the detectors are, since the home is empty."""
    try:
        return {"LIVEAFFECT_FILES": str(model_path(FULL_RANGE).parent)}
    except MissingFile as error:
        pytest.skip(f"needs the face detector's files: {error}")


COMMANDS = {
    "help": ["--help"],
    "doctor": ["doctor"],
    "engines list": ["engines", "list"],
    "engines compare": ["engines", "compare", "onnx", "onnx-int8", "--items", "4"],
    "engines clean": ["engines", "clean"],
    "profile list": ["profile", "list"],
    "predict": ["predict", "picture.png", "voice.wav"],
    "analyze": ["analyze", "film.mp4", "voice.wav", "--cues", "{stem}.jsonl", "--plot", "{stem}.png"],
    "live": [
        "live",
        "--camera",
        "film.mp4",
        "--mic",
        "voice.wav",
        "--sink",
        "live.mp4",
        "--sink",
        "live.csv",
    ],
    "serve": ["serve", "--port", "0", "--seconds", "2"],
    "demo": ["demo", "--seconds", "2", "--window", "no"],
    "calibrate av": ["calibrate", "av", "--file", "film.mp4"],
    "calibrate baseline": ["calibrate", "baseline", "--profile", "me", "--file", "film.mp4"],
    "calibrate report": ["calibrate", "report"],
    "train": ["train", "face", "--data", "."],
    "evaluate": ["evaluate", "--data", "."],
    "export": ["export", "face"],
    "build": ["build", "--precision", "int8"],
    "bench streams": ["bench", "streams", "--cameras", "1", "--seconds", "2"],
    "bench gpu": ["bench", "gpu"],
    "bench compare": ["bench", "compare", "one", "another"],
}
NEEDS_NETWORK = {"fetch", "bench peers"}
"""The commands that are there to bring something: weights, and the packages of other systems."""
TAKES_MINUTES = {"bench quick", "bench latency", "bench full"}
"""They measure what `bench streams` measures, and the stages that `live` and `analyze` run."""
REFUSED = {
    "calibrate av",
    "calibrate baseline",
    "calibrate report",
    "train",
    "evaluate",
    "doctor",
    "export",
    "bench gpu",
    "bench compare",
}
"""With these files some commands can only say no; what they ask for counts all the same."""
OURS = (".cache/liveaffect/", ".local/share/liveaffect/", ".config/liveaffect/")


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_sends_asks_or_leaves_anything(name: str, folder: Path, files: dict[str, str]) -> None:
    """In an empty network with a resolver that records: no look-up, no packet, no foreign file."""
    ran = sealed([sys.executable, "-m", "liveaffect", *COMMANDS[name]], folder, files)
    assert ran.code == 0 or (name in REFUSED and ran.code == 1), ran.err
    assert "Traceback" not in ran.err
    assert ran.asked == ()
    assert ran.sent == {}
    assert [path for path in ran.left if not path.startswith(OURS)] == []


def test_every_command_is_among_them() -> None:
    known = set(commands(cli._parser()))
    untried = {"profile erase", "calibrate int8", "calibrate confidence"} | TAKES_MINUTES | NEEDS_NETWORK
    assert known - untried <= set(COMMANDS)


@pytest.mark.slow
def test_a_longer_run_sends_nothing_either(folder: Path, files: dict[str, str]) -> None:
    """A library that reports after some seconds, as ONNX Runtime does unless it is told not to."""
    write_wav(folder / "long.wav", tone_voice(25.0))
    live = ["live", "--camera", "none", "--mic", "long.wav", "--sink", "long.jsonl"]
    ran = sealed([sys.executable, "-m", "liveaffect", *live], folder, files)
    assert (ran.code, ran.asked, ran.sent, ran.left) == (0, (), {}, ())


def test_importing_everything_sends_nothing(folder: Path) -> None:
    """Whoever uses the package from Python."""
    code = (
        "import importlib, pkgutil, liveaffect\n"
        "for part in ('', '.realtime', '.engines', '.realtime.sinks', '.realtime.web'):\n"
        "    package = 'liveaffect' + part\n"
        "    for found in pkgutil.iter_modules(importlib.import_module(package).__path__):\n"
        "        if not found.name.startswith('_') and not found.ispkg:\n"
        "            try: importlib.import_module(f'{package}.{found.name}')\n"
        "            except (ImportError, OSError): pass\n"
    )
    ran = sealed([sys.executable, "-c", code], folder)
    assert (ran.code, ran.asked, ran.sent, ran.left) == (0, (), {}, ()), ran.err


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("socket.getaddrinfo('telemetry.example', 443)", lambda ran: "telemetry.example" in ran.asked),
        ("socket.create_connection(('192.0.2.1', 443))", lambda ran: ran.sent == {"Ip OutNoRoutes": 1}),
        ("socket.create_connection(('127.0.0.1', 443))", lambda ran: ran.sent == {"Tcp ActiveOpens": 1}),
        ("open(os.path.expanduser('~/deviceid'), 'w').close()", lambda ran: ran.left == ("deviceid",)),
    ],
    ids=["a name", "an address", "this machine", "a file"],
)
def test_what_would_be_sent_or_left_is_seen(code: str, seen: Callable[[Witness], bool], folder: Path) -> None:
    """The witness itself, with a program that does what none of ours may."""
    program = f"import os, socket\ntry: {code}\nexcept OSError: pass"
    assert seen(sealed([sys.executable, "-c", program], folder))


def test_onnx_runtime_is_imported_by_one_module_only() -> None:
    importing = re.compile(r"^\s*(import onnxruntime|from onnxruntime)", re.MULTILINE)
    found = {
        str(path.relative_to(ROOT))
        for folder in ("engines", "realtime", "calibration", "liveaffect", "benchmarks", "tests")
        for at, _, names in os.walk(ROOT / folder)
        for path in (Path(at) / name for name in names if name.endswith(".py"))
        if importing.search(path.read_text("utf-8"))
    }
    # The quantiser takes submodules of it, behind an import of ours. Triton's back end and the programs of
    # peers run where we are not.
    assert found - {"engines/build/triton_model.py", "liveaffect/bench/peers.py"} == {
        "engines/onnx_engine.py",
        "engines/build/quantize.py",
    }
