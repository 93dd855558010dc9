"""The defects of the published code, put as claims: each test fails when its defect is put back.

Numbered as in docs/published-systems.md. Defects that other tests already guard are named there.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="networks are built with torch: pip install liveaffect[train]")

import torch
from torch import Tensor, nn

from liveaffect.engines import parity
from liveaffect.engines.model import presets
from liveaffect.engines.model.blocks import ClsTransformer, attention_pool, deploy
from liveaffect.engines.model.frontend import CropFront
from liveaffect.engines.model.heads import Network
from liveaffect.engines.model.voice_statistics import VoiceStudent
from liveaffect.engines.recipe import LABELS, SpeakerStatistics, Statistics
from liveaffect.engines.training import corpora_faces, evaluate_face, loop, train_face
from liveaffect.engines.training.corpora_faces import Faces, FaceSplit
from liveaffect.realtime.testing import engines

torch.set_num_threads(1)  # tensors are small; a second thread only waits

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "published-systems.md"
LIGHT = [
    (kind, name)
    for kind in ("face", "voice", "fusion")
    for name in presets.preset_names(kind)
    if (kind, name) != ("voice", "fv2es")
]


def inputs(network: Network, count: int = 2) -> tuple[Tensor, ...]:
    batch = parity.for_tensors(network.kind, count, network.inputs, seed=7)
    return tuple(torch.from_numpy(batch[spec.name]) for spec in network.inputs)


def test_01_folding_for_a_validation_leaves_the_network_trainable() -> None:
    network = presets.build("face", "live").train()
    (crop,) = inputs(network, 4)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    known = {id(p) for group in optimiser.param_groups for p in group["params"]}
    before = {name: value.clone() for name, value in network.named_parameters()}

    deploy(network)(crop)  # the validation

    assert network.training
    network(crop).logits.square().sum().backward()
    optimiser.step()
    after = dict(network.named_parameters())
    assert after.keys() == before.keys()
    assert {id(p) for p in after.values()} == known
    cnn = [name for name in after if name.startswith("cnn")]
    assert all(after[name].requires_grad for name in cnn)
    assert not [name for name in cnn if torch.equal(after[name], before[name])]


def test_02_a_checkpoint_gives_back_the_network_that_was_trained() -> None:
    """Strictly: the training form loads completely, the folded one is refused."""
    trained, fresh = presets.build("face", "live", seed=1), presets.build("face", "live", seed=2)
    trained.train()(*inputs(trained, 4))  # moves the BatchNorm statistics
    fresh.load_state_dict(trained.state_dict())
    given = inputs(trained)
    for got, want in zip(deploy(fresh)(*given), deploy(trained)(*given), strict=True):
        assert torch.equal(got, want)
    with pytest.raises(RuntimeError, match="Missing key"):
        fresh.load_state_dict(deploy(trained).state_dict())


def test_03_the_temporal_encoder_knows_an_order_from_its_reverse() -> None:
    torch.manual_seed(3)
    encoder = ClsTransformer().eval()
    vectors, ages_s = torch.randn(1, 6, 64), torch.arange(6, 0, -1)[None] * 0.4
    with torch.no_grad():
        forwards, backwards = encoder(vectors, ages_s), encoder(vectors.flip(1), ages_s)
    assert (forwards - backwards).norm() / forwards.norm() > 0.01


@pytest.mark.parametrize(("kind", "preset"), LIGHT)
def test_05_every_parameter_of_every_network_learns(kind: str, preset: str) -> None:
    network = presets.build(kind, preset).train()
    torch.manual_seed(5)
    answer = network(*inputs(network, 2))
    loss = sum((out * torch.randn_like(out)).sum() for out in answer if out.requires_grad)
    assert isinstance(loss, Tensor)
    torch.autograd.backward(loss)
    # The global way alone is an auxiliary of the fusion with trunks; its own test covers it.
    exempt: tuple[str, ...] = ("to_global", "to_local") if preset == "amfbp" and kind == "fusion" else ()
    # Whisper's layers are not ours to change.
    exempt = ("ears.",) if preset == "whisper" else exempt
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in idle if not name.startswith(exempt or "none of them")]


class Sealed:
    """A test side that nobody may look at yet."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"'{name}' of the test side was asked for before the network was finished")


class Finished(Exception):
    """Everything is made; only the verdict is missing."""


