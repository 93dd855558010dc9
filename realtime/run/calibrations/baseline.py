"""`liveaffect calibrate baseline`: some seconds of one person's neutral face and voice become a profile.

Every crop and every piece of sound passes its network once, as live; what is kept of it are seven logits,
until the end, and the running statistics of the voice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.baseline import Baseline, BaselineRefused, Side, measure, sound_of
from engines.recipe import LABELS, SAMPLE_RATE
from realtime.audio_ring import AudioRing
from realtime.clock import MS, SECOND, MonotonicClock
from realtime.crop import quality
from realtime.errors import CalibrationRefused, EndOfStream, SettingsError
from realtime.frame import AudioBlock, VideoFrame
from realtime.hearing import SPEECH, Hearing
from realtime.replay import MediaFile
from realtime.run.calibrations.av import Reader
from realtime.run.calibrations.profiles import network_names, save
from realtime.run.calibrations.recording import Recording
from realtime.run.live import Feed
from realtime.run.loading import Say, Tools, load_tools
from realtime.run.settings import Settings
from realtime.run.webcam import camera_feed, microphone_feed
from realtime.sight import Sight
from realtime.window import PieceGrid

SECONDS = 5.0
GOOD = 0.5
"""Looks of poorer quality than this are left out."""
ALONE = 0.25
"""A second face that is there for a larger share of the time makes it unclear whose profile it would be."""
_LONGEST_NS = 100 * MS
_RING_S = 10
Logits = NDArray[np.floating[Any]]


@dataclass(slots=True, eq=False)
class _Looks:
    """What one track gave."""

    logits: list[Logits] = field(default_factory=list)
    covers_ns: int = 0
    seen_ns: int | None = None
    poor: int = 0


class Sitting:
    """Takes the items of one person at rest. One caller."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._sights: dict[str, Sight] = {}
        self._people: defaultdict[int, _Looks] = defaultdict(_Looks)
        self._ring = AudioRing(_RING_S * SAMPLE_RATE)
        self._grid: PieceGrid = tools.pieces
        self._hearing = Hearing("the sitter", self._ring, self._grid)
        self._voice: list[Logits] = []
        self._pictures = self._blocks = 0

    def all_of(self, reader: Reader) -> None:
        """Everything until the end."""
        while True:
            try:
                item = reader.read(1.0)
            except EndOfStream:
                return
            if isinstance(item, VideoFrame):
                self._see(item)
            elif item is not None:
                self._hear(item)

    def result(self, networks: dict[str, str], wanted: Sequence[str]) -> Baseline:
        """The profile. Raises CalibrationRefused with what was missing, for anything that was wanted."""
        sides: dict[str, Side] = {}
        try:
            if "face" in wanted and "face" in networks:
                sides["face"] = self._face(networks["face"])
            if "voice" in wanted and "voice" in networks:
                seconds = len(self._voice) * self._grid.hop / SAMPLE_RATE
                if not self._voice:
                    raise BaselineRefused(
                        "no speech was heard: read a sentence or two in your ordinary voice, "
                        "or leave the voice out: --mic none"
                    )
                sides["voice"] = measure("voice", networks["voice"], self._voice, seconds)
            sound = sound_of(self._hearing.present_statistics()) if "voice" in sides else None
            return Baseline(sides, sound)
        except BaselineRefused as refusal:
            raise CalibrationRefused(f"no profile was made: {refusal}") from refusal

    def _face(self, network: str) -> Side:
        if not self._people:
            raise BaselineRefused("no face was in view: sit in front of the camera, with light on your face")
        looks = sorted(self._people.values(), key=lambda seen: -(len(seen.logits) + seen.poor))
        if len(looks) > 1 and len(looks[1].logits) > ALONE * max(len(looks[0].logits), 1):
            raise BaselineRefused("more than one face was in view: a profile is of one person, alone")
        if looks[0].poor > len(looks[0].logits):
            raise BaselineRefused(
                f"{looks[0].poor} looks at the face were small, dark, blurred or turned, and only "
                f"{len(looks[0].logits)} good: come nearer, with light on your face"
            )
        return measure("face", network, looks[0].logits, looks[0].covers_ns / SECOND)

    def _see(self, frame: VideoFrame) -> None:
        if frame.source not in self._sights:
            self._sights[frame.source] = Sight(frame.source, *self._tools.make_finders())
        for face in self._sights[frame.source].step(frame).faces:
            seen = self._people[face.track]
            if seen.seen_ns is not None:
                seen.covers_ns += min(max(frame.captured_ns - seen.seen_ns, 0), _LONGEST_NS)
            seen.seen_ns = frame.captured_ns
            if quality(face.crop, face.points).score < GOOD:
                seen.poor += 1
                continue
            (answer,), _ = self._tools.networks.ask([{"crop": face.crop}], [])
            if answer is not None:
                seen.logits.append(answer["logits"])

    def _hear(self, block: AudioBlock) -> None:
        self._ring.push(block)
        for piece in self._hearing.due(hop_doubled=False):
            _, (answer,) = self._tools.networks.ask([], [self._hearing.inputs(piece)])
            if answer is None:
                continue
            self._hearing.take(piece, answer)
            if float(answer["speech"][0]) >= SPEECH:
                self._voice.append(answer["logits"])


def make_profile(settings: Settings, file: Path | None, say: Say) -> str:
    """Measure, keep under the name of the settings, and say what came of it."""
    name = settings.profile
    if not name:
        raise SettingsError("a profile has a name: --profile NAME")
    tools = load_tools(replace(settings, profile=""), say)
    networks = network_names(settings, tools.networks)
    sitting = Sitting(tools)
    wanted = _film(sitting, file, settings) if file is not None else _devices(sitting, settings, say)
    baseline = sitting.result(networks, wanted)
    path = save(name, baseline)
    return f"profile '{name}' is kept in {path}: {in_words(baseline)}"


def in_words(baseline: Baseline) -> str:
    """What the profile will do."""
    parts = []
    for modality, side in baseline.sides.items():
        moved = sorted(zip(side.shift, LABELS, strict=True))
        low, high = [f"{label} {shift:+.1f}" for shift, label in (moved[0], moved[-1])]
        parts.append(f"{modality} from {side.seconds:.1f} s ({low} to {high})")
    return ", ".join(parts)


def _film(sitting: Sitting, file: Path, settings: Settings) -> list[str]:
    """What of a film was wanted: all of it, but for what is 'none'."""
    media = MediaFile(file, video=settings.camera != ("none",), audio=settings.mic != ("none",))
    media.open()
    try:
        sitting.all_of(media)
    finally:
        media.close()
    return [kind for kind, there in (("face", media.has_video), ("voice", media.has_audio)) if there]


def _devices(sitting: Sitting, settings: Settings, say: Say) -> list[str]:
    clock = MonotonicClock()
    feeds: list[Feed] = []
    wanted: list[str] = []
    for camera in [name for name in settings.camera if name != "none"][:1]:
        feeds.append(camera_feed(camera, settings, clock))
        wanted.append("face")
    for microphone in [name for name in settings.mic if name != "none"][:1]:
        feeds.append(microphone_feed(microphone, settings, clock))
        wanted.append("voice")
    if not feeds:
        raise SettingsError("neither a camera nor a microphone: both are 'none', so nobody can be measured")
    seconds = settings.seconds or SECONDS
    say(f"for {seconds:.0f} seconds: a neutral face to the camera, and speak in your ordinary voice")
    recording = Recording(feeds, clock, seconds)
    recording.open()
    try:
        sitting.all_of(recording)
    finally:
        recording.close()
    return wanted
