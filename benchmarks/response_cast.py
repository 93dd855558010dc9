"""Who plays in the films of `bench_response.py`, and in which films.

Nothing of it belongs to the project: photographs of the London set, pictures of FER+ and the GRID talkers
lie in a folder of the user's, the landmark model in the wheel of mediapipe 0.10.21.
"""

from __future__ import annotations

import itertools
import math
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from response_films import (
    SIDE_PX,
    Camera,
    Change,
    Disturbance,
    Film,
    Head,
    Mesh,
    Picture,
    Points,
    edge,
    steps,
    triangles,
    warped,
)

from liveaffect.engines import manifest as manifests
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.recipe import LABELS
from liveaffect.placing import in_a_room
from liveaffect.realtime.blazeface import make_finder
from liveaffect.realtime.estimate import softmax
from liveaffect.realtime.face_analyzer import find_in_picture

STRONG = 0.85
"""From this probability in a single picture on an expression counts as strong."""
MILD = (0.4, 0.5, 0.6, 0.7)
"""Shares of a strong smile that count as mild ones."""
BLENDS_S = (0.3, 0.1, 1.0)
RATES_HZ = (10.0, 15.0, 20.0)
VOTES = 8
"""So many of ten people agreed about a picture of FER+."""
PICTURES_EACH = 12


@dataclass(slots=True, eq=False)
class Actor:
    """A head with an expression, and how single pictures of it are judged."""

    name: str
    label: str
    head: Head
    strength: float
    """Probability of the label in the picture that shows it."""


class Judge:
    """Finds and judges a face in a single picture."""

    def __init__(self, folder: Path = manifests.SHIPPED) -> None:
        """With the network of that folder, in INT8 where it has it."""
        self._finders = make_finder()
        found = manifests.read(folder / "face.json")
        self._engine = OnnxEngine(found, folder, "int8" if found.has("int8") else "fp32")

    def look(self, picture: Picture) -> tuple[Points, tuple[float, ...]] | None:
        """Eyes and probabilities of the largest face."""
        faces = find_in_picture(*self._finders, picture)
        if not faces:
            return None
        face = max(faces, key=lambda one: one.box[2])
        return face.points[:2], softmax(self._engine.infer({"crop": face.crop[None]})["logits"][0])