def test_06_nothing_is_set_by_what_is_tested_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither weights nor INT8 scales: the test side stays closed until the network is judged."""
    count, rng = 2 * len(LABELS), np.random.default_rng(0)
    names, label = tuple(map(str, range(count))), np.arange(count) % len(LABELS)
    pictures = rng.integers(0, 255, (count, 48, 48)).astype(np.uint8)
    soft = np.eye(len(LABELS), dtype=np.float32)[label]
    some = Faces("fer+", names, names, pictures, soft, label, (None,) * count)
    sealed: Any = Sealed()
    faces = FaceSplit(some, some, sealed, ("fer+",), "0" * 64)
    scales: list[object] = []

    def judge(found: object, folder: Path, sides: FaceSplit) -> object:
        assert sides.test is sealed
        raise Finished

    small = train_face.FaceRecipe(batch=8)
    for name, stand_in in {
        "FaceRecipe": lambda **_: small,
        "load_split": lambda found, frozen: faces,
        "export": lambda *asked, **given: engines.write_tiny(tmp_path, "face"),
        "quantize": lambda path, batches: scales.extend(batches),
    }.items():
        monkeypatch.setattr(train_face, name, stand_in)
    monkeypatch.setattr(corpora_faces, "find_faces", lambda data: [])
    monkeypatch.setattr(evaluate_face, "judge_face", judge)
    with pytest.raises(Finished):
        train_face.train_face(tmp_path, tmp_path, schedule=loop.Schedule(epochs=1, threads=1, bf16=False))
    assert len(scales) == len(LABELS)


class Plane:
    """Learn a plane; the figures in the log are whatever they are told to be."""

    name = "plane"
    steps = 2

    def __init__(self, *told: float) -> None:
        self._told = iter(told)

    def batches(self, epoch: int, rng: np.random.Generator) -> Iterator[Tensor]:
        for _ in range(self.steps):
            yield torch.from_numpy(rng.normal(size=(8, 3)).astype(np.float32))

    def loss(self, network: nn.Module, batch: Tensor) -> Tensor:
        return nn.functional.mse_loss(network(batch).float(), batch.sum(1, keepdim=True))

    def figures(self, network: nn.Module) -> Mapping[str, float]:
        return {"accuracy": next(self._told)}


def test_07_no_figure_decides_which_weights_are_kept(tmp_path: Path) -> None:
    """No pivot, no early stop: whatever the figures say, every epoch is trained and the end is the same."""
    ends = []
    for at, told in enumerate([(0.1, 0.5, 0.9), (0.9, 0.5, 0.1), (0.0, float("nan"), 0.0)]):
        torch.manual_seed(7)
        plan = loop.Schedule(epochs=3, threads=1)
        outcome = loop.train(nn.Linear(3, 1), Plane(*told), plan, tmp_path / str(at))
        assert len(outcome.history) == 3
        ends.append(outcome.state)
    for other in ends[1:]:
        assert all(torch.equal(value, ends[0][name]) for name, value in other.items())


def test_08_ten_times_the_loudness_is_not_another_picture() -> None:
    """Power without logarithm would change a hundredfold; its logarithm, in Whisper's measure, by a half."""
    front = presets.build("voice", "student").get_submodule("front")
    samples = torch.from_numpy(parity.inputs("voice", 4, seed=7, piece=25_600)["samples"])
    quiet, loud = (front(gain * samples) for gain in (0.1, 1.0))
    assert loud.abs().max() < 5
    assert (loud - quiet).max() <= 0.5 + 1e-4
    assert (loud - quiet).min() >= -1e-4


def test_09_positions_in_time_come_from_stamps_not_from_counting_frames() -> None:
    """Every second item left out: the others keep their place in time and their weight in pooling."""
    torch.manual_seed(1)
    encoder = ClsTransformer().eval()
    vectors, ages_s = torch.randn(1, 8, 64), torch.arange(8, 0, -1)[None] * 0.1
    there = torch.tensor([[True, False] * 4])
    with torch.no_grad():
        masked, thinned = encoder(vectors, ages_s, there), encoder(vectors[:, ::2], ages_s[:, ::2])
    torch.testing.assert_close(masked, thinned, rtol=1e-4, atol=1e-5)
    hidden = ages_s.masked_fill(~there, float("inf"))
    torch.testing.assert_close(
        attention_pool(vectors, torch.zeros(1, 8), hidden, 1.0),
        attention_pool(vectors[:, ::2], torch.zeros(1, 4), ages_s[:, ::2], 1.0),
    )


