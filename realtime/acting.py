"""A head and a voice made by the program, with known truth: for demonstrations, self-tests and measurements.

No photograph shows what a smile does to an answer, because it does not move. This head is plain enough to be
drawn in a millisecond and has what a face network looks at: brows, lids, the line of the lips, teeth, the
folds beside the mouth, and soft light. The voice is spoken by espeak-ng, or where that is missing, hummed.
Both are nobody's.
"""

from __future__ import annotations

import shutil
import subprocess
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.portrait import Portraits

Picture = NDArray[np.uint8]
Colour = tuple[float, float, float]
SIDE = 480
SKIN, SHADE, LIGHT = (214, 170, 146), (168, 118, 98), (236, 204, 184)
HAIR, LIP, TEETH, THROAT = (62, 44, 34), (176, 92, 88), (238, 234, 226), (70, 24, 26)
WHITE, IRIS, PUPIL = (236, 232, 228), (84, 96, 74), (18, 16, 16)
WALL = (122, 128, 134)
_SHIFT = 4
"""Coordinates of drawing have four binary places, so that nothing jumps by whole pixels."""
SCENE_S, BLEND_S, _STEPS = 12.6, 0.3, 9
SENTENCES = (
    "Hello. This is a demonstration, and nobody is really here.",
    "I am so happy that you came! What a wonderful day.",
    "But sometimes, in the evening, everything is a little sad and slow.",
)
VOICES = (("en", 50, 150), ("en+f3", 75, 175), ("en+m3", 25, 115))
"""Of the sentences: variant of espeak-ng, pitch, and words a minute."""


@dataclass(frozen=True, slots=True)
class Pose:
    """What the parts of the face do, each from 0, or -1, to 1."""

    smile: float = 0.0
    """Corners of the mouth up and out; below 0 down."""
    opened: float = 0.0
    """Jaw down."""
    teeth: float = 0.0
    """Upper lip drawn up."""
    brows: float = 0.0
    """Raised; below 0 lowered."""
    inner: float = 0.0
    """Inner ends of the brows up; below 0 down and together."""
    lids: float = 0.0
    """Eyes wide; below 0 narrowed."""
    cheeks: float = 0.0
    """Raised, with folds beside the mouth."""


POSES: Mapping[str, Pose] = {
    "neutral": Pose(brows=-0.15, lids=-0.1),
    "happy": Pose(smile=1.0, opened=0.25, teeth=1.0, brows=0.1, lids=-0.4, cheeks=1.0),
    "surprised": Pose(opened=1.0, brows=1.0, lids=1.0),
    "sad": Pose(smile=-0.8, brows=0.1, inner=1.0, lids=-0.35),
    "angry": Pose(smile=-0.8, opened=0.25, teeth=0.9, brows=-1.0, inner=-1.2, lids=-0.2, cheeks=0.5),
}


def between(one: Pose, other: Pose, share: float) -> Pose:
    """On the way from one to the other."""
    return Pose(
        **{
            f.name: (1 - share) * float(getattr(one, f.name)) + share * float(getattr(other, f.name))
            for f in fields(Pose)
        }
    )


def draw_head(pose: Pose) -> Picture:
    """The head from the front, RGB, `SIDE` pixels square."""
    canvas = np.full((SIDE, SIDE, 3), WALL, np.uint8)
    drop = 16 * max(0.0, pose.opened)
    _oval(canvas, (240, 500), (190, 110), (70, 78, 96))
    _oval(canvas, (240, 390), (62, 90), SHADE)
    _oval(canvas, (240, 196), (142, 150), HAIR)
    for side in (-1, 1):
        _oval(canvas, (240 + side * 126, 250), (20, 34), SHADE)
    _oval(canvas, (240, 236 + drop / 2), (122, 158 + drop / 2), SKIN)
    canvas = np.asarray(np.clip(canvas * _shading()[..., None], 0, 255), np.uint8)
    _oval(canvas, (240, 84), (126, 52), HAIR)
    for side in (-1, 1):
        _eye(canvas, side, pose)
        _brow(canvas, side, pose)
    _nose(canvas, pose)
    _mouth(canvas, pose)
    soft = cv2.GaussianBlur(canvas, (0, 0), 1.4)
    return np.asarray(soft, np.uint8)


