"""Two people side by side talk at the same time, one is heard: the right one is named, the other is not.

And where they talk one after the other, what each said stands at their face.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.attribution import Attribution, Voice
from liveaffect.realtime.blazeface import make_finder
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import EndOfStream, MissingFile
from liveaffect.realtime.face_analyzer import FaceAnalyzer
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.lockstep import Watched, analyse
from liveaffect.realtime.replay import MediaFile
from liveaffect.realtime.signs import SpeechEnergy, mouth_motion
from liveaffect.realtime.sinks import Outputs
from liveaffect.settings import Settings
from liveaffect.spoken_choice import why_no_words

TALKERS, PICTURES = 11, 75
SAMPLES = 3 * SAMPLE_RATE
FRAME_NS = 40 * MS
FILM = "film"
Motion = list[tuple[int, float]]
SAME_MAN = {6, 7}
ONSET_NS = 300 * MS
"""The first moments of speech do not count: one movement of a jaw may fit by chance."""


@dataclass(frozen=True, slots=True, eq=False)
class Talkers:
    """Eleven clips of three seconds, looked at by the real `FaceAnalyzer`, two at a time side by side."""

    sounds: NDArray[np.float32]
    """(talker, sample)"""
    motions: list[Motion]
    """For each talker, when the mouth moved and how far."""


def pictures_and_sound(clip: Path) -> tuple[list[NDArray[np.uint8]], NDArray[np.float32]]:
    source = MediaFile(clip)
    source.open()
    pictures: list[NDArray[np.uint8]] = []
    sounds: list[NDArray[np.float32]] = []
    with contextlib.suppress(EndOfStream):
        while True:
            item = source.read(1.0)
            if isinstance(item, VideoFrame):
                pictures.append(item.image)
            elif isinstance(item, AudioBlock):
                sounds.append(item.samples)
    source.close()
    return pictures, np.concatenate(sounds)


def watch(left: list[NDArray[np.uint8]], right: list[NDArray[np.uint8]]) -> tuple[Motion, Motion]:
    """Mouth motion of the talker on the left and of the one on the right, as the real path sees them."""
    sight = FaceAnalyzer("camera:test", *make_finder())
    crops: dict[int, NDArray[np.uint8]] = {}
    motions: tuple[Motion, Motion] = ([], [])
    for seq, (a, b) in enumerate(zip(left, right, strict=True)):
        both = np.ascontiguousarray(np.hstack([a, b]))
        for face in sight.step(VideoFrame("camera:test", seq, seq * FRAME_NS, both)).faces:
            side = int(face.box[0] + face.box[2] / 2 > a.shape[1])
            if face.track in crops:
                motions[side].append((seq * FRAME_NS, mouth_motion(crops[face.track], face.crop)))
            crops[face.track] = face.crop
    return motions


@cache
def look_at(clip: Path) -> Talkers:
    pictures, sound = pictures_and_sound(clip)
    clips = [pictures[i * PICTURES : (i + 1) * PICTURES] for i in range(TALKERS)]
    motions: dict[int, Motion] = {}
    for left, right in ((0, 6), (1, 7), (2, 8), (3, 9), (4, 10), (5, 0)):
        motions[left], motions[right] = watch(clips[left], clips[right])
    sounds = sound[: TALKERS * SAMPLES].reshape(TALKERS, SAMPLES)
    return Talkers(sounds, [motions[i] for i in range(TALKERS)])


@pytest.fixture
def talkers(shared_data: Path) -> Talkers:
    try:
        return look_at(shared_data / "clips" / "demo_grid_10speakers.mp4")
    except MissingFile as error:
        pytest.skip(str(error))


def spoken(sound: NDArray[np.float32]) -> NDArray[np.bool_]:
    """For every 10 ms of clean sound whether somebody speaks: half way between its loud and its quiet."""
    power = np.square(sound.reshape(-1, SAMPLE_RATE // 100), dtype=np.float64).mean(axis=1)
    level = 10 * np.log10(power + 1e-9)
    loud = level > (np.percentile(level, 10) + np.percentile(level, 95)) / 2
    return np.convolve(loud, np.ones(11), "same") > 5.5


def listen(sound: NDArray[np.float32], mouths: list[Motion]) -> list[Voice]:
    """The decisions every 100 ms of the faces 0, 1, ... with one sound, all fed as time goes by."""
    energy, attribution = SpeechEnergy(), Attribution()
    events = sorted((when, track, motion) for track, mouth in enumerate(mouths) for when, motion in mouth)
    block = SAMPLE_RATE // 50
    fed = 0
    voices: list[Voice] = []
    for k in range(len(sound) // block):
        begin_ns, end_ns = k * 20 * MS, (k + 1) * 20 * MS
        attribution.hear(energy.add(begin_ns, sound[k * block : (k + 1) * block]))
        while fed < len(events) and events[fed][0] <= end_ns:
            attribution.move(*events[fed])
            fed += 1
        if k % 5 == 4:
            voices.append(attribution.decide(end_ns))
    return voices


def shares(talkers: Talkers, noise: NDArray[np.float32] | None = None) -> tuple[float, float]:
    """Over all pairs of different people: how much of what one says is given to them, and to the other."""
    right = wrong = total = 0
    for talker, other in itertools.permutations(range(TALKERS), 2):
        if {talker, other} == SAME_MAN:
            continue
        clean = talkers.sounds[talker]
        speech = spoken(clean)
        first_ns = int(speech.argmax()) * 10 * MS + ONSET_NS
        heard = clean if noise is None else clean + noise
        voices = listen(heard, [talkers.motions[talker], talkers.motions[other]])
        for k, voice in enumerate(voices):
            now_ns = (k + 1) * 100 * MS
            if now_ns < first_ns or now_ns >= 3 * SECOND or not speech[now_ns // (10 * MS)]:
                continue
            total += 1
            right += voice.track == 0
            wrong += voice.track == 1
    return right / total, wrong / total


def test_the_right_one_of_two_who_both_move_their_mouths_is_named(talkers: Talkers) -> None:
    right, wrong = shares(talkers)
    assert right >= 0.90
    assert wrong <= 0.05


def test_noise_ten_decibels_below_the_voice_leaves_it_so(talkers: Talkers) -> None:
    voice_power = float(np.mean([np.square(s).mean() for s in talkers.sounds]))
    noise = np.random.default_rng(0).standard_normal(SAMPLES) * np.sqrt(voice_power / 10)
    right, wrong = shares(talkers, noise.astype(np.float32))
    assert right >= 0.85
    assert wrong <= 0.05


def test_a_face_alone_is_named_when_it_speaks(talkers: Talkers) -> None:
    named = total = 0
    for talker in range(TALKERS):
        speech = spoken(talkers.sounds[talker])
        for k, voice in enumerate(listen(talkers.sounds[talker], [talkers.motions[talker]])):
            if k < 29 and speech[10 * (k + 1)]:
                total += 1
                named += voice.track == 0
    assert named / total >= 0.9


def test_a_voice_over_still_faces_is_never_given_to_them(talkers: Talkers) -> None:
    still = [(k * FRAME_NS, 0.0) for k in range(PICTURES)]
    for sound in talkers.sounds:
        voices = listen(sound, [still, still])
        assert all(voice.track is None for voice in voices)
        assert "nobody in view" in [voice.state for voice in voices]


class Turns:
    """Two people side by side; in each turn one speaks, and the other looks as before speaking."""

    def __init__(self, clip: Path, left: int, right: int, turns: str) -> None:
        pictures, sound = pictures_and_sound(clip)
        self._items: list[VideoFrame | AudioBlock] = []
        for at, side in enumerate(turns):
            speaker = left if side == "l" else right
            for k in range(PICTURES):
                now, rest = k, min(k % 10, 10 - k % 10)
                seq = at * PICTURES + k
                shown = [
                    pictures[who * PICTURES + (now if who == speaker else rest)] for who in (left, right)
                ]
                self._items.append(
                    VideoFrame(FILM, seq, seq * FRAME_NS, np.ascontiguousarray(np.hstack(shown)))
                )
                first, block = speaker * SAMPLES + k * SAMPLES // PICTURES, SAMPLES // PICTURES
                self._items.append(
                    AudioBlock(FILM, seq * block, seq * FRAME_NS, sound[first : first + block].copy())
                )
        self._items.reverse()

    def read(self, timeout_s: float) -> VideoFrame | AudioBlock:
        if not self._items:
            raise EndOfStream(f"{FILM} is at its end")
        return self._items.pop()


def test_words_stand_at_the_face_of_whoever_of_two_said_them(shared_data: Path) -> None:
    if why := why_no_words("tiny.en"):
        pytest.skip(f"no Whisper tiny.en: {why}")
    clip = shared_data / "clips" / "demo_grid_10speakers.mp4"
    if not clip.exists():
        pytest.skip(f"{clip} is not here")
    tools = Settings(words="tiny.en", transcript=True, voice="small").load_tools(lambda _: None)
    told: dict[str, set[str]] = {"left": set(), "right": set()}

    def note(cues: tuple[Cue, ...]) -> None:
        for cue in cues:
            if cue.transcript and cue.box is not None:
                side = "left" if cue.box[0] + cue.box[2] / 2 < 360 else "right"
                told[side] |= set(re.findall(r"[a-z]+", cue.transcript.lower()))

    # "place white in j three please", "bin red by k seven now", "set white with p two soon"
    man, again, woman = 6, 7, 1
    for man_says, turns in ((man, "lr"), (again, "rl")):
        analyse(Watched(Turns(clip, man_says, woman, turns), FILM, FILM), tools, Outputs([]), note)
    tools.networks.close()
    assert {"place", "white", "please", "soon"} <= told["left"]
    assert {"by", "now"} <= told["right"]
    assert told["left"].isdisjoint({"by", "now"})
    assert told["right"].isdisjoint({"place", "white", "please", "soon"})
