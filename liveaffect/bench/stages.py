"""The stages of the live path, one by one: finding, cutting out, networks, summing up, overlay.

Pictures are those of the demonstration; everything runs as live, on the same classes, without threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

from liveaffect.bench.measure import Row, measure_calls
from liveaffect.engines import parity, stopwatch
from liveaffect.engines.protocol import Engine
from liveaffect.realtime.blazeface import make_finder
from liveaffect.realtime.crop import cut_out
from liveaffect.realtime.drawing.canvas import Health, Mark, View
from liveaffect.realtime.face_analyzer import FaceAnalyzer
from liveaffect.realtime.frame import Sighting, VideoFrame
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.overlay import draw
from liveaffect.realtime.portrait import Portraits, packaged_portraits
from liveaffect.realtime.replay import load_picture
from liveaffect.settings import Settings

FPS = 30.0
LOOP = 90
"""Pictures that are shown again and again."""
BUDGETS_MS = {
    "find and track, 640x480": 2.0,
    "find and track, 1280x720": 2.0,
    "crop, a face": 0.1,
    "face network, 1": 0.4,
    "voice network, 1": 3.0,
    "overlay, 640x480": 0.6,
}
FULL_VOICE_MS = 16.0
"""40 ms a second of sound, of which a piece brings 0.4 s."""
SIZES = ((640, 480), (1280, 720))


def stage_rows(settings: Settings, *, blocks: int, block_s: float, say: Callable[[str], None]) -> list[Row]:
    """Processor milliseconds of every stage."""
    tools = settings.load_tools(say)
    tools.networks.warm_up()
    calls: dict[str, Callable[[], object]] = {}
    for size in SIZES:
        calls[f"find and track, {size[0]}x{size[1]}"] = _finder_step(size)
    sighting, frame = _one_sighting(SIZES[0])
    face = sighting.faces[0]
    calls["crop, a face"] = partial(cut_out, frame.image, face.points)
    calls |= _network_calls(tools.networks)
    health = Health(30.0, 12.0, 0, 0, "bench", "locked")
    view = View(frame, (Mark(face.track, face.box, face_age_ms=12),), health)
    calls["overlay, 640x480"] = partial(draw, view)
    is_full = "whisper" in tools.networks.engine("voice").spec.name
    budgets = BUDGETS_MS | ({"voice network, 1": FULL_VOICE_MS} if is_full else {})
    rows = measure_calls(calls, budgets=budgets, blocks=blocks, block_s=block_s, say=say)
    tools.networks.close()
    return rows


def finding_ms(size: tuple[int, int] = SIZES[0], pictures: int = 120) -> float:
    """Processor time of finding and following one face, for each picture."""
    step = _finder_step(size, pictures)
    step()
    start_ns = stopwatch.thread_cpu_ns()
    for _ in range(pictures):
        step()
    return (stopwatch.thread_cpu_ns() - start_ns) / 1e6 / pictures


def _finder_step(size: tuple[int, int], loop: int = LOOP) -> Callable[[], Sighting]:
    analyzer = FaceAnalyzer("bench", *make_finder())
    seq = itertools.count()
    portraits = Portraits([load_picture(packaged_portraits()[0])], size, FPS)
    pictures = [portraits.draw(at) for at in range(min(loop, LOOP))]

    def step() -> Sighting:
        at = next(seq)
        return analyzer.step(VideoFrame("bench", at, portraits.time_ns(at), pictures[at % len(pictures)]))

    return step


def _one_sighting(size: tuple[int, int]) -> tuple[Sighting, VideoFrame]:
    """A picture in which the face was found."""
    analyzer = FaceAnalyzer("bench", *make_finder())
    portraits = Portraits([load_picture(packaged_portraits()[0])], size, FPS)
    for at in range(LOOP):
        frame = VideoFrame("bench", at, portraits.time_ns(at), portraits.draw(at))
        if (sighting := analyzer.step(frame)).faces:
            return sighting, frame
    raise AssertionError("the face of the demonstration was not found")


def _network_calls(networks: Networks) -> dict[str, Callable[[], object]]:
    """Each network as the run would ask it."""
    face, voice = networks.engine("face"), networks.engine("voice")
    batches = {
        "face network, 1": (face, _batch(face, "face", 1)),
        "face network, 16": (face, _batch(face, "face", 16)),
        "voice network, 1": (voice, _batch(voice, "voice", 1)),
    }
    calls: dict[str, Callable[[], object]] = {
        name: partial(engine.infer, batch) for name, (engine, batch) in batches.items()
    }
    return {**calls, "fusion, 3 people": partial(networks.fuse, parity.inputs("fusion", 3))}


def _batch(engine: Engine, kind: str, count: int) -> parity.Batch:
    return parity.for_tensors(kind, count, engine.spec.inputs)