@cache
def _shading() -> NDArray[np.float32]:
    """Light from above: cheekbones and forehead shine, the jaw and the temples lie in shade."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    across, down = (x - 240) / 122, (y - 238) / 162
    away = np.square(across) + np.square(down)
    inside = np.clip((1.02 - away) * 40, 0, 1)
    round_off = np.clip(1.0 - 0.34 * np.power(np.square(across) + np.square(down * 0.9), 1.6), 0, 1.1)
    bumps = 0.10 * np.exp(-np.square((np.abs(across) - 0.45) / 0.22) - np.square((down - 0.16) / 0.16))
    bumps += 0.08 * np.exp(-np.square(across / 0.6) - np.square((down + 0.55) / 0.22))
    bumps -= 0.12 * np.exp(-np.square((np.abs(across) - 0.40) / 0.22) - np.square((down + 0.14) / 0.12))
    return np.asarray(1.0 + inside * (round_off + bumps - 1.0), np.float32)


def _eye(canvas: Picture, side: int, pose: Pose) -> None:
    x, y = 240 + side * 48, 214.0
    upper = 11 + 7 * pose.lids
    lower = 8 + 2.5 * pose.lids - 4 * max(0.0, pose.cheeks)
    rim = [(-27, 1), (-16, -0.8 * upper), (0, -upper), (16, -0.75 * upper), (27, 2)]
    rim += [(12, lower), (-12, lower)]
    white = _smooth_line([(x + side * a, y + b) for a, b in rim], closed=True)
    behind = canvas.copy()
    _fill(behind, white, WHITE)
    _oval(behind, (x, y - 1), (11.5, 11.5), IRIS)
    _oval(behind, (x, y - 1), (5.5, 5.5), PUPIL)
    _oval(behind, (x + 4, y - 5), (2.4, 2.4), (250, 250, 250))
    _show_through(canvas, behind, white)
    lid = _smooth_line([(x + side * a, y + b) for a, b in rim[:5]])
    _stroke(canvas, lid, (58, 38, 32), 4)
    _stroke(
        canvas, _smooth_line([(x + side * a, y + b) for a, b in (rim[4], rim[5], rim[6], rim[0])]), SHADE, 2
    )
    fold = [(x + side * a, y + b - 7 - 2 * pose.lids) for a, b in rim[:5]]
    _stroke(canvas, _smooth_line(fold), SHADE, 2)
    if pose.cheeks > 0.1:
        bag = [(x - 22 * side, y + 16), (x, y + 20 - 2 * pose.cheeks), (x + 24 * side, y + 13)]
        _stroke(canvas, _smooth_line(bag), SHADE, 2)


def _brow(canvas: Picture, side: int, pose: Pose) -> None:
    x, y = 240 + side * 48, 182.0 - 15 * pose.brows
    pinch = 7 * max(0.0, -pose.inner)
    inner = (x - side * (30 + pinch), y + 5 - 14 * pose.inner - (2 * pose.brows))
    middle = (x + side * 2, y - 5 - 2 * pose.inner)
    outer = (x + side * 36, y + 5 + 5 * max(0.0, pose.inner))
    _stroke(canvas, _smooth_line([inner, middle, outer]), HAIR, 9)
    if pose.inner < -0.2:
        at = 240 + side * 7
        _stroke(canvas, _smooth_line([(at, 186), (at + side * 2, 200)]), SHADE, 3)
    if pose.brows > 0.4:
        for k in range(3):
            line = [(x - side * 30, 138 + 10 * k), (x, 134 + 10 * k), (x + side * 34, 140 + 10 * k)]
            _stroke(canvas, _smooth_line(line), SHADE, 2)


def _nose(canvas: Picture, pose: Pose) -> None:
    for side in (-1, 1):
        ridge = [(240 + side * 13, 208), (240 + side * 12, 250), (240 + side * 20, 272)]
        _stroke(canvas, _smooth_line(ridge), (190, 142, 120), 3)
        _oval(canvas, (240 + side * 13, 281), (6, 3.6), (112, 66, 56))
        flare = 4 * max(0.0, pose.teeth - pose.smile)
        wing = [(240 + side * 20, 266), (240 + side * (27 + flare), 276), (240 + side * 20, 286)]
        _stroke(canvas, _smooth_line(wing), SHADE, 3)
        depth = max(0.0, pose.cheeks, 0.6 * -min(0.0, pose.smile))
        if depth > 0.05:
            out = 52 + 12 * pose.cheeks
            fold = [(240 + side * 30, 272), (240 + side * out, 300), (240 + side * (out + 7), 330)]
            _stroke(canvas, _smooth_line(fold), _blend_of(SKIN, SHADE, depth), 4)
    _oval(canvas, (240, 262), (9, 7), LIGHT)


def _mouth(canvas: Picture, pose: Pose) -> None:
    up = max(0.0, pose.smile)
    wide = 44 + 17 * up - 12 * pose.opened * (1 - up)
    corner = 322 - 17 * pose.smile + 6 * pose.opened
    top = 320 - 6 * pose.teeth - 3 * pose.opened + 3 * up
    gap = 6 + 49 * pose.opened + 15 * pose.teeth + up if pose.opened + pose.teeth > 0.02 else 2.0
    low, lift = top + gap, 9 - 2 * up
    left, right = (240 - wide, corner), (240 + wide, corner)
    between_lips, inside = (top + corner) / 2 - 1, 0.3 * corner + 0.7 * low
    above = _smooth_line(
        [left, (240 - wide / 2, between_lips), (240, top), (240 + wide / 2, between_lips), right]
    )
    below = _smooth_line([right, (240 + 0.55 * wide, inside), (240, low), (240 - 0.55 * wide, inside), left])
    bow = [(240 - wide / 2.4, top - lift + 2), (232, top - lift), (240, top - lift + 3), (248, top - lift)]
    upper = _smooth_line([left, *bow, (240 + wide / 2.4, top - lift + 2), right])
    lower = _smooth_line(
        [right, (240 + wide / 2, low + 10), (240, low + 14), (240 - wide / 2, low + 10), left]
    )
    _fill(canvas, np.concatenate([upper, above[::-1]]), LIP)
    _fill(canvas, np.concatenate([below, lower[::-1]]), _blend_of(LIP, LIGHT, 0.25))
    hole = np.concatenate([above, below])
    _fill(canvas, hole, THROAT)
    shown = min(1.0, pose.teeth + 0.3 * pose.opened)
    if shown > 0.05:
        behind = canvas.copy()
        _fill(behind, np.concatenate([above, (above + np.array([0, 17 * shown]))[::-1]]), TEETH)
        _show_through(canvas, behind, hole)
    _stroke(canvas, above, (112, 50, 50), 3)
    _stroke(canvas, _smooth_line([(214, low + 24), (240, low + 20), (266, low + 24)]), SHADE, 3)


def _show_through(canvas: Picture, behind: Picture, hole: NDArray[np.float64]) -> None:
    """What lies behind is seen within the hole alone."""
    mask = np.zeros(canvas.shape[:2], np.uint8)
    cv2.fillPoly(mask, [_fixed(hole)], 255, cv2.LINE_AA, _SHIFT)
    canvas[...] = np.where(mask[..., None] > 127, behind, canvas)


def _smooth_line(points: Sequence[tuple[float, float]], *, closed: bool = False) -> NDArray[np.float64]:
    """A smooth line through the points."""
    given = np.array([*points, points[0]] if closed else points, np.float64)
    before, after = (given[-2], given[1]) if closed else (2 * given[0] - given[1], 2 * given[-1] - given[-2])
    p = np.vstack([before, given, after])
    t = np.linspace(0, 1, 8, endpoint=False)[:, None]
    parts = []
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False):
        bend, twist = 2 * a - 5 * b + 4 * c - d, 3 * b - a - 3 * c + d
        parts.append(0.5 * (2 * b + (c - a) * t + bend * t**2 + twist * t**3))
    return np.vstack([*parts, given[-1:]])


def _blend_of(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(one, other, strict=True))
    return red, green, blue


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.asarray(np.round(points * (1 << _SHIFT)), np.int32)


def _fill(canvas: Picture, points: NDArray[np.float64], colour: Colour) -> None:
    cv2.fillPoly(canvas, [_fixed(points)], colour, cv2.LINE_AA, _SHIFT)


def _stroke(canvas: Picture, points: NDArray[np.float64], colour: Colour, width: int) -> None:
    cv2.polylines(canvas, [_fixed(points)], False, colour, width, cv2.LINE_AA, _SHIFT)


def _oval(canvas: Picture, centre: tuple[float, float], radii: tuple[float, float], colour: Colour) -> None:
    scale = 1 << _SHIFT
    at = round(centre[0] * scale), round(centre[1] * scale)
    size = round(radii[0] * scale), round(radii[1] * scale)
    cv2.ellipse(canvas, at, size, 0, 0, 360, colour, -1, cv2.LINE_AA, _SHIFT)


@dataclass(frozen=True, slots=True)
class Act:
    """One expression on the way through a scene."""

    label: str
    from_s: float


SCENE = (
    Act("neutral", 0.0),
    Act("happy", 2.0),
    Act("neutral", 4.2),
    Act("surprised", 5.4),
    Act("neutral", 7.0),
    Act("sad", 8.0),
    Act("neutral", 10.0),
    Act("angry", 11.0),
)


def shown_at(t_s: float, scene: Sequence[Act] = SCENE) -> tuple[str, str, float]:
    """The expression before, the one that is shown, and how far the head is on the way; scenes repeat."""
    if t_s < scene[1].from_s:
        return scene[0].label, scene[0].label, 1.0
    t_s %= SCENE_S
    now = max(k for k, act in enumerate(scene) if act.from_s <= t_s)
    return scene[now - 1].label, scene[now].label, min(1.0, (t_s - scene[now].from_s) / BLEND_S)


class ActingHead(Portraits):
    """The drawn head, held by a hand, going through its scene; portraits of others stand beside it."""

    def __init__(
        self, others: Sequence[Picture], size: tuple[int, int] = (640, 480), fps: float = 30.0
    ) -> None:
        super().__init__([draw_head(POSES["neutral"]), *others], size, fps)

    def _face(self, number: int, seq: int) -> Picture:
        still = super()._face(number, seq)
        if number:
            return still
        before, now, share = shown_at(self.time_ns(seq) / SECOND)
        return _posed(before, now, round(share * _STEPS), (still.shape[1], still.shape[0]))


@lru_cache(maxsize=48)
def _posed(before: str, now: str, step: int, size: tuple[int, int]) -> Picture:
    head = draw_head(between(POSES[before], POSES[now], step / _STEPS))
    return np.asarray(cv2.resize(head, size, interpolation=cv2.INTER_AREA), np.uint8)


def make_speech(folder: Path) -> Path:
    """A sound file with a few sentences in one voice, by espeak-ng or by tones."""
    path = folder / "speech.wav"
    if not speak(path, " ".join(SENTENCES), "-s", "150"):
        write_wav(path, tone_voice(8.0))
    return path


def make_voices(folder: Path) -> Path:
    """The same sentences, each in another voice, mood and pace."""
    path, parts = folder / "voices.wav", []
    for number, (sentence, (voice, pitch, pace)) in enumerate(zip(SENTENCES, VOICES, strict=True)):
        part = folder / f"voice{number}.wav"
        if not speak(part, sentence, "-v", voice, "-p", str(pitch), "-s", str(pace)):
            return make_speech(folder)
        parts += [read_wav(part), np.zeros(SAMPLE_RATE // 2, np.float32)]
    write_wav(path, np.concatenate(parts))
    return path


def speak(path: Path, text: str, *how: str) -> bool:
    """Let espeak-ng say it into a file; False where it is missing or says nothing."""
    espeak = shutil.which("espeak-ng")
    if espeak is None:
        return False
    done = subprocess.run([espeak, "-w", str(path), *how, text], check=False, capture_output=True, timeout=30)
    return done.returncode == 0 and path.is_file() and path.stat().st_size > SAMPLE_RATE


def tone_voice(seconds: float) -> NDArray[np.float32]:
    """Something with the rhythm and the pitch of speech: syllables of a gliding, buzzing tone."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch_hz = 140 + 25 * np.sin(2 * np.pi * 0.4 * t)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE
    buzz = sum(np.sin(k * phase) / k for k in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * 3.5 * t), 0, None) * (np.sin(2 * np.pi * 0.2 * t) > -0.6)
    return (0.15 * buzz * syllables).astype(np.float32)


def write_wav(path: Path, samples: NDArray[np.float32]) -> None:
    """Mono, 16 kHz, 16 bit."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def read_wav(path: Path) -> NDArray[np.float32]:
    """Mono, 16 bit, brought to the rate of the networks."""
    with wave.open(str(path), "rb") as file:
        rate_hz = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    at = np.arange(0, len(samples) - 1, rate_hz / SAMPLE_RATE)
    return np.asarray(np.interp(at, np.arange(len(samples)), samples), np.float32)
