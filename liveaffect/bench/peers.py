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
from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.acting import SCENE, ActingHead, tone_voice
from liveaffect.realtime.errors import EndOfStream, InputRefused
from liveaffect.realtime.frame import AudioBlock
from liveaffect.realtime.replay import MediaFile
from liveaffect.settings import Settings

AROUND = """
import json, os, sys, time
import numpy as np
began = time.perf_counter()
folder, given = sys.argv[1:3]
judge = finish = None
pictures, sound = (np.load(os.path.join(folder, name), mmap_mode="r") for name in ("pictures.npy", "sound.npy"))
SETUP
first, taken, walls, labels = None, [], [], []
for item in ITEMS:
    cpu, wall = time.process_time(), time.perf_counter()
    labels.append(ask(item))
    taken.append(time.process_time() - cpu)
    walls.append(time.perf_counter() - wall)
    if first is None and labels[-1]:
        first = time.perf_counter() - began
told = dict(first_s=first, cpu_ms=1000 * float(np.mean(taken[1:])), wall_p95_ms=1000 * float(np.percentile(walls[1:], 95)))
if finish:
    told.update(finish(sum(taken)))
with open("/proc/self/status") as status:
    peak_kb = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
film_kb = pictures.nbytes // 1024 if len(labels) == len(pictures) else 0  # mapped, and counted with the rest
told.update(memory_mb=(peak_kb - film_kb) / 1024, labels=labels)
if judge and os.path.exists(os.path.join(folder, "faces.npy")):
    told["judged"] = judge(np.load(os.path.join(folder, "faces.npy")))
print(json.dumps(told))
"""  # noqa: E501
"""Processor time is that of all threads of the process."""

OURS = """
from dataclasses import replace
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.lockstep import LockStep
from liveaffect.realtime.sinks import Outputs
from liveaffect.settings import Settings
voice, shown = SOUND, {}
tools = Settings(words="off", voice="small" if voice == "none" else voice).load_tools(lambda line: None)
tools.networks.warm_up()
tools.networks.confidence = replace(tools.networks.confidence, watch=lambda one: one.track is None or shown.__setitem__(one.at_ns, one.label))
run = LockStep.of("film", None if voice == "none" else "voice", tools, Outputs([]), lambda cues: None)
each, at = SAMPLE_RATE // 30, iter(range(10**9))
def ask(picture):
    seq = next(at)
    if voice != "none":
        samples = np.take(sound, range(seq * each, (seq + 1) * each), mode="wrap")
        run.hear(AudioBlock("voice", seq * each, seq * each * SECOND // SAMPLE_RATE, samples))
    stamp = round(seq * SECOND / 30)
    run.see(VideoFrame("film", seq, stamp, np.array(picture)))
    return shown.get(stamp, "")
def judge(faces):
    from liveaffect.engines.training.augment_faces import grey_crops
    crops = grey_crops(faces)
    asked = (tools.networks.ask([{"crop": crop} for crop in crops[k:k + 16]], [])[0] for k in range(0, len(crops), 16))
    return [LABELS[int(one["logits"].argmax())] for some in asked for one in some]
if voice != "none":
    judge = None
"""  # noqa: E501

FER = """
import cv2
from fer.fer import FER
detector = FER(mtcnn=MTCNN)
names = list(FER._get_labels().values())
def ask(picture):
    found = detector.detect_emotions(picture[:, :, ::-1].copy())
    return max(found[0]["emotions"], key=found[0]["emotions"].get) if found else ""
def judge(faces):
    small = np.stack([cv2.resize(face, (64, 64)) for face in faces]).astype("float32")
    return [names[int(one)] for one in detector._classify_emotions(small / 127.5 - 1).argmax(1)]
if MTCNN:
    judge = None  # the same network
"""

