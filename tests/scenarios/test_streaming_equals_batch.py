"""What the live path has pooled at the end of a clip is what the whole clip gives at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from liveaffect.engines.load import load
from liveaffect.engines.manifest import RecipeNumbers, read
from liveaffect.engines.protocol import Done, Engine, Pending, Tensors
from liveaffect.engines.recipe import SAMPLE_RATE, SpeakerStatistics
from liveaffect.engines.scripted_engine import ScriptedFace, ScriptedFusion, ScriptedVoice
from liveaffect.realtime import expression
from liveaffect.realtime.blazeface import make_finder
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.crop import quality
from liveaffect.realtime.errors import EndOfStream, MissingFile
from liveaffect.realtime.expression import (
    LONG_HALF_LIFE_NS,
    Evidence,
    Expression,
    Memory,
    Rest,
    pool,
    weighted_score,
)
from liveaffect.realtime.face_analyzer import FaceAnalyzer
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.lockstep import analyse, watched
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.replay import MediaFile
from liveaffect.realtime.scheduler import Scheduler, Snapshot
from liveaffect.realtime.sinks import Outputs
from liveaffect.realtime.testing.engines import AroundEngine
from liveaffect.realtime.voice_analyzer import SPEECH
from liveaffect.realtime.window import PieceGrid
from liveaffect.realtime.wiring import Finders, Tools

pytestmark = pytest.mark.slow


class Recording(AroundEngine):
    """The fusion engine, and everything that was ever laid before it."""

    def __init__(self) -> None:
        super().__init__(ScriptedFusion())
        self.inputs: list[dict[str, np.ndarray]] = []

    def submit(self, inputs: Tensors) -> Pending:
        self.inputs.append({name: array.copy() for name, array in inputs.items()})
        return super().submit(inputs)


class AllIsSpeech(AroundEngine):
    """A voice engine with random weights would call everything silence or speech at random."""

    def submit(self, inputs: Tensors) -> Pending:
        out = dict(super().submit(inputs).result())
        out["speech"] = np.full_like(out["speech"], 0.9)
        return Done(out)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch", reason="needs torch to make networks with random weights")
    from liveaffect.engines.build.export_onnx import export
    from liveaffect.engines.model import presets

    folder = tmp_path_factory.mktemp("weights")
    for kind, preset, asks in (("face", "live", "to_score.weigh"), ("voice", "student", "head.weigh")):
        state = presets.build(kind, preset, seed=3).state_dict()
        # Untrained networks ask for nearly the same weight everywhere, and any pooling would do.
        state[f"{asks}.weight"] *= 50
        export(kind, preset, folder, state=state)
    return folder


def items(path: Path) -> list[VideoFrame | AudioBlock]:
    media = MediaFile(path)
    media.open()
    out: list[VideoFrame | AudioBlock] = []
    try:
        while True:
            item = media.read(1.0)
            if item is not None:
                out.append(item)
    except EndOfStream:
        media.close()
        return out


def stream(path: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the file through the scheduler; the time of the last step in which anything was fused."""
    steps: list[int] = []
    step = Scheduler.step

    def noting(scheduler: Scheduler, now_ns: int) -> Snapshot:
        snapshot = step(scheduler, now_ns)
        if snapshot.cues:
            steps.append(now_ns)
        return snapshot

    monkeypatch.setattr(Scheduler, "step", noting)
    media = MediaFile(path)
    media.open()
    try:
        analyse(watched(media), tools, Outputs([]), lambda cues: None)
    finally:
        media.close()
    return steps[-1]


def no_finder() -> Finders:
    raise AssertionError("a file without pictures needs no face finder")


