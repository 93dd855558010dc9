"""From a folder of voices to files that run: trained, resumed, quantised, judged as live, refused."""

from __future__ import annotations

import hashlib
import wave
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="networks are trained with torch: pip install liveaffect[train]")

import torch

from liveaffect.engines import manifest, parity, whisper
from liveaffect.engines.model import presets
from liveaffect.engines.model.voice_statistics import VoiceWhisper, foreign_names
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import EngineError, EngineFileError
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE, Statistics
from liveaffect.engines.training import evaluate_voice, splits, train_voice, voice_answers
from liveaffect.engines.training.listen import Heard, listen
from liveaffect.engines.training.splits import CALIBRATE_SHARE, TEST_SHARE, few, found_in, sided
from liveaffect.engines.training.train_voice import VoiceOptions
from liveaffect.realtime.frame import AudioBlock
from liveaffect.realtime.ring import AudioRing
from liveaffect.realtime.voice_analyzer import VoiceAnalyzer
from liveaffect.realtime.window import PieceGrid
from tests.test_whisper import converted

torch.set_num_threads(1)
LENGTH_S = 0.9


def speakers() -> dict[str, str]:
    """A name for every side of the split."""
    found: dict[str, str] = {}
    for name in map("speaker{}".format, range(100)):
        side = splits.side_of(f"plain/{name}", calibrate=CALIBRATE_SHARE, test=TEST_SHARE)
        found.setdefault(side, name)
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every label twice by three speakers who do not exist."""
    root = tmp_path_factory.mktemp("data")
    for number, (side, speaker) in enumerate(sorted(speakers().items())):
        count = 2 if side == "train" else 1
        for at, label in enumerate(LABELS * count):
            sound = parity.inputs("voice", 1, seed=100 * number + at, piece=round(LENGTH_S * SAMPLE_RATE))
            path = root / "plain" / label / f"{speaker}_{at}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            with wave.open(str(path), "wb") as out:
                out.setnchannels(1)
                out.setsampwidth(2)
                out.setframerate(SAMPLE_RATE)
                out.writeframes((sound["samples"][0] * 32_000).astype("<i2").tobytes())
    return root


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def a_whisper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a Whisper of chance numbers, which is taken for the real one."""
    network = presets.build("voice", "whisper", seed=1)
    assert isinstance(network, VoiceWhisper)
    names = foreign_names(network.ears.state_dict())
    content = converted(
        {names[ours]: value.numpy().astype(np.float16) for ours, value in network.ears.state_dict().items()}
    )
    (tmp_path / "whisper").mkdir()
    (tmp_path / "whisper" / whisper.FILE).write_bytes(content)
    known = replace(whisper.TINY_EN, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(whisper.KNOWN, known.name, known)
    return tmp_path / "whisper"


def quiet(line: str) -> None:
    """Reports are for people."""


@pytest.mark.slow
def test_a_smoke_run_that_was_stopped_goes_on_to_files_that_run_and_can_be_judged(
    data: Path, tmp_path: Path, a_whisper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_voice, "NOISES_EACH", 1)
    out, lines = tmp_path / "out", list[str]()
    asked = VoiceOptions(whisper=a_whisper, smoke=True)
    assert train_voice.train_voice(data, out, replace(asked, limit_s=-1.0), report=quiet) is None
    path = train_voice.train_voice(data, out, asked, report=lines.append)
    assert path is not None
    assert path == out / "voice.json"
    found = manifest.read(path)
    assert set(found.files) == {"voice.onnx", "voice.int8.onnx"}
    assert found.training["corpora"] == ["plain"]
    assert found.training["speakers"] == [f"plain/{speakers()['train']}"]
    assert found.quantisation["items"] == len(LABELS) * 5  # two whole hops, and three until the last is over
    inputs = parity.for_tensors("voice", 3, found.inputs)
    full, small = (OnnxEngine(found, out, precision).infer(inputs) for precision in manifest.PRECISIONS)
    assert np.abs(full["logits"] - small["logits"]).max() < 1.0
    assert manifest.read(out / "fusion.json").kind == "fusion"

    verdicts = evaluate_voice.evaluate_voice(data, weights=out, out=tmp_path / "told", report=quiet)
    assert [(one.name, len(one.answers)) for one in verdicts] == [
        ("small-fp32", 2 * len(LABELS)),
        ("small-int8", 2 * len(LABELS)),
    ]
    assert {one.speaker for one in verdicts[0].answers} == {f"plain/{speakers()['test']}"}
    table = (tmp_path / "told" / "voice-small-int8.csv").read_text("utf-8")
    again = voice_answers.read_answers(table)
    assert [one.called for one in again] == [one.called for one in verdicts[1].answers]
    manifest.record_figures(path, verdicts[1].figures())
    kept = manifest.read(path).figures["plain test side, int8"]
    cold = verdicts[1].of("plain")
    assert kept["unweighted_recall"] == pytest.approx(voice_answers.recalls(cold)[0], abs=1e-4)
    assert kept["items"] == len(LABELS)


def test_a_published_preset_is_not_trained_here_and_that_is_said(data: Path, tmp_path: Path) -> None:
    asked = VoiceOptions(whisper=tmp_path, preset="fv2es")
    with pytest.raises(EngineError, match="'fv2es' is not trained here; student and whisper are"):
        train_voice.train_voice(data, tmp_path, asked, report=quiet)


class AllIsSpeech:
    """The shipped voice, but everything is speech; keeps what it was given."""

    def __init__(self) -> None:
        self.found = manifest.read(manifest.SHIPPED / "voice.json")
        self._engine = OnnxEngine(self.found, manifest.SHIPPED)
        self.given: list[dict[str, NDArray[Any]]] = []

    def __call__(self, given: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        self.given.append({name: array.copy() for name, array in given.items()})
        answer = self._engine.infer(dict(given))
        return {**answer, "speech": np.full_like(answer["speech"], 0.9)}


def test_what_is_judged_and_calibrated_on_is_what_the_live_path_gives_the_network() -> None:
    ask = AllIsSpeech()
    recipe = ask.found.recipe
    sound = parity.inputs("voice", 1, seed=1, piece=2 * SAMPLE_RATE)["samples"][0]
    # A recording is followed by silence until its last sound is over.
    stream = np.pad(sound, (0, recipe.lead))
    ring = AudioRing(len(stream))
    grid = PieceGrid(recipe.piece, recipe.hop, recipe.lead, recipe.statistics)
    live = VoiceAnalyzer("microphone:0", ring, grid)
    for start in range(0, len(stream) - 319, 320):
        ring.push(AudioBlock("microphone:0", start, start * 62_500, stream[start : start + 320].copy()))
        for piece in live.due(hop_doubled=False):
            answer = ask({name: array[None] for name, array in live.inputs(piece).items()})
            live.take(piece, {name: array[0] for name, array in answer.items()})
    from_live, ask.given = ask.given, []
    (heard,) = listen(ask, recipe, [sound])
    assert len(from_live) == len(ask.given) == len(heard.speech) == 8
    for one, other in zip(from_live, ask.given, strict=True):
        for name in one:
            np.testing.assert_allclose(one[name], other[name], atol=1e-5)
    assert np.abs(np.diff(heard.mean, axis=0)).max() > 0.01, "the statistics never moved"


def test_a_speaker_who_was_heard_before_begins_with_what_is_known_of_them_and_others_do_not() -> None:
    ask = AllIsSpeech()
    sounds = [parity.inputs("voice", 1, seed=s, piece=SAMPLE_RATE)["samples"][0] for s in (1, 2, 3)]
    heard = listen(ask, ask.found.recipe, sounds, ["a", "b", "a"])
    begins_cold = [not one.mean[0].any() for one in heard]
    assert begins_cold[1]
    assert sorted([begins_cold[0], begins_cold[2]]) == [False, True]


def heard_as(speech: list[float]) -> Heard:
    """Four pieces that each say another label, by the share of speech in what was new in each."""
    shares = np.array(speech, np.float32)
    weight = Statistics(1, "pieces").weights(shares, 4 * 6_400, 6_400)
    return Heard(np.eye(7, dtype=np.float32)[: len(speech)], np.zeros_like(shares), shares, weight, 0.4)


def test_only_what_ended_within_so_much_speech_counts_and_silence_is_no_answer() -> None:
    heard = heard_as([0.1, 1, 1, 1])
    assert heard.pooled(0.3) is None
    early, whole = heard.pooled(1.0), heard.pooled()
    assert early is not None
    assert whole is not None
    # The first piece with speech in it holds 0.44 s, those behind it enough to count fully.
    first = 0.55
    np.testing.assert_allclose(early[:4], np.array([0, first, 1, 0]) / (1 + first), atol=1e-6)
    np.testing.assert_allclose(whole[:4], np.array([0, first, 1, 1]) / (2 + first), atol=1e-6)
    assert heard_as([0.2, 0.2, 0, 0]).pooled() is None


def test_the_end_of_a_sentence_is_heard_in_as_many_pieces_as_its_beginning() -> None:
    weight = heard_as([0, 0.6, 1, 0.2, 0, 0, 0]).weight
    np.testing.assert_allclose(weight, [0, 0.3, 0.8, 0.9, 0.9, 0.6, 0.1], atol=1e-6)
    frames = Statistics().weights(np.array([0.0, 1.0, 0.0], np.float32), 38_600, 6_400)
    assert frames.tolist() == [0, 1, 0], "frames count as often as they are speech"


def test_untrained_weights_and_weights_of_other_sides_are_not_judged() -> None:
    untrained = manifest.describe("voice", "student")
    with pytest.raises(EngineFileError, match="was never trained"):
        splits.refuse_other_sides(untrained, ("nemo",), "a" * 64)
    trained = manifest.extended(untrained, training={"corpora": ["nemo"], "splits": "b" * 64})
    with pytest.raises(EngineFileError, match="may know what it is tested on"):
        splits.refuse_other_sides(trained, ("nemo",), "a" * 64)
    splits.refuse_other_sides(trained, ("nemo",), "b" * 64)
    splits.refuse_other_sides(trained, ("emodb",), "a" * 64)  # another corpus: all of it is new


def test_no_speaker_lies_on_two_sides_and_a_corpus_that_changed_is_refused(
    data: Path, tmp_path: Path
) -> None:
    takes = found_in(data)
    sides, digest = sided(takes, tmp_path / "splits.json")
    assert {sides[f"plain/{name}"]: name for name in speakers().values()} == speakers()
    assert sided(takes, tmp_path / "splits.json") == (sides, digest)
    with pytest.raises(EngineFileError, match="not those frozen"):
        sided({"plain": takes["plain"][1:]}, tmp_path / "splits.json")


def test_a_few_takes_come_from_every_side(data: Path, tmp_path: Path) -> None:
    takes = found_in(data)["plain"]
    sides, _ = sided({"plain": takes}, tmp_path / "splits.json")
    assert {sides[take.speaker] for take in few(takes, sides)} == set(splits.SIDES)


@pytest.mark.slow
def test_the_real_corpora_are_read_whole_and_split_without_a_leak(shared_data: Path, tmp_path: Path) -> None:
    takes = found_in(shared_data)
    assert {corpus: len(these) for corpus, these in takes.items()} == {
        "ravdess": 1200,
        "nemo": 4481,
        "emodb": 350,
    }
    sides, _ = sided(takes, tmp_path / "splits.json")
    for corpus, these in takes.items():
        assert {sides[take.speaker] for take in these} == set(splits.SIDES), corpus
        lacks = {"nemo": {"disgusted"}, "emodb": {"surprised"}}.get(corpus, set())
        assert {take.label for take in these} == set(LABELS) - lacks
