"""Other systems on the same pictures and the same sound, each in an environment of its own that is made here.

What is compared: processor time of a picture, the first answer, memory, the size of its installation, how
long after a face begins to smile its label says so and how often labels change, and, where `--data` holds
FER+, how many pictures of its valid split get the label people gave them, under both ways to count votes. A
row that cannot be had says why. A row that was measured is kept in `--out` and not measured again, so a run
that was stopped goes on; remove its folder `rows` to measure anew. Weights that no package carries,
photographs of people who smile and recorded speech are taken from `--data`; without, a drawn head smiles and
a tone speaks.
"""

from __future__ import annotations

import inspect
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.bench import agreement, runs
from liveaffect.bench.measure import machine, short
from liveaffect.bench.peer_programs import AROUND, EGEMAPS, FER, HUMAN, OURS, RANDOM, WORDS, XCEPTION
from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.drawn_head import SCENE, ActingHead
from liveaffect.realtime.errors import EndOfStream, InputRefused
from liveaffect.realtime.frame import AudioBlock
from liveaffect.realtime.replay import MediaFile
from liveaffect.realtime.speech import tone_voice
from liveaffect.settings import Settings

FPS = 30.0
FROM_S, SECONDS = 1.0, 6.0
"""The part of the drawn head's scene that is shown where there are no photographs; it smiles in it."""
PEOPLE, NEUTRAL_S, BLEND_S, PERSON_S = 5, 1.0, 0.3, 2.4
"""Photographed people after one another: neutral, then within a moment a smile."""
MAKE_S, MEASURE_S = 1200.0, 180.0
Say = Callable[[str], None]
Picture = NDArray[np.uint8]
_SECONDS = "[sound[k:k + 16000] for k in range(0, len(sound) - 15999, 4000)]"
_BLOCKS = "[sound[k:k + 1600] for k in range(0, len(sound), 1600)]"


@dataclass(frozen=True, slots=True)
class Peer:
    """One system: what is installed for it, and how it is asked."""

    name: str
    packages: tuple[str, ...]
    program: str
    items: str = "pictures"
    needs: str = ""
    """A file that has to lie somewhere in `--data`."""
    note: str = ""
    node: bool = False
    """It runs on Node, and its packages come by npm."""

    @property
    def folder(self) -> str:
        """Its name as that of a folder or file."""
        return "".join(sign if sign.isalnum() else "-" for sign in self.name)


_FER_PACKAGES = ("fer==25.10.3", "setuptools<81", "opencv-contrib-python<5")
OWN = (
    Peer("liveaffect, faces", (), OURS.replace("SOUND", "'none'")),
    Peer("liveaffect, faces and small voice", (), OURS.replace("SOUND", "'small'")),
    Peer("liveaffect, faces and full voice", (), OURS.replace("SOUND", "'full'")),
    Peer("liveaffect, words", (), WORDS.replace("OURS", "True"), _BLOCKS),
)
PEERS = (
    Peer("fer, Haar", _FER_PACKAGES, FER.replace("MTCNN", "False")),
    Peer(
        "fer, MTCNN",
        _FER_PACKAGES,
        "import facenet_pytorch  # before TensorFlow, or LLVM is there twice\n"
        + FER.replace("MTCNN", "True"),
    ),
    Peer(
        "mediapipe and mini-XCEPTION",
        ("tensorflow", "opencv-python-headless<5", "numpy", "mediapipe==0.10.21"),
        XCEPTION,
        needs="fer2013_mini_XCEPTION.102-0.66.hdf5",
    ),
    Peer(
        "human on Node, WASM",
        ("@vladmandic/human@3.3.6", "@tensorflow/tfjs@4", "@tensorflow/tfjs-backend-wasm@4"),
        HUMAN,
        node=True,
    ),
    Peer(
        "online-emotion-detection",
        ("online-emotion-detection[onnx]==0.3.4", "torch", "timm", "opencv-python-headless<5"),
        RANDOM,
        note="random network of its shape, the face's box given",
    ),
    Peer("openSMILE eGeMAPS, a second of sound", ("opensmile==2.6.0",), EGEMAPS, _SECONDS),
    Peer(
        "whisper_streaming's policy, faster-whisper tiny.en",
        ("faster-whisper", "numpy"),
        inspect.getsource(agreement).partition("from __future__ import annotations")[2]
        + WORDS.replace("OURS", "False"),
        _BLOCKS,
        note="agreement of two passes, one a second",
    ),
)


@dataclass(frozen=True, slots=True)
class Shown:
    """What everybody is shown: files, and what is true of them."""

    folder: Path
    data: Path | None
    smiles_at: tuple[int, ...]
    """Pictures with which a smile begins."""
    cuts_at: tuple[int, ...]
    """First pictures of each person."""
    truth: Mapping[str, NDArray[np.int64]]
    """FER+ valid by the way of counting votes: a label, or -1 where the picture does not count."""


