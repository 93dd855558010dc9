"""Every fusion lives with whatever is missing, and the weights it reports are weights that act."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="networks are built with torch: pip install liveaffect[train]")

import torch
from torch import Tensor

from liveaffect.engines.model import presets
from liveaffect.engines.model.fusion import (
    BilinearFusion,
    FactorisedBilinear,
    FusionAnswer,
    FusionEvidence,
    FusionPreset,
    LateFusion,
    LateMaskedFusion,
    certainty,
    extended_vector,
)
from liveaffect.engines.protocol import FUSION_INPUTS, FUSION_OUTPUTS

torch.set_num_threads(1)  # tensors are small; a second thread only waits

ALL = presets.preset_names("fusion")
MASKS = [[float(face), float(voice), float(words)] for face in (0, 1) for voice in (0, 1) for words in (0, 1)]
OWN = {0: ("face_short", "face_long", "face_logits"), 1: ("voice_short", "voice_long", "voice_logits")}


def evidence(mask: list[float], seed: int = 0, rows: int = 4) -> FusionEvidence:
    torch.manual_seed(seed)
    tensors = {spec.name: 2 * torch.randn(rows, *spec.shape) for spec in FUSION_INPUTS}
    return FusionEvidence(**{**tensors, "mask": torch.tensor([mask]).expand(rows, -1)})


def fuse(preset: str, e: FusionEvidence) -> FusionAnswer:
    with torch.no_grad():
        answer: FusionAnswer = presets.build("fusion", preset, seed=1).eval()(*e)
    return answer


def test_fields_stand_in_the_order_of_the_contract() -> None:
    assert FusionEvidence._fields == tuple(spec.name for spec in FUSION_INPUTS)
    assert FusionAnswer._fields == tuple(spec.name for spec in FUSION_OUTPUTS)


@pytest.mark.parametrize("preset", ALL)
@pytest.mark.parametrize("mask", MASKS)
def test_weights_are_shares_and_zero_where_nothing_is(preset: str, mask: list[float]) -> None:
    answer = fuse(preset, evidence(mask))
    assert torch.isfinite(answer.logits).all()
    there = torch.tensor(mask) > 0
    assert (answer.weights[:, ~there] == 0).all()
    assert (answer.weights[:, there] > 0).all()
    torch.testing.assert_close(answer.weights.sum(1), torch.full((4,), float(there.any())))


@pytest.mark.parametrize("preset", ALL)
@pytest.mark.parametrize("mask", MASKS)
def test_what_a_masked_input_holds_never_matters(preset: str, mask: list[float]) -> None:
    """Not even if it is not a number."""
    e = evidence(mask)
    missing = [name for i, names in OWN.items() if not mask[i] for name in names]
    missing += [] if mask[2] else ["words_logits"]
    spoilt = e._replace(**{name: torch.full_like(getattr(e, name), float("nan")) for name in missing})
    for got, want in zip(fuse(preset, spoilt), fuse(preset, e), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("preset", ALL)
def test_without_any_evidence_all_classes_are_alike(preset: str) -> None:
    probabilities = fuse(preset, evidence([0.0, 0.0, 0.0])).logits.softmax(1)
    torch.testing.assert_close(probabilities, torch.full((4, 7), 1 / 7))


@pytest.mark.parametrize("preset", ALL)
@pytest.mark.parametrize("alone", [0, 1, 2])
def test_each_modality_can_speak_alone(preset: str, alone: int) -> None:
    mask = [float(i == alone) for i in range(3)]
    logits = fuse(preset, evidence(mask)).logits
    assert (logits.std(0) > 1e-3).all(), "the same answer for different people"


def test_late_fusion_is_the_published_sum_of_scaled_logits() -> None:
    fusion = LateFusion(presets.LATE)
    e = evidence([1.0, 1.0, 1.0])
    with torch.no_grad():
        fusion.scalars.weight.copy_(torch.tensor([[0.5, -0.25, 2.0]]))
        got = fusion(*e)
    torch.testing.assert_close(
        got.logits, 0.5 * e.face_logits - 0.25 * e.voice_logits + 2.0 * e.words_logits, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(got.weights, torch.tensor([[0.5, 0.25, 2.0]]).expand(4, -1) / 2.75)


def test_masked_late_fusion_is_surer_when_two_agree() -> None:
    both, face = evidence([1.0, 1.0, 0.0]), evidence([1.0, 0.0, 0.0])
    both = both._replace(voice_logits=both.face_logits)
    together, alone = (fuse("late-masked", e).logits.softmax(1) for e in (both, face))
    assert torch.equal(together.argmax(1), alone.argmax(1))
    assert (together.amax(1) > alone.amax(1)).all()


def in_company() -> LateMaskedFusion:
    """A late-masked fusion whose every number does something."""
    fusion = LateMaskedFusion(presets.LATE_MASKED).eval()
    with torch.no_grad():
        fusion.temperature.copy_(torch.tensor([0.5, 2.0, 1.5]))
        fusion.company.copy_(torch.linspace(-0.6, 0.6, 9).reshape(3, 3))
        fusion.company_if_certain.copy_(torch.linspace(0.9, -0.9, 9).reshape(3, 3))
    return fusion


@pytest.mark.parametrize("alone", [0, 1, 2])
def test_masked_late_fusion_passes_a_lone_modality_as_it_is_at_its_temperature(alone: int) -> None:
    fusion, e = in_company(), evidence([float(i == alone) for i in range(3)])
    own = (e.face_logits, e.voice_logits, e.words_logits)[alone] / fusion.temperature[alone]
    with torch.no_grad():
        answer = fusion(*e)
    torch.testing.assert_close(answer.logits, own.log_softmax(1))
    assert (answer.weights[:, alone] == 1).all()


def test_masked_late_fusion_is_a_product_of_opinions_each_to_the_power_of_its_gain() -> None:
    fusion, e = in_company(), evidence([1.0, 1.0, 0.0])
    face = (e.face_logits / 0.5).softmax(1)
    voice = (e.voice_logits / 2.0).softmax(1)
    c = fusion.company
    k = fusion.company_if_certain
    with torch.no_grad():
        gain_face = torch.exp(c[0, 1] + k[0, 1] * certainty(face.log()))[:, None]
        gain_voice = torch.exp(c[1, 0] + k[1, 0] * certainty(voice.log()))[:, None]
        product = face**gain_face * voice**gain_voice
        got = fusion(*e).logits.softmax(1)
    torch.testing.assert_close(got, product / product.sum(1, keepdim=True), rtol=1e-4, atol=1e-5)


def test_a_share_in_the_mask_lowers_a_gain_from_full_to_none_without_a_step() -> None:
    fusion, e = in_company(), evidence([1.0, 1.0, 0.0])
    with torch.no_grad():
        shares = torch.linspace(1, 0, 6)
        masks = [torch.tensor([[1.0, float(share), 0.0]]).expand(4, -1) for share in shares]
        answers = [fusion(*e._replace(mask=mask)) for mask in masks]
        alone = fusion(*e._replace(mask=torch.tensor([[1.0, 0.0, 0.0]]).expand(4, -1)))
    said = torch.stack([answer.weights[:, 1] for answer in answers])
    assert (said.diff(dim=0) < 0).all()
    torch.testing.assert_close(answers[-1].logits, alone.logits)
    near = fusion(*e._replace(mask=torch.tensor([[1.0, 1e-4, 0.0]]).expand(4, -1)))
    torch.testing.assert_close(near.logits, alone.logits, atol=5e-3, rtol=0)


def test_who_knows_nothing_changes_nothing_and_hardly_counts() -> None:
    fusion = LateMaskedFusion(presets.LATE_MASKED).eval()
    e = evidence([1.0, 1.0, 0.0])._replace(voice_logits=torch.full((4, 7), 3.0))
    with torch.no_grad():
        answer = fusion(*e)
    torch.testing.assert_close(answer.logits.softmax(1), e.face_logits.softmax(1))
    assert (answer.weights[:, 1] < 0.1).all()


def test_bilinear_pooling_is_its_formula() -> None:
    """z_i = sum over k of (u_ik . a)(v_ik . b), divided by its length."""
    pool = FactorisedBilinear(5, 6, FusionPreset("t", outputs=3, rank=2)).eval()
    a, b = torch.randn(2, 5), torch.randn(2, 6)
    u, v = pool.left.weight.reshape(3, 2, 5), pool.right.weight.reshape(3, 2, 6)
    z = torch.einsum("oki,ni,okj,nj->no", u, a, v, b)
    torch.testing.assert_close(pool(a, b), z / z.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-5)


def shares(value: float) -> tuple[Tensor, Tensor]:
    return torch.full((3, 1), value), torch.full((3, 1), 1 - value)


@pytest.mark.parametrize("signed_root", [False, True])
def test_plain_scalar_weights_cancel_and_ours_act(signed_root: bool) -> None:
    torch.manual_seed(2)
    preset = FusionPreset("t", signed_root=signed_root)
    plain = FactorisedBilinear(64, 64, preset).eval()
    ours = FactorisedBilinear(65, 65, preset).eval()
    face, voice = torch.randn(3, 64), torch.randn(3, 64)
    (face_most, voice_least), (face_least, voice_most) = shares(0.9), shares(0.1)
    with torch.no_grad():
        difference = plain(0.9 * face, 0.1 * voice) - plain(0.1 * face, 0.9 * voice)
        towards_face = ours(extended_vector(face, face_most), extended_vector(voice, voice_least))
        towards_voice = ours(extended_vector(face, face_least), extended_vector(voice, voice_most))
    assert difference.abs().max() < 1e-6
    assert (towards_face - towards_voice).norm(dim=1).min() > 0.1


def test_a_face_of_full_weight_speaks_and_of_none_is_silent() -> None:
    ours = FactorisedBilinear(65, 65, presets.AGFBP).eval()
    voice, zero, one = torch.randn(1, 64), torch.zeros(2, 1), torch.ones(2, 1)
    faces, voices = torch.randn(2, 64), voice.expand(2, -1)
    with torch.no_grad():
        silent = ours(extended_vector(faces, zero), extended_vector(voices, one))
        speaking = ours(extended_vector(faces, one), extended_vector(voices, one))
    torch.testing.assert_close(silent[0], silent[1])
    assert (speaking[0] - speaking[1]).norm() > 0.1


@pytest.mark.parametrize(("preset", "adaptive"), [("gfbp", False), ("agfbp", True), ("amfbp", True)])
def test_only_adaptive_weights_differ_from_person_to_person(preset: str, adaptive: bool) -> None:
    weights = fuse(preset, evidence([1.0, 1.0, 1.0])).weights
    assert (weights.std(0).max() > 1e-3) == adaptive


@pytest.mark.parametrize(("preset", "looks"), [("gfbp", False), ("agfbp", False), ("amfbp", True)])
def test_only_the_fusion_with_trunks_looks_at_the_short_window(preset: str, looks: bool) -> None:
    e = evidence([1.0, 1.0, 0.0])
    other = e._replace(face_short=-e.face_short, voice_short=-e.voice_short)
    assert torch.equal(fuse(preset, e).logits, fuse(preset, other).logits) != looks


def test_training_gets_the_global_and_the_local_way_as_well() -> None:
    fusion = BilinearFusion(presets.AMFBP).eval()
    e = evidence([1.0, 1.0, 0.0])
    answer, auxiliaries = fusion.with_auxiliaries(e)
    torch.testing.assert_close(answer.logits, fusion(*e).logits)
    assert [aux.shape for aux in auxiliaries] == [(4, 7), (4, 7)]
    same_trunks = e._replace(face_short=e.face_long, voice_short=e.voice_long)
    changed = fusion.with_auxiliaries(same_trunks)[1]
    torch.testing.assert_close(changed[0], auxiliaries[0])
    assert not torch.allclose(changed[1], auxiliaries[1])


def test_evidence_of_another_batch_row_does_not_leak() -> None:
    e = evidence([1.0, 1.0, 1.0])
    for preset in ALL:
        alone = fuse(preset, FusionEvidence._make(x[:1] for x in e))
        torch.testing.assert_close(alone.logits, fuse(preset, e).logits[:1], rtol=1e-4, atol=1e-5)
