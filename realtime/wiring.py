"""The stations between the sources and the snapshot, wired for lists of cameras and microphones.

Live runs and files in lock-step use the same object; they differ only in who calls whom and when. Every
source has its own ring, every camera its own `FaceAnalyzer`, every microphone its own `VoiceAnalyzer`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2

from liveaffect.engines import manifest as manifests
from liveaffect.engines.confidence import READING, Calibrated, OtherWeights, parse
from liveaffect.engines.fallback import FallbackEngine
from liveaffect.engines.load import load, manifest_path, recipe_numbers
from liveaffect.engines.manifest import KINDS, RecipeNumbers
from liveaffect.engines.protocol import Engine
from liveaffect.engines.recipe import SAMPLE_RATE, SUBSETS
from liveaffect.realtime.blazeface import FaceFinder, make_finder
from liveaffect.realtime.cue import Cue
from liveaffect.realtime.estimate import Confidence
from liveaffect.realtime.face_analyzer import FaceAnalyzer
from liveaffect.realtime.frame import AudioBlock, Sighting, VideoFrame
from liveaffect.realtime.health import HealthBook
from liveaffect.realtime.hearing import SpeechHearing
from liveaffect.realtime.networks import LighterVoice, Networks
from liveaffect.realtime.people import Profile
from liveaffect.realtime.ring import AudioRing, Ring
from liveaffect.realtime.scheduler import Scheduler
from liveaffect.realtime.voice_analyzer import VoiceAnalyzer
from liveaffect.realtime.window import PIECES, PieceGrid
from liveaffect.realtime.words import WordTools

Finders = tuple[FaceFinder, FaceFinder]
"""The far one for tiles and the near one for close looks; a camera has its own."""
Watcher = Callable[[object], None]
"""Is shown every item of a hand-over; tests watch them all."""
FRAMES = 8
"""Pictures a camera's ring holds: more would be memory without use, 64 at 1080p are 400 MB."""
SIGHTINGS = 32
SOUND_S = 20


@dataclass(frozen=True, slots=True)
class SpokenChoice:
    """That words are heard, and how."""

    make_tools: Callable[[], WordTools]
    """Loads Whisper when it is called first, which takes a second."""
    transcript: bool = False
    """Whether cues may hold what was said."""


@dataclass(slots=True, eq=False)
class Rings:
    """All hand-overs of a run. Tests make monitored ones."""

    frames: dict[str, Ring[VideoFrame]] = field(default_factory=dict)
    sightings: dict[str, Ring[Sighting]] = field(default_factory=dict)
    sounds: dict[str, AudioRing] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    """Of tracks: never one twice in a run, whatever is made anew behind the rings."""

    @classmethod
    def plain(
        cls, cameras: Sequence[str], microphones: Sequence[str], watch: Callable[[str], Watcher] | None = None
    ) -> Rings:
        """The rings of a run, by name of their source; `watch` gives each hand-over a watcher."""
        return cls(
            frames={c: Ring(FRAMES, on_push=watch and watch(f"frames of {c}")) for c in cameras},
            sightings={c: Ring(SIGHTINGS, on_push=watch and watch(f"sightings of {c}")) for c in cameras},
            sounds={
                m: AudioRing(SOUND_S * SAMPLE_RATE, on_push=watch and watch(f"sound of {m}"))
                for m in microphones
            },
        )

    def take(self, item: VideoFrame | AudioBlock) -> None:
        """Put a source's item where it belongs."""
        if isinstance(item, VideoFrame):
            self.frames[item.source].push(item)
        else:
            self.sounds[item.source].push(item)


class Wiring:
    """Rings, face and voice analyzers, scheduler and health of one run."""

    def __init__(
        self,
        rings: Rings,
        networks: Networks,
        make_finders: Callable[[], Finders],
        publish: Callable[[tuple[Cue, ...]], None],
        *,
        pieces: PieceGrid = PIECES,
        epoch_ns: Callable[[], int] | None = None,
    ) -> None:
        # OpenCV's own threads cost a quarter more processor time and gain nothing on pictures this small.
        cv2.setNumThreads(1)
        self.rings = rings
        self.networks = networks
        self.health = HealthBook()
        self._make_finders = make_finders
        self.face_analyzers = {name: self._face_analyzer(name) for name in rings.frames}
        self.voice_analyzers = [
            VoiceAnalyzer(name, ring, pieces, believe_speech=networks.trained("voice"))
            for name, ring in rings.sounds.items()
        ]
        self.hearing: SpeechHearing | None = None
        self.scheduler = Scheduler(
            networks,
            sightings=rings.sightings,
            voice_analyzers=self.voice_analyzers,
            publish=publish,
            epoch_ns=epoch_ns,
        )

    def pair(self, pairs: Mapping[str, str]) -> None:
        """Let each microphone named hear the people of its camera alone, and the others those of the rest."""
        rest = frozenset(self.rings.frames) - frozenset(pairs.values())
        for voice_analyzer in self.voice_analyzers:
            camera = pairs.get(voice_analyzer.source)
            voice_analyzer.hears = rest if camera is None else frozenset([camera])

    def hear_words(self, spoken: SpokenChoice | None) -> None:
        """Before the first step: hear what is said at every microphone; None leaves it."""
        if spoken is not None and self.rings.sounds:
            self.hearing = SpeechHearing(self.rings.sounds, spoken.make_tools, transcript=spoken.transcript)
            self.scheduler.hear_words(self.hearing)

    def look(self, frame: VideoFrame) -> Sighting:
        """Look at one picture and hand the sighting on, unless `renew` replaced who looked meanwhile."""
        analyzer = self.face_analyzers[frame.source]
        sighting = analyzer.step(frame)
        if self.face_analyzers[frame.source] is analyzer:
            self.rings.sightings[frame.source].push(sighting)
        return sighting

    def renew(self, source: str) -> None:
        """Look at that camera with new finders, since the old ones hang or failed. Ids go on counting."""
        self.face_analyzers[source] = self._face_analyzer(source)

    def go_on_after(self, old: Wiring) -> None:
        """Before the first step: take the place of a wiring that hangs or failed, with all its figures.

        What that one knew of people is not trusted any more; where it stopped in sound and pictures is.
        """
        self.health = old.health
        self.scheduler.go_on_after(old.scheduler)
        for voice_analyzer, before in zip(self.voice_analyzers, old.voice_analyzers, strict=True):
            voice_analyzer.go_on_after(before)

    def _face_analyzer(self, source: str) -> FaceAnalyzer:
        return FaceAnalyzer(source, *self._make_finders(), ids=self.rings.ids)


Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tools:
    """What every run uses; loaded once for all of them."""

    networks: Networks
    make_finders: Callable[[], Finders]
    pieces: PieceGrid = PIECES
    """What the voice network takes, from its manifest."""
    profile: Profile | None = None
    """The personal profile that was asked for."""
    spoken: SpokenChoice | None = None
    """What words are heard with; None where they are not."""
    awaiting: Mapping[Path, FallbackEngine] = field(default_factory=dict)
    """Engines that would move to the GPU if it had plans, by the manifest of their network."""


