"""The doctor's practical part: a face that must be found, a voice that must be heard, each engine once.

It goes through the code of a real run, loaders included. Whether the label is right is not asked: that is
what `evaluate` measures. Asked is whether the parts work together on this machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.manifest import KINDS
from liveaffect.engines.protocol import Engine, EngineError
from liveaffect.engines.recipe import HOP, LABELS, SpeakerStatistics, Statistics
from liveaffect.findings import Finding
from liveaffect.realtime.acting import read_wav
from liveaffect.realtime.errors import RealtimeError
from liveaffect.settings import Settings


def try_engines(settings: Settings) -> Iterator[Finding]:
    """Each engine as `auto`, or what the settings ask for, loads it here, and why not a better one.

    Last, whether the confidence of those that were trained means something.
    """
    trained: list[str] = []
    for kind in KINDS:
        lines: list[str] = []
        try:
            engine = open_engine(kind, settings, lines)
        except EngineError as error:
            yield Finding(kind, "broken", str(error), "uv sync --inexact --reinstall-package liveaffect")
            continue
        untrained = "" if engine.spec.trained else "; no trained network yet, the answers mean nothing"
        yield Finding(kind, "ok", "; ".join(lines).removeprefix(f"{kind}: ") + untrained)
        trained += [kind] if engine.spec.trained else []
        engine.close()
    if trained:
        yield confidence(trained, settings)


def confidence(trained: list[str], settings: Settings) -> Finding:
    """The temperatures of a run's networks, or why there are none."""
    from liveaffect.engines.confidence import MEND
    from liveaffect.realtime.wiring import confidence_of

    lines: list[str] = []
    try:
        found = confidence_of(settings.folders(lines.append), trained, lines.append)
    except EngineError as error:
        return Finding("confidence", "broken", str(error), MEND)
    known = ", ".join(f"{name} {temperature:.2f}" for name, temperature in found.fused.items())
    temperatures = [f"temperatures: {known}"] if known else []
    if found.caveat is None:
        return Finding("confidence", "ok", "; ".join(temperatures))
    detail = "; ".join([found.caveat.removeprefix("confidence "), *lines, *temperatures])
    return Finding("confidence", "absent", detail, MEND)


def try_known_face(settings: Settings) -> Iterator[Finding]:
    """The portraits that installed packages carry, searched by the detector of a live run."""
    from liveaffect.realtime.blazeface import FULL_RANGE, SHORT_RANGE, BlazeFace, model_path
    from liveaffect.realtime.face_analyzer import find_in_picture
    from liveaffect.realtime.portrait import packaged_portraits
    from liveaffect.realtime.replay import load_picture

    folder = Path(settings.face_model) if settings.face_model else None
    pictures = packaged_portraits()
    if not pictures:
        yield Finding("known face", "broken", "no installed package carries a portrait", "uv sync --inexact")
    for path in pictures:
        try:
            far, near = (BlazeFace(model_path(name, folder)) for name in (FULL_RANGE, SHORT_RANGE))
            faces = find_in_picture(far, near, load_picture(path))
        except RealtimeError as error:
            yield Finding("known face", "broken", str(error), "liveaffect fetch")
            return
        if faces:
            box = " ".join(f"{side:.0f}" for side in faces[0].box)
            yield Finding("known face", "ok", f"found in {path.name}, box {box}")
        else:
            yield Finding("known face", "broken", f"the detector finds nobody in {path}", "liveaffect fetch")


def try_known_voice(settings: Settings) -> Iterator[Finding]:
    """A spoken sentence and silence through the voice engine; the sentence must sound more like speech."""
    from liveaffect.realtime.acting import make_speech

    with tempfile.TemporaryDirectory(prefix="liveaffect-doctor-") as folder:
        sentence = read_wav(make_speech(Path(folder)))
    try:
        engine = open_engine("voice", settings, [])
    except EngineError as error:
        yield Finding("known voice", "broken", str(error), "uv sync --inexact --reinstall-package liveaffect")
        return
    try:
        yield judge_voice(engine, sentence)
    finally:
        engine.close()


def judge_voice(engine: Engine, sentence: NDArray[np.float32]) -> Finding:
    """What the engine makes of a sentence against silence."""
    speaking, label = _listen(engine, sentence)
    silent, _ = _listen(engine, np.zeros_like(sentence))
    detail = f"speech {speaking:.2f} against {silent:.2f} for silence"
    if not engine.spec.trained:
        return Finding("known voice", "ok", f"{detail}; no trained network yet")
    if speaking <= silent:
        return Finding(
            "known voice", "broken", f"{detail}: it takes silence for speech", "liveaffect engines list"
        )
    return Finding("known voice", "ok", f"{detail}, sounds {label}")


def open_engine(kind: str, settings: Settings, lines: list[str]) -> Engine:
    """As a run would; `lines` gets what the loader says about its choice."""
    from liveaffect.engines.load import load

    folder = settings.folders(lines.append)[kind]
    return load(kind, choice=settings.engine, weights=folder, threads=settings.threads, report=lines.append)


def _listen(engine: Engine, samples: NDArray[np.float32]) -> tuple[float, str]:
    """Mean probability of speech over all pieces, and the label of their mean logits."""
    (piece,) = next(tensor.shape for tensor in engine.spec.inputs if tensor.name == "samples")
    (width,) = next(tensor.shape for tensor in engine.spec.inputs if tensor.name == "mean")
    mean, istd = SpeakerStatistics.cold(kept=Statistics.of_width(width)).normaliser()
    speech, logits = [], []
    for start in range(0, len(samples) - piece + 1, HOP):
        inputs = {"samples": samples[start : start + piece], "mean": mean, "istd": istd}
        answer = engine.infer({name: array[None] for name, array in inputs.items()})
        speech.append(float(answer["speech"][0, 0]))
        logits.append(answer["logits"][0])
    return float(np.mean(speech)), LABELS[int(np.mean(logits, axis=0).argmax())]
