# ruff: noqa: E501  what stands in strings are whole programs, for other environments and for Node
"""What each system of `liveaffect bench peers` runs in its own environment: programs around one frame.

Each defines `ask`, which is given one item and answers with a label or nothing, and, where it judges faces,
`judge`, which is given grey pictures of 48x48. Written from the systems' documentation.
"""

from __future__ import annotations

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
"""
"""Processor time is that of all threads of the process."""

OURS = """
from dataclasses import replace
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.lockstep import LockStep
from liveaffect.realtime.sinks.outputs import Outputs
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
"""

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
"""

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
"""
