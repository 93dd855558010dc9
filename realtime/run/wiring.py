"""The stations between the sources and the board, wired for lists of cameras and microphones.

Live runs and files in lock-step use the same object; they differ only in who calls whom and when. Every
source has its own ring, every camera its own `Sight`, every microphone its own `Hearing`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2

from engines.recipe import SAMPLE_RATE
from realtime.audio_ring import AudioRing
from realtime.cue import Cue
from realtime.faces.blazeface import FaceFinder
from realtime.frame import AudioBlock, Sighting, VideoFrame
from realtime.hearing import Hearing
from realtime.networks import Networks
from realtime.ring import Ring
from realtime.run.health import HealthBook
from realtime.scheduler import Scheduler
from realtime.sight import Sight
from realtime.window import PIECES, PieceGrid

Finders = tuple[FaceFinder, FaceFinder]
"""The far one for tiles and the near one for close looks; a camera has its own."""
Watcher = Callable[[object], None]
"""Is shown every item of a hand-over; tests watch them all."""
FRAMES = 8
"""Pictures a camera's ring holds: more would be memory without use, 64 at 1080p are 400 MB."""
SIGHTINGS = 32
SOUND_S = 20


@dataclass(slots=True, eq=False)
class Rings:
    """All hand-overs of a run. Tests make monitored ones."""

    frames: dict[str, Ring[VideoFrame]] = field(default_factory=dict)
    sightings: dict[str, Ring[Sighting]] = field(default_factory=dict)
    sounds: dict[str, AudioRing] = field(default_factory=dict)

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
    """Rings, sights, hearings, scheduler and health of one run."""

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
        ids = itertools.count(1)
        self.sights = {name: Sight(name, *make_finders(), ids=ids) for name in rings.frames}
        self.hearings = [
            Hearing(name, ring, pieces, believe_speech=networks.trained("voice"))
            for name, ring in rings.sounds.items()
        ]
        self.scheduler = Scheduler(
            networks,
            sights=rings.sightings,
            hearings=self.hearings,
            publish=publish,
            epoch_ns=epoch_ns,
        )

    def look(self, frame: VideoFrame) -> Sighting:
        """Look at one picture and hand the sighting on."""
        sighting = self.sights[frame.source].step(frame)
        self.rings.sightings[frame.source].push(sighting)
        return sighting
