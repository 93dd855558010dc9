"""Other systems on the same pictures and the same sound, each in an environment of its own that is made here.

What each says of a picture or a second of sound is not compared here, only what it costs: time on one core,
the first answer, memory, the size of its installation, and how long after a face changes its label changes.
A row that cannot be had says why. Weights that no package carries are taken from `--data`.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from liveaffect.bench import runs
from liveaffect.bench.measure import machine, short
from liveaffect.engines import stopwatch
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.drawn_head import SCENE, ActingHead
from liveaffect.realtime.errors import EndOfStream, InputRefused
from liveaffect.realtime.estimate import Estimate
from liveaffect.realtime.frame import VideoFrame
from liveaffect.realtime.lockstep import Watched, analyse
from liveaffect.realtime.sinks.outputs import Outputs
from liveaffect.realtime.speech import tone_voice
from liveaffect.settings import Settings

FPS = 30.0
FROM_S, SECONDS = 1.0, 6.0
"""The part of the drawn head's scene that everybody is shown; it smiles and is surprised in it."""
TIMEOUT_S = 900.0
Say = Callable[[str], None]

_AROUND = """
import json, resource, sys, time
import numpy as np
began = time.perf_counter()
{setup}
pictures, sound = np.load(sys.argv[1], mmap_mode="r"), np.load(sys.argv[2])
first, taken, labels = None, [], []
for item in {items}:
    cpu = time.process_time()
    labels.append(ask(item))
    taken.append(time.process_time() - cpu)
    first = first or time.perf_counter() - began
rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
cpu_ms = 1000 * float(np.median(taken[1:]))
print(json.dumps(dict(first_s=first, cpu_ms=cpu_ms, memory_mb=rss, labels=labels)))
"""
_FER = """
from fer.fer import FER
detector = FER(mtcnn={mtcnn})
def ask(picture):
    found = detector.detect_emotions(picture[:, :, ::-1].copy())
    return max(found[0]["emotions"], key=found[0]["emotions"].get) if found else ""
"""
_XCEPTION = """
import os
import cv2
from tensorflow.keras.models import load_model
names = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
model = load_model(os.path.join(sys.argv[3], "fer2013_mini_XCEPTION.102-0.66.hdf5"), compile=False)
finder = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
def ask(picture):
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    boxes = finder.detectMultiScale(grey, 1.3, 5)
    if not len(boxes):
        return ""
    x, y, w, h = boxes[0]
    face = cv2.resize(grey[y:y + h, x:x + w], (64, 64)).astype("float32") / 255
    return names[int(model((face * 2 - 1)[None, :, :, None]).numpy().argmax())]
"""
_SMILE = """
import opensmile
smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
def ask(piece):
    return str(smile.process_signal(piece, 16000).shape)
"""
_SECONDS = "[sound[k:k + 16000] for k in range(0, len(sound) - 15999, 4000)]"


@dataclass(frozen=True, slots=True)
class Peer:
    """One system: what is installed for it, and how it is asked."""

    name: str
    packages: tuple[str, ...]
    setup: str
    items: str = "pictures"
    needs: str = ""
    """A file that has to lie in `--data`."""


PEERS = (
    Peer("fer, Haar", ("fer==25.10.3", "setuptools<81", "opencv-contrib-python<5"), _FER.format(mtcnn=False)),
    Peer("fer, MTCNN", ("fer==25.10.3", "setuptools<81", "opencv-contrib-python<5"), _FER.format(mtcnn=True)),
    Peer(
        "Haar and mini-XCEPTION",
        ("tensorflow", "opencv-python-headless<5", "numpy"),
        _XCEPTION,
        needs="fer2013_mini_XCEPTION.102-0.66.hdf5",
    ),
    Peer("openSMILE eGeMAPS, a second of sound", ("opensmile==2.6.0",), _SMILE, _SECONDS),
)


def run_peers(names: Sequence[str] | None, data: Path | None, out: Path, settings: Settings, say: Say) -> str:
    """Measure and write; the table for the terminal."""
    chosen = [peer for peer in PEERS if names is None or any(name in peer.name for name in names)]
    if not chosen:
        raise InputRefused(f"no such peer; known are {', '.join(peer.name for peer in PEERS)}")
    out.mkdir(parents=True, exist_ok=True)
    pictures, sound = out / "pictures.npy", out / "sound.npy"
    head = ActingHead([])
    first = round(FROM_S * FPS)
    film = [head.draw(at) for at in range(first, first + round(SECONDS * FPS))]
    np.save(pictures, np.stack(film))
    np.save(sound, tone_voice(5.0))
    say("liveaffect")
    rows = [_ours(settings, film, say)]
    for peer in chosen:
        say(peer.name)
        rows.append({"system": peer.name, **_row(peer, data, out, (pictures, sound))})
    for path in (pictures, sound):
        path.unlink()
    record = {"format": 1, "machine": machine(), "rows": rows}
    runs.write_record(out / "peers.json", record)
    runs.write_page(out / "peers.html", "Peers on the same pictures", [("Rows", runs.as_html(rows))])
    return f"{runs.as_text(rows)}\n\nwrote {out / 'peers.json'} and {out / 'peers.html'}"