XCEPTION = """
import cv2
import mediapipe
import tensorflow
from tensorflow.keras.models import load_model
names = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
model = load_model(given, compile=False)
finder = mediapipe.solutions.face_detection.FaceDetection(model_selection=0)
answer = tensorflow.function(lambda x: model(x, training=False), reduce_retracing=True)
def ask(picture):
    picture = np.ascontiguousarray(picture)
    found = finder.process(picture).detections
    if not found:
        return ""
    box, (high, wide) = found[0].location_data.relative_bounding_box, picture.shape[:2]
    x, y = max(0, round(box.xmin * wide)), max(0, round(box.ymin * high))
    part = picture[y:y + round(box.height * high), x:x + round(box.width * wide)]
    face = cv2.resize(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), (64, 64)).astype("float32")
    return names[int(answer(face[None, :, :, None] / 127.5 - 1).numpy().argmax())]
def judge(faces):
    small = np.stack([cv2.resize(face, (64, 64)) for face in faces]).astype("float32")[..., None]
    parts = [model(small[k:k + 64] / 127.5 - 1).numpy() for k in range(0, len(small), 64)]
    return [names[int(one)] for one in np.concatenate(parts).argmax(1)]
"""

RANDOM = """
import timm, torch
torch.set_num_threads(1)
network = timm.create_model("tf_efficientnet_b0", pretrained=False, num_classes=8).eval()
path = os.path.join(folder, "random.onnx")
torch.onnx.export(network, torch.zeros(1, 3, 224, 224), path, input_names=["input"], output_names=["logits"],
                  dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}}, dynamo=False)
import onnxruntime
options = onnxruntime.SessionOptions
def one_thread():
    made = options()
    made.intra_op_num_threads = 1
    return made
onnxruntime.SessionOptions = one_thread
from online_emotion import EmotionRecognizer
recognizer = EmotionRecognizer(weights=path, runtime="onnx", device="cpu")
def ask(picture):
    return recognizer.predict_on_boxes(picture[:, :, ::-1].copy(), [[200, 130, 440, 370]]).emotions[0].label
"""

EGEMAPS = """
import opensmile
smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
def ask(piece):
    return str(smile.process_signal(piece, 16000).shape)
"""

WORDS = """
heard = np.zeros(0, "float32")
delays = []
if OURS:
    from liveaffect.realtime.ring import AudioRing
    from liveaffect.realtime.clock import SECOND
    from liveaffect.realtime.frame import AudioBlock
    from liveaffect.realtime.words import WordsAnalyzer
    from liveaffect.spoken_choice import SpokenWish, folder_of, make_tools
    ring = AudioRing(20 * 16000)
    analyzer = WordsAnalyzer("voice", ring, make_tools(folder_of("tiny.en"), SpokenWish("tiny.en", "en")))
    cursor, known, first_at = 0, {}, {}
    def take(now):
        global cursor
        batch = analyzer.said.read_since(cursor)
        cursor = batch.cursor
        for form in batch.items:
            known[form.number] = form
            for place, word in enumerate(form.words):
                if word.final and (form.number, place) not in first_at:
                    first_at[form.number, place] = now
                    delays.append(max(0.0, now - word.end_ns / SECOND))
    def hear(piece, now):
        ring.push(AudioBlock("voice", len(heard) - len(piece), (len(heard) - len(piece)) * SECOND // 16000, np.array(piece)))
        while analyzer.step():
            pass
        take(now)
        return " ".join(word.text for form in known.values() for word in form.words)
    end = analyzer.finish
else:
    policy = Agreeing(given)
    def take(now):
        delays.extend(max(0.0, now - end) for _, end, _ in policy.believed[len(delays):])
    def hear(piece, now):
        policy.add(piece)
        take(now)
        return " ".join(word for _, _, word in policy.believed)
    end = policy.finish
def ask(piece):
    global heard
    heard = np.concatenate([heard, piece])
    return hear(piece, len(heard) / 16000)
def finish(spent):
    cpu = time.process_time()
    end()
    spent += time.process_time() - cpu
    take(len(heard) / 16000)
    late = float(np.median(delays)) if delays else None
    return dict(cpu_ms=None, wall_p95_ms=None, core_share=spent * 16000 / len(heard), word_believed_s=late, words=len(delays))
"""  # noqa: E501