def run_peers(names: Sequence[str] | None, data: Path | None, out: Path, settings: Settings, say: Say) -> str:
    """Measure and write; the table for the terminal."""
    known = (*OWN, *PEERS)
    chosen = [peer for peer in known if names is None or any(name in peer.name for name in names)]
    if not chosen:
        raise InputRefused(f"no such peer; known are {', '.join(peer.name for peer in known)}")
    (out / "rows").mkdir(parents=True, exist_ok=True)
    shown, rows = shown_to_all(data, out), []
    for peer in chosen:
        kept = out / "rows" / f"{peer.folder}.json"
        if kept.exists():
            say(f"{peer.name}: measured before, in {kept}")
            rows.append(json.loads(kept.read_text("utf-8")))
            continue
        say(peer.name)
        row = {"system": peer.name, **_row(peer, shown, out)}
        if "why_not" not in row:
            runs.write_record(kept, row)
        rows.append(row)
    shutil.rmtree(shown.folder)
    record = {"format": 2, "machine": machine(), "shown": _what_was_shown(shown), "rows": rows}
    runs.write_record(out / "peers.json", record)
    runs.write_page(out / "peers.html", "Peers on the same pictures", [("Rows", runs.as_html(rows))])
    return f"{runs.as_text(rows)}\n\nwrote {out / 'peers.json'} and {out / 'peers.html'}"


def shown_to_all(data: Path | None, out: Path) -> Shown:
    """Film, sound and the faces of FER+ as files in a folder under `out`."""
    folder = out / "shown"
    folder.mkdir(parents=True, exist_ok=True)
    if (people := _file_in(data, "london20.tar")) is not None:
        film, count = _smiling_people(people), round(PERSON_S * FPS)
        cuts = tuple(range(0, len(film), count))
        smiles = tuple(cut + round(NEUTRAL_S * FPS) for cut in cuts)
    else:
        head, first = ActingHead([]), round(FROM_S * FPS)
        film = [head.draw(at) for at in range(first, first + round(SECONDS * FPS))]
        cuts, begin_s = (0,), next(act.from_s for act in SCENE if act.label == "happy")
        smiles = (round((begin_s - FROM_S) * FPS),)
    np.save(folder / "pictures.npy", np.stack(film))
    sound = tone_voice(10.0)
    if (speech := _file_in(data, "jfk.wav")) is not None:
        sound = _sound_of(speech)
    np.save(folder / "sound.npy", sound)
    truth: dict[str, NDArray[np.int64]] = {}
    if (votes := _file_in(data, "fer2013plus.npz")) is not None:
        from liveaffect.engines.training.corpora_faces import read_ferplus

        faces = read_ferplus(votes)
        faces = faces.take(np.array([side == "test" for side in faces.sides]))
        assert faces.agreed is not None
        np.save(folder / "faces.npy", faces.pictures)
        truth = {"plurality": faces.label, "majority": np.where(faces.agreed, faces.label, -1)}
    return Shown(folder, data, smiles, cuts, truth)


def _file_in(data: Path | None, name: str) -> Path | None:
    return None if data is None else next(iter(sorted(data.rglob(name))), None)


def _sound_of(path: Path) -> NDArray[np.float32]:
    media, parts = MediaFile(path), []
    media.open()
    try:
        while True:
            if isinstance(item := media.read(1.0), AudioBlock):
                parts.append(item.samples)
    except EndOfStream:
        return np.concatenate(parts)
    finally:
        media.close()


def _smiling_people(archive: Path) -> list[Picture]:
    """Neutral photographs that turn into smiling ones, held as by a hand, with the noise of a sensor."""
    import cv2

    film: list[Picture] = []
    rng = np.random.default_rng(0)
    with tarfile.open(archive) as tar:
        files = {Path(name).stem: name for name in tar.getnames() if name.endswith(".jpg")}
        numbers = sorted({stem.partition("_")[0] for stem in files})[:PEOPLE]
        for number in numbers:
            read = (tar.extractfile(files[f"{number}_{what}"]) for what in ("neutral", "happy"))
            encoded = (np.frombuffer(file.read(), np.uint8) for file in read if file is not None)
            pair = [cv2.imdecode(one, cv2.IMREAD_COLOR_RGB) for one in encoded]
            rest, smile = (np.asarray(one, np.float32) for one in pair if one is not None)
            for at in range(round(PERSON_S * FPS)):
                share = min(1.0, max(0.0, (at / FPS - NEUTRAL_S) / BLEND_S))
                away = 3 * np.sin(at / FPS * np.array([5.3, 7.1])) + np.array([120, 60])
                scale = 400 / rest.shape[1]
                place = np.array([[scale, 0, away[0]], [0, scale, away[1]]])
                mixed = cv2.warpAffine(
                    (1 - share) * rest + share * smile, place, (640, 480), borderMode=cv2.BORDER_REPLICATE
                )
                noisy = mixed + 2.0 * rng.standard_normal(mixed.shape, np.float32)
                film.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return film