def test_faces_of_a_real_clip(shared_data: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = shared_data / "clips" / "pyfeat_single_face.mp4"
    try:
        make_finder()
    except MissingFile as error:
        pytest.skip(f"needs the face detector's files: {error}")
    engine = load("face", choice="onnx", weights=weights)
    fusion = Recording()
    tools = Tools(Networks(engine, ScriptedVoice(), fusion), make_finder)
    end_ns = stream(clip, tools, monkeypatch)

    sight = FaceAnalyzer("whole clip", *make_finder())
    sightings = [sight.step(frame) for frame in items(clip) if isinstance(frame, VideoFrame)]
    looks = [(s.captured_ns, face) for s in sightings for face in s.faces]
    assert {face.track for _, face in looks} == {1}
    crops = np.stack([face.crop for _, face in looks])
    parts = [engine.infer({"crop": crops[i : i + 16]}) for i in range(0, len(crops), 16)]
    answers = {name: np.concatenate([part[name] for part in parts]) for name in ("vector", "logits", "score")}
    evidence = [
        Evidence(
            at_ns,
            answers["vector"][i],
            answers["logits"][i],
            weighted_score(float(answers["score"][i, 0]), good := quality(face.crop, face.points).score),
            good,
        )
        for i, (at_ns, face) in enumerate(looks)
    ]
    engine.close()
    last = fusion.inputs[-1]
    memory = Memory(expression.FACE, rest=Rest(expression.FACE.temperature))
    before_ns = None
    for item in evidence:
        covers_ns = 0 if before_ns is None else min(item.captured_ns - before_ns, 100 * MS)
        memory.add(item, covers_ns)
        before_ns = item.captured_ns
    short, long = memory.read() or (None, None)
    assert short is not None
    assert long is not None
    np.testing.assert_allclose(last["face_short"][0], short.vector, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(last["face_logits"][0], short.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(last["face_long"][0], long.vector, rtol=1e-4, atol=1e-5)
    assert memory.newest_ns is not None
    assert end_ns >= memory.newest_ns


@pytest.mark.parametrize("network", ["scripted", "student"])
def test_a_voice_with_the_statistics_of_its_own_past(
    shared_data: Path, network: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = shared_data / "clips" / "jfk.wav"
    engine: Engine = ScriptedVoice()
    recipe = RecipeNumbers()
    if network == "student":
        folder = request.getfixturevalue("weights")
        engine = AllIsSpeech(load("voice", choice="onnx", weights=folder))
        recipe = read(folder / "voice.json").recipe
    grid = PieceGrid(recipe.piece, recipe.hop, recipe.lead, recipe.statistics)
    fusion = Recording()
    tools = Tools(Networks(ScriptedFace(), engine, fusion), no_finder, grid)
    end_ns = stream(clip, tools, monkeypatch)

    blocks = [block for block in items(clip) if isinstance(block, AudioBlock)]
    sound = np.concatenate([block.samples for block in blocks])
    statistics, evidence = SpeakerStatistics.cold(kept=recipe.statistics), []
    # Silence is put before the first sound, as much as a piece reaches back.
    whole, shares = np.pad(sound, (recipe.lead, 0)), list[float]()
    for start in range(0, len(whole) - recipe.piece + 1, recipe.hop):
        mean, istd = statistics.normaliser()
        samples = whole[None, start : start + recipe.piece]
        answered = engine.infer({"samples": samples, "mean": mean[None], "istd": istd[None]})
        answer = {name: array[0] for name, array in answered.items()}
        shares.append(float(answer["speech"][0]))
        weight = float(recipe.statistics.weights(np.array(shares), recipe.piece, recipe.hop)[-1])
        new = recipe.statistics.new(recipe.hop)
        statistics.add(answer["stat_sum"], answer["stat_sumsq"], speech=weight, new=new)
        if max(weight, shares[-1]) >= SPEECH:
            score = weighted_score(float(answer["score"][0]), weight)
            first_ns = (start - recipe.lead) * SECOND // SAMPLE_RATE
            at_ns = first_ns + recipe.piece * SECOND // SAMPLE_RATE
            evidence.append(Evidence(at_ns, answer["vector"], answer["logits"], score))
    assert len(evidence) > 20
    last = fusion.inputs[-1]
    voice = Expression(expression.VOICE)
    for item in evidence:
        voice.add(item)
    short, long = voice.read(), pool(evidence, LONG_HALF_LIFE_NS)
    assert short is not None
    np.testing.assert_allclose(last["voice_long"][0], long.vector, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(last["voice_short"][0], short.vector, rtol=1e-3, atol=1e-4)
    assert end_ns >= evidence[-1].captured_ns