def test_11_swapped_colour_channels_are_another_picture() -> None:
    """So the order is part of the contract: red is first and counts 0.299."""
    red = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    red[..., 0] = 255
    grey = CropFront(64, (0.0,), (1.0,))
    assert grey(red).mean().item() == pytest.approx(0.299 * 255, rel=1e-4)
    colour = CropFront(64, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert colour(red).mean((0, 2, 3)).tolist() == pytest.approx([255.0, 0.0, 0.0])


def test_12_a_network_asks_for_nothing_that_a_microphone_or_camera_cannot_give() -> None:
    """No transcript, no utterance boundary, no label: sound in fixed pieces, judged from a cold start."""
    network = presets.build("voice", "student").eval()
    assert [spec.name for spec in network.inputs] == ["samples", "mean", "istd"]
    assert isinstance(network, VoiceStudent)
    cold = SpeakerStatistics.cold(kept=Statistics(network.width, "pieces"))
    mean, istd = (torch.from_numpy(one)[None] for one in cold.normaliser())
    sound = torch.cat([torch.zeros(1, 9_000), inputs(network, 1)[0], torch.zeros(1, 9_000)], dim=1)
    pieces = sound.unfold(1, network.sound.piece, network.sound.hop)[0]
    with torch.no_grad():
        answer = network(pieces, mean.expand(len(pieces), -1), istd.expand(len(pieces), -1))
    assert all(torch.isfinite(out).all() for out in answer)


@pytest.mark.parametrize(
    ("kind", "preset", "decides"), [("face", "live", "to_logits"), ("voice", "student", "head.decide")]
)
def test_13_evidence_is_pooled_before_it_is_judged(kind: str, preset: str, decides: str) -> None:
    """The verdict on a stretch is the verdict on its pooled evidence, not a mean of verdicts."""
    network = presets.build(kind, preset).eval()
    with torch.no_grad():
        answer = network(*inputs(network, 5))
        ages_s = torch.arange(5)[None] * 0.2
        both = (answer.vector, answer.logits)
        vector, logits = (attention_pool(x[None], answer.score.T, ages_s, 2.0) for x in both)
        torch.testing.assert_close(network.get_submodule(decides)(vector), logits)


@pytest.mark.parametrize("path", sorted((ROOT / "engines" / "model").glob("*.py")), ids=lambda p: p.stem)
def test_15_importing_builds_no_network(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network was built by importing")

    spec = importlib.util.spec_from_file_location(f"imported_again_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    monkeypatch.setattr(nn.Module, "__init__", refuse)
    spec.loader.exec_module(module)


def test_15_no_source_knows_anybodys_home() -> None:
    home = re.compile(r"""["'](/home/|/root/|/Users/|[A-Z]:\\)""")
    sources = [p for top in ("engines", "realtime", "calibration") for p in (ROOT / top).rglob("*.py")]
    assert len(sources) > 20
    assert not [str(p) for p in sources if home.search(p.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("kind", "preset"), [("face", "live"), ("voice", "student")])
def test_16_live_networks_pool_their_map_and_stay_small(kind: str, preset: str) -> None:
    network = presets.build(kind, preset)
    total = sum(p.numel() for p in network.parameters())
    head = sum(p.numel() for name, p in network.named_parameters() if name.startswith(("to_", "head.")))
    assert total < 2_500_000
    assert head < 0.05 * total
    assert not any(isinstance(part, nn.Flatten) for part in network.modules())


@pytest.mark.parametrize(("kind", "preset"), [("face", "live"), ("face", "fv2es"), ("voice", "student")])
def test_17_an_answer_does_not_depend_on_who_else_is_in_the_batch(kind: str, preset: str) -> None:
    """BatchNorm works with its running statistics, so one face among strangers is judged as if alone."""
    network = deploy(presets.build(kind, preset))
    first, second = inputs(network, 4), inputs(network, 1)
    mixed = tuple(torch.cat([alone, others[1:]]) for alone, others in zip(second, first, strict=True))
    with torch.no_grad():
        for alone, among in zip(network(*second), network(*mixed), strict=True):
            torch.testing.assert_close(among[:1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("preset", ["VOICE_FV2ES", "VOICE_AMFBP"])
def test_18_a_piece_of_sound_holds_no_padding(preset: str) -> None:
    sound = getattr(presets, preset).sound
    assert sound.window + (sound.frames - 1) * sound.step == sound.piece
    assert sound.hop <= sound.piece


def test_the_document_answers_for_all_eighteen_defects_and_names_only_tests_there_are() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = {int(row[1]): row[2] for row in re.finditer(r"^\| (\d+) \|(.*)\|$", text, re.MULTILINE)}
    assert sorted(rows) == list(range(1, 19))
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for number, row in rows.items():
        named = re.findall(r"`(test_\w+)`", row)
        assert named or "No test" in row, f"defect {number} is not answered for"
    named = re.findall(r"`(test_\w+)`", text)
    assert not [name for name in named if f"def {name}(" not in tests]