HUMAN = """
const fs = require('fs'), path = require('path');
const began = performance.now();
const [folder] = process.argv.slice(2);
const modules = path.join(__dirname, 'node_modules');
// It fetches its models over HTTP only; here they come from its own package.
globalThis.fetch = async (asked) => {
  const file = decodeURIComponent(String(asked.url ?? asked).replace(/^https?:\\/\\/localhost/, ''));
  const type = file.endsWith('json') ? 'application/json' : 'application/octet-stream';
  return new Response(fs.readFileSync(file), { headers: { 'content-type': type } });
};
const { default: Human } = require(path.join(modules, '@vladmandic/human/dist/human.node-wasm.js'));
const off = { enabled: false };
const human = new Human({
  backend: 'wasm', wasmPath: path.join(modules, '@tensorflow/tfjs-backend-wasm/dist/'), wasmPlatformFetch: false,
  modelBasePath: 'http://localhost' + path.join(modules, '@vladmandic/human/models/'),
  face: { enabled: true, mesh: { enabled: true }, emotion: { enabled: true, minConfidence: 0 }, iris: off, description: off,
          antispoof: off, liveness: off },
  body: off, hand: off, object: off, gesture: off, filter: off,
});
const names = ['angry', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral'];
const saved = (name) => {
  const file = fs.readFileSync(path.join(folder, name));
  const head = file.readUInt16LE(8);
  const shape = file.toString('latin1', 10, 10 + head).match(/'shape': \\(([^)]*)\\)/)[1].split(',').map(Number);
  return { data: file.subarray(10 + head), shape: shape.filter((n) => n > 0) };
};
const middle = (values, share) => [...values].sort((a, b) => a - b)[Math.floor(share * values.length)];
(async () => {
  await human.load();
  const { data, shape: [count, high, wide] } = saved('pictures.npy');
  const labels = [], cpus = [], walls = [];
  let first = null;
  for (let at = 0; at < count; at++) {
    const cpu = process.cpuUsage(), wall = performance.now();
    const picture = human.tf.tensor4d(Float32Array.from(data.subarray(at * high * wide * 3, (at + 1) * high * wide * 3)), [1, high, wide, 3]);
    const { face } = await human.detect(picture);
    picture.dispose();
    labels.push(face.length ? face[0].emotion[0].emotion : '');
    const spent = process.cpuUsage(cpu);
    cpus.push((spent.user + spent.system) / 1000);
    walls.push(performance.now() - wall);
    if (first === null && labels.at(-1)) first = (performance.now() - began) / 1000;
  }
  const told = { first_s: first, cpu_ms: cpus.slice(1).reduce((a, b) => a + b) / (count - 1), wall_p95_ms: middle(walls, 0.95),
                 memory_mb: process.resourceUsage().maxRSS / 1024 - data.length / 1048576, labels };
  if (fs.existsSync(path.join(folder, 'faces.npy'))) {
    const faces = saved('faces.npy'), model = human.models.models?.emotion ?? human.models.emotion;
    const side = model.inputs[0].shape[2];
    told.judged = [];
    for (let at = 0; at < faces.shape[0]; at++) {
      const one = human.tf.tidy(() => {
        const grey = human.tf.tensor4d(Float32Array.from(faces.data.subarray(at * 2304, (at + 1) * 2304)), [1, 48, 48, 1]);
        const { div, sub, scalar, image } = human.tf;
        return model.execute(sub(div(image.resizeBilinear(grey, [side, side]), scalar(127.5)), scalar(1)));
      });
      const shares = await one.data();
      told.judged.push(names[shares.indexOf(Math.max(...shares))]);
      one.dispose();
    }
  }
  console.log(JSON.stringify(told));
})().catch((error) => { console.error(String(error)); process.exit(1); });
"""  # noqa: E501


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