def _row(peer: Peer, shown: Shown, out: Path) -> dict[str, Any]:
    """One system in an environment of its own, or why there is none."""
    needed = _file_in(shown.data, peer.needs) if peer.needs else None
    if peer.needs and needed is None:
        return {"why_not": f"{peer.needs} is not in the folder of --data"}
    home = out / "environments" / peer.folder
    runs = home / "node_modules" if peer.node else home / "bin" / "python"
    own = peer in OWN
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "GLOG_minloglevel": "3"}
    environment |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "MPLBACKEND": "agg"}
    try:
        if not own and not runs.exists():
            _made(home, peer)
        if peer.node:
            (home / "ask.cjs").write_text(peer.program, "utf-8")
            command = [_found("node"), "ask.cjs"]
        else:
            program = AROUND.replace("SETUP", peer.program).replace("ITEMS", peer.items)
            command = [sys.executable if own else str(runs), "-c", program]
        given = [*command, str(shown.folder.resolve()), str(needed or _whisper())]
        where = None if own else home
        ran = subprocess.run(
            given, capture_output=True, text=True, timeout=MEASURE_S, check=True, env=environment, cwd=where
        )
        told = json.loads(ran.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as err:
        lines = (err.stderr or err.stdout or "").strip().splitlines()
        return {"why_not": f"ended with {err.returncode}: {lines[-1] if lines else 'it says nothing'}"}
    except subprocess.TimeoutExpired as err:
        return {"why_not": f"not done within {err.timeout:.0f} s"}
    except (OSError, ValueError, IndexError) as err:
        return {"why_not": str(err)}
    labels, judged = told.pop("labels"), told.pop("judged", None)
    row: dict[str, Any] = {name: short(value) for name, value in told.items() if value is not None}
    if not own:
        row["installed_mb"] = round(sum(p.stat().st_size for p in home.rglob("*") if p.is_file()) / 1e6)
    if peer.items == "pictures" and not peer.note:
        row |= response(labels, shown)
    row |= {f"fer_{name}": value for name, value in accuracy(judged, shown.truth).items()}
    return row | ({"note": peer.note} if peer.note else {})


def _whisper() -> str:
    """The folder of Whisper tiny.en, which `liveaffect fetch` brings."""
    from liveaffect.spoken_choice import folder_of

    return str(folder_of("tiny.en"))


def _found(program: str) -> str:
    if (path := shutil.which(program)) is None:
        raise OSError(f"{program} is not installed")
    return path


def _made(home: Path, peer: Peer) -> None:
    """An environment with its packages. Raises CalledProcessError, OSError."""
    if peer.node:
        home.mkdir(parents=True, exist_ok=True)
        commands = [[_found("npm"), "install", "--no-audit", "--no-fund", "--prefix", str(home)]]
    elif uv := shutil.which("uv"):
        python = str(home / "bin" / "python")
        commands = [
            [uv, "venv", "--python", sys.executable, str(home)],
            [uv, "pip", "install", "--python", python],
        ]
    else:
        python = str(home / "bin" / "python")
        commands = [[sys.executable, "-m", "venv", str(home)], [python, "-m", "pip", "install"]]
    commands[-1] += peer.packages
    for command in commands:
        subprocess.run(command, capture_output=True, text=True, timeout=MAKE_S, check=True)


def response(labels: Sequence[str], shown: Shown) -> dict[str, Any]:
    """From where a smile begins to where it is named, and changes of label that no face explains."""
    delays, needless = [], 0
    for begin, cut, end in zip(
        shown.smiles_at, shown.cuts_at, (*shown.cuts_at[1:], len(labels)), strict=True
    ):
        delays.append(
            next((at - begin for at in range(begin, end) if labels[at].startswith("happ")), math.inf)
        )
        said = [label for label in labels[cut:end] if label and label != "not sure"]
        changes = sum(one != other for one, other in itertools.pairwise(said))
        needless += max(0, changes - 1)
    named = [delay / FPS for delay in delays if math.isfinite(delay)]
    return {
        "smile_named_s": short(float(np.median(named))) if named else None,
        "smiles_named": f"{len(named)} of {len(delays)}",
        "needless_changes": needless,
        "pictures_with_a_face": round(np.mean([bool(label) for label in labels]), 3),
    }


def accuracy(judged: Sequence[str] | None, truth: Mapping[str, NDArray[np.int64]]) -> dict[str, float]:
    """Share of FER+'s valid pictures that get people's label, for each way of counting votes."""
    if not judged or not truth:
        return {}
    places = {label[:3]: at for at, label in enumerate(LABELS)}
    found = np.array([places.get(label[:3].lower(), -2) for label in judged])
    return {name: round(float((found == want)[want >= 0].mean()), 3) for name, want in truth.items()}


def _what_was_shown(shown: Shown) -> dict[str, Any]:
    return {
        "smiles": len(shown.smiles_at),
        **{f"fer_{name}_n": int((want >= 0).sum()) for name, want in shown.truth.items()},
    }