def londoners(archive: Path, mesh: Mesh, judge: Judge) -> list[Actor]:
    """The twenty people, in the order of their numbers."""
    pictures: dict[str, Picture] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None and member.name.endswith(".jpg"):
                image = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
                if image is None:
                    raise ValueError(f"{member.name} in {archive} is no picture")
                small = cv2.resize(image, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
                pictures[Path(member.name).stem] = np.asarray(
                    cv2.cvtColor(small, cv2.COLOR_BGR2RGB), np.uint8
                )
    out = []
    for name in sorted({stem.split("_")[0] for stem in pictures}):
        actor = _actor(name, "happy", pictures[f"{name}_neutral"], pictures[f"{name}_happy"], mesh, judge)
        if actor is not None:
            out.append(actor)
    return out


def _actor(name: str, label: str, rest: Picture, shown: Picture, mesh: Mesh, judge: Judge) -> Actor | None:
    looked = judge.look(rest), judge.look(shown)
    if looked[0] is None or looked[1] is None:
        return None
    points = mesh.find(rest, looked[0][0]), mesh.find(shown, looked[1][0])
    return Actor(name, label, Head(rest, shown, *points), looked[1][1][LABELS.index(label)])


def crowd(file: Path, mesh: Mesh, judge: Judge) -> list[Actor]:
    """Other expressions: a neutral picture of FER+'s valid side becomes one of another label.

    Only pictures about which most people agreed and which a single look reads as strong, so that what is
    measured is delay and not recognition.
    """
    data = np.load(file)
    blob, offset, votes = data["blob"], data["offset"], data["votes"]
    order = [0, 1, 3, 4, 6, 5, 2]
    ours = votes[:, order]
    rng = np.random.default_rng(14)
    valid = rng.permutation(np.flatnonzero((data["split"] == 1) & (ours.max(1) >= VOTES)))
    kept: dict[str, list[Picture]] = {label: [] for label in LABELS}
    for at in valid:
        label = LABELS[int(ours[at].argmax())]
        if label == "happy" or len(kept[label]) >= PICTURES_EACH * (3 if label == "neutral" else 1):
            continue
        grey = cv2.imdecode(blob[offset[at] : offset[at + 1]], cv2.IMREAD_GRAYSCALE)
        room = cv2.resize(in_a_room(np.asarray(grey)), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
        looked = judge.look(np.asarray(room, np.uint8))
        if looked is not None and looked[1][LABELS.index(label)] >= STRONG:
            kept[label].append(np.asarray(room, np.uint8))
    out: list[Actor] = []
    rest = iter(kept["neutral"] * 4)
    for label in LABELS[2:]:
        for k, shown in enumerate(kept[label]):
            actor = _actor(f"{label}{k}", label, next(rest), shown, mesh, judge)
            if actor is not None:
                out.append(actor)
    return out


def talkers(file: Path) -> list[list[Picture]]:
    """The pictures of each talker of the clip, which is cut from ten films."""
    clip = cv2.VideoCapture(str(file))
    pictures: list[Picture] = []
    while True:
        good, image = clip.read()
        if not good:
            break
        pictures.append(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8))
    small = [cv2.resize(p, (36, 29), interpolation=cv2.INTER_AREA).astype(np.float32) for p in pictures]
    moved = np.array([0.0] + [float(np.abs(a - b).mean()) for a, b in itertools.pairwise(small)])
    cuts = [0, *np.flatnonzero(moved > 12.0).tolist(), len(pictures)]
    return [pictures[a:b] for a, b in itertools.pairwise(cuts) if b - a > 25]


@dataclass(frozen=True, slots=True)
class Course:
    """Neutral, an expression, neutral again: how."""

    kind: str = "onset"
    blend_s: float = 0.3
    fps: float = 30.0
    amount: float = 1.0
    hold_s: float = 3.0
    rest_s: float = 2.5
    """Before it begins, give or take a fifth of a second: onsets fall anywhere on the grid."""


def onset(actor: Actor, seed: int, course: Course | None = None, how: Disturbance | None = None) -> Film:
    """One film of a course."""
    course = course or Course()
    rng = np.random.default_rng(seed)
    begin = course.rest_s + float(rng.uniform(0, 0.2))
    back = begin + course.blend_s + course.hold_s
    end = back + course.blend_s + 2.5
    amount = steps((begin, course.amount, course.blend_s), (back, 0.0, course.blend_s))
    changes = (
        Change(begin, actor.label, course.blend_s, back, course.amount),
        Change(back, "neutral", course.blend_s, end),
    )
    name = f"{course.kind} {actor.name} {course.blend_s:g} s {course.fps:g} Hz {course.amount:g}"
    return Film(
        name,
        course.kind,
        course.fps,
        end,
        (lambda t: actor.head.at(amount(t)),),
        (changes,),
        how or Disturbance(seed),
        first_s=float(rng.uniform(0, 0.1)),
        person=actor.name,
    )


def flashes(actor: Actor, seed: int) -> Film:
    """Three smiles of half a second, counted at half their height."""
    points: list[tuple[float, float, float]] = []
    changes: list[Change] = []
    rng = np.random.default_rng(seed)
    for k in range(3):
        at = 2.5 + 2.5 * k + float(rng.uniform(0, 0.2))
        points += [(at, 1.0, 0.1), (at + 0.5, 0.0, 0.1)]
        changes += [Change(at, actor.label, 0.1, at + 0.5), Change(at + 0.5, "neutral", 0.1, at + 2.4)]
    course = steps(*points)
    return Film(
        f"flash {actor.name}",
        "flash",
        30.0,
        10.0,
        (lambda t: actor.head.at(course(t)),),
        (tuple(changes),),
        Disturbance(seed),
        first_s=float(rng.uniform(0, 0.1)),
        person=actor.name,
    )


def pair(one: Actor, other: Actor, seed: int) -> Film:
    """Two people side by side who smile at their own times."""
    films = [onset(one, seed), onset(other, seed + 500, Course(rest_s=3.4))]
    end = min(film.seconds for film in films)
    return Film(
        f"pair {one.name} {other.name}",
        "pair",
        30.0,
        end,
        tuple(f.heads[0] for f in films),
        tuple(f.changes[0] for f in films),
        Disturbance(seed),
        person=f"{one.name}+{other.name}",
    )


def living(actor: Actor, seed: int, what: str) -> Film:
    """A neutral face that turns, blinks or chews, by its own mesh."""
    ring = edge(SIDE_PX)
    rest = np.vstack([actor.head.landmarks[:, :2], ring])
    mesh = triangles(rest, SIDE_PX)
    made: dict[int, Picture] = {}

    def picture(t_s: float) -> Picture:
        step = round(10 * _course(what, t_s))
        if step not in made:
            moved = _moved(actor.head.landmarks, what, step / 10)
            made[step] = warped(actor.head.rest, rest, np.vstack([moved, ring]).astype(np.float32), mesh)
        return made[step]

    return Film(
        f"{what} {actor.name}", "living", 30.0, 8.0, (picture,), ((),), Disturbance(seed), person=actor.name
    )


def _course(what: str, t_s: float) -> float:
    if what == "blink":
        return float(max(0.0, 1.0 - abs((t_s % 2.3) - 1.0) / 0.12))
    return math.sin(2 * math.pi * t_s * (0.25 if what == "turn" else 1.6))


def _moved(landmarks: NDArray[np.float32], what: str, by: float) -> Points:
    flat, depth = landmarks[:, :2].copy(), landmarks[:, 2]
    middle = flat.mean(0)
    wide = float(np.ptp(flat[:, 0]))
    if what == "turn":
        angle = math.radians(18.0) * by
        flat[:, 0] = middle[0] + (flat[:, 0] - middle[0]) * math.cos(angle) - depth * math.sin(angle)
    elif what == "chew":
        below = np.clip((flat[:, 1] - flat[13, 1]) / max(float(flat[152, 1] - flat[13, 1]), 1.0), 0, 1)
        flat[:, 1] += below * 0.05 * wide * by
        flat[:, 0] += below * 0.02 * wide * by
    else:
        for lid, under in ((159, 145), (386, 374)):
            gap = flat[under] - flat[lid]
            near = np.exp(-np.square((flat - flat[lid]) / (0.08 * wide)).sum(1))
            above = flat[:, 1] <= flat[under, 1] - 1
            flat += by * 0.9 * near[:, None] * gap * above[:, None]
    return flat


class Talk:
    """A film of a talker, filmed once more by another hand; it runs to and fro to be long enough."""

    def __init__(self, pictures: Sequence[Picture], number: int, seed: int, fps: float) -> None:
        rng = np.random.default_rng(1000 * number + seed)
        self.name, self.kind, self.person = f"talk {number} {seed}", "talk", str(number)
        self.fps, self.seconds = fps, 6.0
        self.changes: tuple[tuple[Change, ...], ...] = ((),)
        self._pictures = list(pictures)
        self._phase = float(rng.uniform(0, len(pictures)))
        size = pictures[0].shape[1], pictures[0].shape[0]
        self._how = Disturbance(
            1000 * number + seed,
            shake=float(rng.uniform(0.2, 1.0)),
            noise=float(rng.uniform(0, 8)),
            light=float(rng.uniform(0, 0.3)),
            scale=float(rng.uniform(0.85, 1.2)),
        )
        self._size = size

    def frames(self) -> Iterator[tuple[int, Picture]]:
        """Times in nanoseconds and RGB pictures."""
        camera = Camera(self._how, self._size)
        last = len(self._pictures) - 1
        for k in range(int(self.seconds * self.fps)):
            t_s = k / self.fps
            at = (self._phase + 25.0 * t_s) % (2 * last)
            yield (
                round(t_s * 1e9),
                camera.of_film(self._pictures[round(at if at <= last else 2 * last - at)], t_s),
            )


def still(actor: Actor, seed: int, amount: float) -> Film:
    """A photograph before a shaking camera."""
    return Film(
        f"still {actor.name} {amount:g}",
        "still",
        30.0,
        6.0,
        (lambda t: actor.head.at(amount),),
        ((),),
        Disturbance(seed, light=0.3, noise=8.0),
        person=actor.name,
    )


Programme = dict[str, Callable[[], list[Film | Talk]]]


def programme(data: Path, landmarks: Path, *, each_talker: int) -> Programme:
    """All films by their kind; they are made when they are asked for."""
    judge, mesh = Judge(), Mesh(landmarks)
    people = londoners(data / "faces/london20.tar", mesh, judge)
    strong = [p for p in people if p.strength >= STRONG]
    others = [p for p in people if p.strength < STRONG]
    shown = [(p, amount) for p in strong for amount in MILD] + [(p, 1.0) for p in others]
    film = data / "clips/demo_grid_10speakers.mp4"
    everybody = list(enumerate(people))
    pictures = data / "faces/fer2013plus.npz"
    rough = [Disturbance(k, 1.5, 12.0, 0.4) for k in range(len(strong))]
    return {
        "onset": lambda: [
            onset(p, 10 * k + j, Course(blend_s=b))
            for k, p in enumerate(strong)
            for j, b in enumerate((*BLENDS_S, 0.3))
        ],
        "talk": lambda: [
            Talk(t, n, s, 25.0 if s % 2 else 30.0)
            for n, t in enumerate(talkers(film))
            for s in range(each_talker)
        ],
        "mild": lambda: [
            onset(p, 2000 + k, Course("mild", amount=a, rest_s=4.0)) for k, (p, a) in enumerate(shown)
        ],
        "flash": lambda: [flashes(p, 3000 + k) for k, p in enumerate(strong)],
        "rate": lambda: [
            onset(p, 4000 + k, Course("rate", fps=r)) for k, p in enumerate(strong) for r in RATES_HZ
        ],
        "rough": lambda: [onset(p, 5000 + k, Course("rough"), rough[k]) for k, p in enumerate(strong)],
        "other": lambda: [
            onset(p, 6000 + k, Course("other", hold_s=2.0, rest_s=2.0))
            for k, p in enumerate(crowd(pictures, mesh, judge))
        ],
        "pair": lambda: [
            pair(a, b, 7000 + k) for k, (a, b) in enumerate(zip(strong[::2], strong[1::2], strict=True))
        ],
        "living": lambda: [living(p, 8000 + k, w) for k, p in everybody for w in ("turn", "blink", "chew")],
        "still": lambda: [still(p, 9000 + k, a) for k, p in everybody for a in (0.0, 1.0)],
    }
