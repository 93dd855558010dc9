"""What does it cost to say whose voice it is, and to steady the answer?

    python benchmarks/bench_attribution.py [--write]

One JSON line a case. A mouth costs once per face and picture (at most 0.05 ms), a decision once per
microphone and 100 ms (at most 0.2 ms, with sixteen faces in view), smoothing once per face and 100 ms.
How often the decision is right is a test: `tests/scenarios/test_two_talkers.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from harness import measure

from liveaffect.engines.recipe import LABELS, SAMPLE_RATE
from liveaffect.realtime.attribution import Attribution
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.estimate import Estimate, Labeller, Opinion
from liveaffect.realtime.expression import Pooled
from liveaffect.realtime.signs import SpeechEnergy, mouth_motion

RNG = np.random.default_rng(0)
BUDGET_MOUTH_MS, BUDGET_ENERGY_MS, BUDGET_DECISION_MS, BUDGET_LABELS_MS = 0.05, 0.1, 0.2, 0.05


def mouth() -> Callable[[], object]:
    """Two crops of one face."""
    before = RNG.integers(0, 256, (64, 64, 3), np.uint8)
    after = np.roll(before, 1, axis=0)
    return lambda: mouth_motion(before, after)


def energy() -> Callable[[], object]:
    """20 ms of sound as they come from a microphone."""
    listener, numbers = SpeechEnergy(), itertools.count()
    block = RNG.normal(0, 0.1, SAMPLE_RATE // 50).astype(np.float32)
    return lambda: listener.add(next(numbers) * 20 * MS, block)


def decision(tracks: int) -> Callable[[], object]:
    """Two seconds of speech behind it, everybody's mouth in motion at 30 pictures a second."""
    attribution = Attribution()
    for k in range(100):
        attribution.hear([(k * 20 * MS, 5.0 + 4.0 * float(np.sin(k / 2)))])
    for k, track in itertools.product(range(61), range(tracks)):
        attribution.move(k * SECOND // 30, track, float(RNG.normal(0, 0.5)))
    return lambda: attribution.decide(2 * SECOND)


def labels() -> Callable[[], object]:
    """One person, one estimate of face and voice."""
    person, numbers = Labeller(), itertools.count()
    pooled = Pooled(np.zeros(64, np.float32), np.zeros(len(LABELS), np.float32))

    def call() -> object:
        now_ns = next(numbers) * 100 * MS
        opinion = Opinion(now_ns, pooled, pooled)
        return person.label(Estimate(now_ns, 1, opinion, opinion, SECOND, shares=(0.0, 0.0, 1.0)))

    return call


def main() -> None:
    """All cases."""
    measure("attribution/mouth", mouth(), budget_ms=BUDGET_MOUTH_MS).print_json()
    measure("attribution/energy/20ms", energy(), budget_ms=BUDGET_ENERGY_MS).print_json()
    for tracks in (1, 4, 16):
        name = f"attribution/decision/{tracks}"
        measure(name, decision(tracks), budget_ms=BUDGET_DECISION_MS).print_json()
    measure("labelling/step", labels(), budget_ms=BUDGET_LABELS_MS).print_json()


if __name__ == "__main__":
    main()