def load_tools(
    say: Say,
    *,
    engine: str = "auto",
    folders: Mapping[str, Path | None] | None = None,
    threads: int = 1,
    require_gpu: bool = False,
    face_files: Path | None = None,
) -> Tools:
    """Networks and finders, warmed up. Raises EngineError or MissingFile with what to do about it.

    `folders` says where each kind's network is; None, the shipped ones.
    """
    folders = folders or dict.fromkeys(KINDS)

    def one(kind: str) -> Engine:
        return load(
            kind,
            choice=engine,
            weights=folders[kind],
            threads=threads,
            require_gpu=require_gpu and kind != "fusion",
            report=say,
        )

    engines = {kind: one(kind) for kind in KINDS}
    trained = [kind for kind, each in engines.items() if each.spec.trained]
    networks = Networks(
        engines["face"], engines["voice"], engines["fusion"], confidence_of(folders, trained, say)
    )
    networks.warm_up()
    numbers = recipe_numbers("voice", choice=engine, weights=folders["voice"])
    awaiting = {
        manifest_path(kind, folders[kind]): each
        for kind, each in engines.items()
        if isinstance(each, FallbackEngine) and each.wants_gpu
    }
    pieces = _grid_of(numbers)
    return Tools(networks, lambda: make_finder(face_files), pieces, awaiting=awaiting)


def keep_small_voice(tools: Tools, weights: Path | None, say: Say, *, engine: str, threads: int = 1) -> None:
    """Load the small voice beside the full one: it takes over while the machine is late.

    Not where it cuts sound otherwise, since pieces go on as they are.
    """
    numbers = recipe_numbers("voice", choice=engine, weights=weights)
    if replace(tools.pieces, statistics=numbers.statistics) != _grid_of(numbers):
        return
    voice, fusion = (
        load(kind, choice=engine, weights=weights, threads=threads, report=say)
        for kind in ("voice", "fusion")
    )
    trained = [kind for kind in KINDS if tools.networks.trained(kind)]
    believed = confidence_of(dict.fromkeys(KINDS, weights), trained, say)
    tools.networks.keep_ready(LighterVoice(voice, fusion, believed, numbers.statistics))


def _grid_of(numbers: RecipeNumbers) -> PieceGrid:
    return PieceGrid(numbers.piece, numbers.hop, numbers.lead, numbers.statistics)


NOT_CALIBRATED = "confidence not calibrated"


def confidence_of(
    folders: Mapping[str, Path | None], trained: Collection[str], say: Callable[[str], None]
) -> Confidence:
    """What the manifests say of those networks that were trained; the others have none.

    Raises EngineFileError for a damaged one.
    """
    found = {kind: manifests.read(manifest_path(kind, folders[kind])) for kind in trained}
    parts: dict[str, dict[str, Calibrated]] = {}
    for kind, manifest in found.items():
        try:
            parts[kind] = parse(manifest, found)
        except OtherWeights as err:
            say(f"{NOT_CALIBRATED}: {err}")
            parts[kind] = {}
    readings = {kind: one[READING] for kind, one in parts.items() if READING in one}
    # A fusion of plain rules hands on what stands alone, so that is believed as it was by itself.
    fused = parts.get("fusion", readings)
    lacking = [
        subset
        for subset in SUBSETS
        if set(subset.split("+")) <= set(trained)
        and (subset not in fused or ("+" not in subset and subset not in readings))
    ]
    return Confidence(
        readings={name: one.temperature for name, one in readings.items()},
        fused={name: one.temperature for name, one in fused.items()},
        thresholds={name: one.threshold for name, one in fused.items()},
        picture_threshold=readings["face"].threshold if "face" in readings else None,
        caveat=_caveat(lacking, whole=not readings),
    )


def _caveat(lacking: list[str], *, whole: bool) -> str | None:
    if not lacking:
        return None
    return NOT_CALIBRATED if whole else f"{NOT_CALIBRATED}: {', '.join(lacking)}"