def _row(peer: Peer, data: Path | None, out: Path, media: tuple[Path, Path]) -> dict[str, Any]:
    """One peer in an environment of its own, or why there is none."""
    if peer.needs and (data is None or not (data / peer.needs).exists()):
        return {"why_not": f"{peer.needs} is not in the folder of --data"}
    home = out / "environments" / "".join(sign if sign.isalnum() else "-" for sign in peer.name)
    python = home / "bin" / "python"
    try:
        if not python.exists():
            _made(home, peer.packages)
        program = _AROUND.format(setup=peer.setup, items=peer.items)
        given = [str(python), "-c", program, *map(str, media), str(data or "")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        ran = subprocess.run(
            given, capture_output=True, text=True, timeout=TIMEOUT_S, check=True, env=environment
        )
        told = json.loads(ran.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as err:
        lines = (err.stderr or err.stdout or "").strip().splitlines()
        return {"why_not": f"ended with {err.returncode}: {lines[-1] if lines else 'it says nothing'}"}
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as err:
        return {"why_not": str(err)}
    labels = told.pop("labels")
    size_mb = sum(path.stat().st_size for path in home.rglob("*") if path.is_file()) / 1e6
    row = {name: short(value) for name, value in told.items()}
    return {**row, "installed_mb": round(size_mb), **(_response(labels) if peer.items == "pictures" else {})}


def _made(home: Path, packages: Sequence[str]) -> None:
    """An environment with these packages. Raises CalledProcessError."""
    uv = shutil.which("uv")
    make = [uv, "venv", "--python", sys.executable] if uv else [sys.executable, "-m", "venv"]
    python = str(home / "bin" / "python")
    fill = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
    for command in ([*make, str(home)], [*fill, *packages]):
        subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)


def _ours(settings: Settings, film: Sequence[Any], say: Say) -> dict[str, Any]:
    """The whole path on the same pictures in lock-step, on this thread."""
    began_ns = stopwatch.wall_ns()
    tools = settings.load_tools(say)
    tools.networks.warm_up()
    shown: dict[int, str] = {}

    def watch(one: Estimate) -> None:
        shown[one.at_ns] = one.label

    first_s = (stopwatch.wall_ns() - began_ns) / SECOND
    tools.networks.confidence = replace(tools.networks.confidence, watch=watch)
    start_ns = stopwatch.thread_cpu_ns()
    analyse(Watched(_Film(film), "film", None), tools, Outputs([]), lambda _: None)
    cpu_ms = (stopwatch.thread_cpu_ns() - start_ns) / 1e6 / len(film)
    tools.networks.close()
    labels = [shown.get(round(at * SECOND / FPS), "") for at in range(len(film))]
    row = {"system": "liveaffect, faces", "first_s": short(first_s), "cpu_ms": short(cpu_ms)}
    return {**row, **_response(labels)}


class _Film:
    """Pictures as a source of a file."""

    def __init__(self, pictures: Sequence[Any]) -> None:
        self._left = iter(enumerate(pictures))

    def read(self, timeout_s: float) -> VideoFrame:
        """The next picture."""
        for at, picture in self._left:
            return VideoFrame("film", at, round(at * SECOND / FPS), picture)
        raise EndOfStream("film")


def _response(labels: Sequence[str]) -> dict[str, Any]:
    """From when the head begins to smile to the first picture so called, and changes of label a minute."""
    begin = round((next(act.from_s for act in SCENE if act.label == "happy") - FROM_S) * FPS)
    found = next((at - begin for at in range(begin, len(labels)) if labels[at].startswith("happ")), math.inf)
    said = [label for label in labels if label and label != "not sure"]
    changes = sum(one != other for one, other in itertools.pairwise(said))
    return {
        "smile_named_s": short(found / FPS) if math.isfinite(found) else None,
        "label_changes": changes,
        "pictures_with_a_face": len([label for label in labels if label]),
    }
