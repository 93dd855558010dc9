"""How many streams one card keeps up: the largest number whose pictures are answered in time.

Streams are out of step with one another, as cameras are, and bring pictures and sound on their own time. A
turn takes everything that has arrived, at most a batch of each; who arrives meanwhile waits for the next. So
the age of a picture holds the wait for the turn before it, which no time of a single call shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gpu.card import Watch
from gpu.lanes import Path as GpuPath
from gpu.measuring import Pair, Run, opened_pair
from numpy.typing import NDArray

from liveaffect.engines.protocol import Tensors

FPS = 30
LIMIT_MS = 33.0
NS = 1_000_000_000


def streams(run: Run, watch: Watch, way: GpuPath, precision: str = "fp16") -> dict[str, Any]:
    """The largest number of streams, each with a face 30 times a second and its sound, at p99 <= 33 ms."""
    pair = opened_pair(run, way, precision)
    trials: list[dict[str, Any]] = []

    def keeps_up(count: int) -> bool:
        trials.append(_trial(run, pair, count))
        watch.look()
        run.say(f"{count} streams: p99 {trials[-1]['p99_ms']:.3g} ms")
        return bool(trials[-1]["p99_ms"] <= LIMIT_MS)

    try:
        most = largest(keeps_up, run.effort.most_streams, lambda: run.in_time)
    finally:
        pair.close()
    trials.sort(key=lambda trial: int(trial["streams"]))
    return {"path": way.name, "precision": precision, "streams": most, "trials": trials}


def largest(keeps_up: Callable[[int], bool], most: int, in_time: Callable[[], bool]) -> int:
    """Doubling, then halving the gap to a twentieth: the largest number that kept up, 0 if none did."""
    good, bad = 0, 1
    while bad <= most and in_time() and keeps_up(bad):
        good, bad = bad, bad * 2
    while bad - good > max(1, good // 20) and bad <= most and in_time():
        middle = (good + bad) // 2
        good, bad = (middle, bad) if keeps_up(middle) else (good, middle)
    return good


def _trial(run: Run, pair: Pair, count: int) -> dict[str, Any]:
    """So many streams for a while; ages are from arrival to answer."""
    face, voice = run.prepared.first("face"), run.prepared.first("voice")
    hop_s = voice.manifest.recipe.hop / voice.manifest.recipe.sample_rate
    rng = np.random.default_rng(count)
    pictures = _arrivals(rng, count, 1 / FPS, run.effort.trial_s)
    sounds = _arrivals(rng, count, hop_s, run.effort.trial_s)
    most_faces, most_pieces = pair.face.engine.spec.max_batch, pair.voice.engine.spec.max_batch
    crops, pieces = face.inputs(most_faces), voice.inputs(most_pieces)
    ages: list[NDArray[np.int64]] = []
    seen = heard = turns = 0
    start_ns = run.now()
    while seen < len(pictures):
        at_ns = run.now() - start_ns
        if pictures[seen] > at_ns:
            continue
        until = min(int(np.searchsorted(pictures, at_ns, "right")), seen + most_faces)
        heard_until = min(int(np.searchsorted(sounds, at_ns, "right")), heard + most_pieces)
        pair.tick(_first(crops, until - seen), _first(pieces, heard_until - heard))
        ages.append(run.now() - start_ns - pictures[seen:until])
        seen, heard, turns = until, heard_until, turns + 1
    taken_ms = np.concatenate(ages) / 1e6
    return {
        "streams": count,
        "p50_ms": float(np.percentile(taken_ms, 50)),
        "p99_ms": float(np.percentile(taken_ms, 99)),
        "pictures": len(taken_ms),
        "faces_a_turn": len(taken_ms) / turns,
    }


def _arrivals(rng: np.random.Generator, count: int, every_s: float, for_s: float) -> NDArray[np.int64]:
    """When everything arrives, in nanoseconds from the start, sorted."""
    first_s = rng.uniform(0, every_s, (count, 1))
    at_s = first_s + every_s * np.arange(max(1, int(for_s / every_s)))
    return np.sort((at_s * NS).astype(np.int64).ravel())


def _first(pool: Tensors, count: int) -> Tensors:
    return {name: array[:count] for name, array in pool.items()}
