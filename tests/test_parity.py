"""A comparison measures what it says it measures, and its verdict follows from the stated tolerance."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from liveaffect.engines import manifest as manifests
from liveaffect.engines import parity
from liveaffect.engines.build.quantize import quantize
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.overview import compare_named
from liveaffect.engines.parity import EXACT, QUANTISED, Tolerance, compare
from liveaffect.engines.protocol import Done, EngineInputError, EngineSpec, Pending, Tensors
from liveaffect.realtime.testing import engines

Change = Callable[[dict[str, np.ndarray]], object]


class Altered(OnnxEngine):
    """A right engine whose answers are then changed."""

    def __init__(self, folder: Path, change: Change, kind: str = "face") -> None:
        super().__init__(manifests.read(engines.write_tiny(folder, kind)), folder)
        self._change = change
        self.sizes: list[int] = []

    def submit(self, inputs: Tensors) -> Pending:
        outputs = dict(super().submit(inputs).result())
        self.sizes.append(len(outputs["logits"]))
        self._change(outputs)
        return Done(outputs)


def nothing(outputs: dict[str, np.ndarray]) -> None:
    pass


def report(tmp_path: Path, change: Change, tolerance: Tolerance = EXACT) -> parity.Report:
    return compare(
        Altered(tmp_path, nothing), Altered(tmp_path, change), parity.inputs("face", 64), tolerance=tolerance
    )


def shift(outputs: dict[str, np.ndarray]) -> None:
    outputs["score"] += 0.5


def negate(outputs: dict[str, np.ndarray]) -> None:
    outputs["vector"] *= -1


def swap_labels(outputs: dict[str, np.ndarray]) -> None:
    outputs["logits"] = outputs["logits"][:, ::-1].copy()


def spoil(outputs: dict[str, np.ndarray]) -> None:
    outputs["logits"][0, 0] = np.nan


def test_two_engines_on_one_file_are_alike_over_64_inputs(tmp_path: Path) -> None:
    found = report(tmp_path, nothing)
    assert found.alike
    assert (found.items, found.flips) == (64, 0)
    assert found.lines()[-1] == "alike"
    assert {d.output for d in found.differences} == {"vector", "score", "logits"}


def test_a_difference_is_measured_against_how_far_the_answers_move(tmp_path: Path) -> None:
    truth = Altered(tmp_path, nothing).infer(parity.inputs("face", 64))["score"]
    spread = float(np.ptp(truth))
    (score,) = [d for d in report(tmp_path, shift).differences if d.output == "score"]
    assert score.spread == pytest.approx(spread, rel=1e-4)
    assert score.largest == pytest.approx(0.5 / spread, rel=1e-3)
    assert score.mean == pytest.approx(0.5 / spread, rel=1e-3)


def test_an_answer_that_hardly_moves_is_measured_against_a_hundredth_of_its_size(tmp_path: Path) -> None:
    def still(outputs: dict[str, np.ndarray]) -> None:
        outputs["score"][:] = 5

    found = compare(
        Altered(tmp_path, still), Altered(tmp_path, still), parity.inputs("face", 4), tolerance=EXACT
    )
    assert next(d for d in found.differences if d.output == "score").spread == pytest.approx(0.05)
    assert found.alike


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (shift, "score differs by"),
        (negate, "vector has a cosine of -1.00000, wanted 0.9999"),
        (swap_labels, "of 64 labels flip, allowed 0.0%"),
        (spoil, "logits differs by nan"),
    ],
)
def test_what_is_beyond_the_tolerance_is_named(tmp_path: Path, change: Change, words: str) -> None:
    found = report(tmp_path, change)
    assert not found.alike
    assert any(words in complaint for complaint in found.complaints)
    assert found.lines()[-1] == "NOT alike"
    assert any(words in line for line in found.lines())


def test_what_a_tolerance_leaves_open_is_reported_but_not_judged(tmp_path: Path) -> None:
    found = report(tmp_path, shift, QUANTISED)
    assert found.alike
    assert max(d.largest for d in found.differences) > 1
    flips = report(tmp_path, swap_labels, replace(QUANTISED, cosine=None, follows=None))
    assert flips.alike
    assert flips.flips > 0


def test_flips_are_items_whose_largest_logit_is_another(tmp_path: Path) -> None:
    truth = Altered(tmp_path, nothing).infer(parity.inputs("face", 64))["logits"].argmax(1)
    assert report(tmp_path, swap_labels).flips == int((truth != 6 - truth).sum())


def test_the_second_engine_sees_batches_of_1_3_and_16(tmp_path: Path) -> None:
    a, b = Altered(tmp_path, nothing), Altered(tmp_path, nothing)
    compare(a, b, parity.inputs("face", 64), tolerance=EXACT)
    assert set(a.sizes) == {1}
    assert set(b.sizes) >= {1, 3, 16}
    assert sum(a.sizes) == sum(b.sizes) == 64


def test_an_engine_that_is_wrong_only_in_company_is_caught(tmp_path: Path) -> None:
    def neighbours(outputs: dict[str, np.ndarray]) -> None:
        outputs["vector"][:] = outputs["vector"].mean(0)

    assert not report(tmp_path, neighbours).alike


def test_an_engine_that_says_the_same_to_everything_is_not_alike(tmp_path: Path) -> None:
    """Most of an answer is what all answers share; a plain cosine would be blind to the rest."""

    def much_alike(outputs: dict[str, np.ndarray]) -> None:
        outputs["vector"] += 10

    truth = Altered(tmp_path, much_alike)
    usual = truth.infer(parity.inputs("face", 64))["vector"].mean(0)

    def same(outputs: dict[str, np.ndarray]) -> None:
        outputs["vector"][:] = usual

    found = compare(truth, Altered(tmp_path, same), parity.inputs("face", 64), tolerance=QUANTISED)
    (vector,) = [d for d in found.differences if d.output == "vector"]
    assert vector.cosine > 0.99
    assert any("vector follows what is asked with a cosine of 0.0" in one for one in found.complaints)


def test_engines_of_different_kinds_are_not_compared(tmp_path: Path) -> None:
    face, voice = Altered(tmp_path, nothing), Altered(tmp_path, nothing, "voice")
    with pytest.raises(
        EngineInputError, match="'face-tiny/onnx' and 'voice-tiny/onnx' are not of the same kind"
    ):
        compare(face, voice, parity.inputs("face", 2), tolerance=EXACT)


def test_engines_are_compared_by_name_and_closed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[EngineSpec] = []
    real = OnnxEngine.close

    def close(engine: OnnxEngine) -> None:
        closed.append(engine.spec)
        real(engine)

    monkeypatch.setattr(OnnxEngine, "close", close)
    quantize(engines.write_tiny(tmp_path / "a", "face"), [parity.inputs("face", 16)])
    engines.write_tiny(tmp_path / "b", "face", seed=1)
    int8 = compare_named("face", "onnx", "onnx-int8", weights=tmp_path / "a")
    assert int8.tolerance == QUANTISED
    assert (int8.items, int8.alike) == (64, True)
    other = compare_named("face", f"{tmp_path / 'a'}:onnx", f"{tmp_path / 'b'}:onnx", items=4)
    assert other.tolerance == EXACT
    assert not other.alike
    assert len(closed) == 4


def test_a_report_as_json_holds_figures_and_verdict(tmp_path: Path) -> None:
    entry = json.loads(json.dumps(report(tmp_path, negate).to_json()))
    assert entry["alike"] is False
    assert entry["complaints"]
    assert [one["output"] for one in entry["differences"]] == ["vector", "score", "logits"]
    assert entry["tolerance"]["largest"] == 1e-4


@pytest.mark.parametrize("kind", manifests.KINDS)
def test_the_same_seed_gives_the_same_inputs_and_they_differ_among_themselves(kind: str) -> None:
    first, again, other = (parity.inputs(kind, 4, seed=seed) for seed in (1, 1, 2))
    specs = manifests.tensors(kind)[0]
    assert {t.name: ((4, *t.shape), t.dtype) for t in specs} == {
        name: (array.shape, array.dtype.name) for name, array in first.items()
    }
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
    leading = specs[0].name
    assert not np.array_equal(first[leading], other[leading])
    assert not np.array_equal(first[leading][0], first[leading][1])


def test_made_evidence_is_zero_where_the_mask_leaves_it_out_and_never_empty() -> None:
    batch = parity.inputs("fusion", 200)
    assert (batch["mask"].sum(1) >= 1).all()
    assert not batch["voice_long"][batch["mask"][:, 1] == 0].any()
    assert batch["face_logits"][batch["mask"][:, 0] == 1].any()


def test_splitting_keeps_every_item_in_order() -> None:
    batch = parity.inputs("fusion", 25)
    parts = parity.split(batch, (1, 3, 16))
    assert [len(part["mask"]) for part in parts] == [1, 3, 16, 1, 3, 1]
    np.testing.assert_array_equal(np.concatenate([part["mask"] for part in parts]), batch["mask"])
